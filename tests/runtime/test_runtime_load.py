"""Every reason not to load an artifact is one line that names the thing and the remedy."""

import json
import shutil

import numpy as np
import pytest
from tiny_artifact import reference, write_manifest

from hawqtvm.errors import BadInput
from hawqtvm.files import atomic_directory
from hawqtvm.runtime import cpu, engine, load
from hawqtvm.runtime.threads import ALLOWED_CPUS


def refused(path, message, **options):
    with pytest.raises(BadInput, match=message) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)


def test_no_such_directory(tmp_path):
    refused(tmp_path / "absent", "no such artifact directory: .*absent; .*hawqtvm.deploy")


def test_missing_and_truncated_manifest(artifact):
    manifest = artifact / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    refused(artifact, "manifest.json is not JSON")
    manifest.unlink()
    refused(artifact, "no such file: .*manifest.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2, newer .* update"),
        ({"format": "hawqtvm-plan"}, "a hawqtvm-plan, not a hawqtvm-artifact"),
        ({"input": None}, "'input.shape' is missing"),
        ({"threads": "2"}, "'threads' is of the wrong type"),
        ({"threads": 0}, "shapes or threads make no sense"),
        ({"input": {"shape": [2, 4, 8]}}, "shapes or threads make no sense"),
        ({"output": {"shape": [3, 4], "scale": 1.0}}, "shapes or threads make no sense"),
        ({"library": "../model.so"}, "not a plain file name"),
        ({"layers": [{"name": "a"}]}, "lacks its name, kernel"),
        ({"layers": ["a"]}, "lacks its name, kernel"),
        ({"layers": [{"name": "a", "kernel": "k", "second_output": {"code": "uint4"}}]}, "second output's tensor"),
        ({"layers": [{"name": "a", "kernel": "k", "second_output": {"tensor": "a"}}]}, "share a name or a kernel"),
        ({"layers": [{"name": "a", "kernel": "k"}, {"name": "b", "kernel": "k"}]}, "share a name or a kernel"),
        ({"target": {"features": ["sse2", "avx10_9", "amx_imaginary"]}}, "needs a CPU with amx_imaginary, avx10_9,"),
    ],
)
def test_manifests_that_cannot_be_used(artifact, changes, message):
    write_manifest(artifact, **changes)
    refused(artifact, message)


def test_missing_and_damaged_library(artifact):
    library = artifact / "model.so"
    content = library.read_bytes()
    for damaged in (content[:-100], content[:5000] + b"?" + content[5001:]):
        library.write_bytes(damaged)
        refused(artifact, "model.so is damaged")
    library.unlink()
    refused(artifact, "lacks its library model.so")


def test_a_library_that_is_none(artifact):
    (artifact / "model.so").write_bytes(b"text")
    write_manifest(artifact)
    refused(artifact, "TVM cannot open .*model.so")


def test_cpu_is_checked_before_the_library_is_opened(artifact, monkeypatch):
    monkeypatch.setattr(engine.Program, "__init__", lambda *_: pytest.fail("opened"))
    monkeypatch.setattr(cpu, "cpu_features", lambda: frozenset({"sse"}))
    refused(artifact, "needs a CPU with sse2, which this one lacks")
    monkeypatch.setattr(cpu, "machine", lambda: "aarch64")
    refused(artifact, "built for x86-64, this machine is aarch64")


def test_cpu_features(tmp_path, monkeypatch):
    assert "sse2" in cpu.cpu_features()
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
    assert cpu.cpu_features() == frozenset()
    cpu.CPUINFO.write_text("processor\t: 0\nflags\t\t: fpu avx2\nvmx flags\t: ept\n\nflags\t: other\n")
    assert cpu.cpu_features() == {"fpu", "avx2"}


@pytest.mark.parametrize("threads", [0, -1, len(ALLOWED_CPUS) + 1, 1.0, True, "1"])
def test_bad_thread_counts(built, threads):
    refused(built(), f"threads={threads!r}: give a number from 1 to {len(ALLOWED_CPUS)}, the CPUs", threads=threads)


def test_threads_default_to_the_manifest_as_far_as_there_are_cpus(artifact):
    write_manifest(artifact, threads=1)
    assert load(artifact).threads == 1
    write_manifest(artifact, threads=4096)
    assert load(artifact).threads == len(ALLOWED_CPUS)


def test_a_replaced_artifact_gives_the_new_library(built, tmp_path, codes):
    path, models = tmp_path / "artifact", []
    for factor in (3, 5, 3, 5):
        with atomic_directory(path, "manifest.json", "hawqtvm-artifact") as fresh:
            shutil.copytree(built(factor), fresh, dirs_exist_ok=True)
        models.append(load(path))
        np.testing.assert_array_equal(models[-1](codes), reference(codes, factor))
    shutil.rmtree(path)
    for model, factor in zip(models, (3, 5, 3, 5), strict=True):
        np.testing.assert_array_equal(model(codes), reference(codes, factor))


def test_loading_again_and_by_another_name(built, tmp_path, codes, monkeypatch):
    (tmp_path / "link").symlink_to(built())
    monkeypatch.chdir(built().parent)
    for path in (built(), str(built()), tmp_path / "link", built().name):
        np.testing.assert_array_equal(load(path)(codes), reference(codes))


def test_manifest_is_at_hand(built):
    model = load(built())
    assert model.manifest == json.loads((built() / "manifest.json").read_text())
    assert (model.batch, model.input_shape, model.logits_scale) == (2, (2, 4, 8, 8), 0.25)
