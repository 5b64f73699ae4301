"""What a library can be built for, and which level this machine is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hawqtvm.errors import BadInput
from hawqtvm.runtime.cpu import cpu_features
from schedules import target as targets
from schedules.target import CPU_TARGETS, CUDA_TARGETS, find_target

NAMES = [target.name for target in CPU_TARGETS]
GPUS = [name for target in CUDA_TARGETS for name in (target.name, target.arch)]


@pytest.fixture
def features(monkeypatch):
    """Makes the machine have these features."""
    return lambda present: monkeypatch.setattr(targets, "cpu_features", lambda: frozenset(present))


@pytest.mark.parametrize("target", CPU_TARGETS, ids=lambda target: target.name)
def test_native_is_the_level_whose_features_are_all_there(features, target):
    features(target.features)
    assert find_target("native") is find_target() is target
    features({*target.features, "sgx", "avx512_fp16"})
    assert find_target("native") is target


@pytest.mark.parametrize("target", CPU_TARGETS[:-1], ids=lambda target: target.name)
def test_one_feature_less_is_a_level_less(features, target):
    below = next((t for t in CPU_TARGETS if set(t.features) < set(target.features)), CPU_TARGETS[-1])
    for missing in set(target.features) - set(below.features):
        features(set(target.features) - {missing})
        assert find_target("native") is below, missing


def test_unknown_processor_takes_the_lowest_level(features):
    features(())
    assert find_target("native").name == "x86-64"


def test_what_levels_have():
    assert [target.name for target in CPU_TARGETS if target.vnni] == ["avx512-vnni"]
    assert [target.name for target in CPU_TARGETS if target.avx512] == ["avx512-vnni"]
    assert [target.name for target in CPU_TARGETS if target.avx_vnni] == ["avx-vnni"]
    assert [target.name for target in CPU_TARGETS if target.avx2] == ["avx512-vnni", "avx-vnni", "avx2"]
    avx2 = set(find_target("avx2").features)
    assert all(set(target.features) > avx2 for target in CPU_TARGETS[:2])


def test_native_is_what_this_machine_reports():
    present = cpu_features()
    native = find_target("native")
    assert present.issuperset(native.features)
    for better in CPU_TARGETS[: CPU_TARGETS.index(native)]:
        assert not present.issuperset(better.features)


# LLVM's names where they are not Linux's
LLVM_NAMES = {
    "abm": "lzcnt",
    "avx_vnni": "avxvnni",
    "avx512_vnni": "avx512vnni",
    "bmi1": "bmi",
    "lahf_lm": "sahf",
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
}


@pytest.mark.parametrize("target", CPU_TARGETS, ids=lambda target: target.name)
def test_the_runtime_asks_for_what_llvm_may_use(target):
    import tvm

    has = tvm.get_global_func("target.target_has_feature")
    for feature in {feature for level in CPU_TARGETS[:-1] for feature in level.features}:
        assert bool(has(LLVM_NAMES.get(feature, feature), target.tvm)) == (feature in target.features), feature


@pytest.mark.parametrize("name", NAMES)
def test_levels_by_name(name):
    assert find_target(name).name == name
    assert find_target(name).tvm.kind.name == "llvm"


@pytest.mark.parametrize("name", GPUS)
def test_gpus_by_name_and_by_architecture(name):
    target = find_target(name)
    assert name in (target.name, target.arch)
    assert target.tvm.kind.name == "cuda"
    assert target.tvm.attrs["arch"] == target.arch
    assert target.tvm.host.kind.name == "llvm"


@settings(max_examples=30, derandomize=True)
@given(st.text().filter(lambda name: name not in [*NAMES, *GPUS, "native"]))
def test_unknown_names_are_refused_with_the_known_ones(name):
    with pytest.raises(BadInput, match="unknown target") as error:
        find_target(name)
    assert all(known in str(error.value) for known in ("native", *NAMES, *GPUS))
    assert "\n" not in str(error.value)
