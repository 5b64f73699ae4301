"""What a bundle describes is what kernels take and must make."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hawqtvm.bundle import expected
from hawqtvm.bundle.pack import candidates
from hawqtvm.bundle.values import Blobs, values
from hawqtvm.qnn.formats import Format
from hawqtvm.runner import tensors
from hawqtvm.tune.candidates import candidate_space
from hawqtvm.tune.search import without_measurements
from schedules.cuda import conv2d_direct
from schedules.target import CUDA_TARGETS, find_target
from schedules.workload import AvgPool2d, Concat, Conv2d, Dense, Elementwise, MaxPool2d
from tests.bundle.workloads import BYTES, EIGHT, FOUR, WORKLOADS
from tests.schedules import reference

T4 = find_target("sm_75")


@given(st.data())
def test_words_are_ordered_as_numpy_transposes_them(data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    axes = data.draw(st.permutations(range(len(shape))))
    words = np.arange(np.prod(shape), dtype="int32").reshape(shape)
    view = words.transpose(axes)
    order = [[extent, stride // 4] for extent, stride in zip(view.shape, view.strides, strict=True)]
    assert tensors.ordered(words.tobytes(), order) == view.tobytes()


@given(st.binary(min_size=1, max_size=64), st.binary(min_size=64, max_size=64))
def test_a_mask_keeps_its_bits(data, mask):
    mask = mask[: len(data)]
    wanted = bytes(a & b for a, b in zip(data, mask, strict=True))
    assert tensors.kept(data, "mask", {"mask": mask}.__getitem__) == wanted
    assert tensors.kept(data, None, None) == data


def test_noise_is_that_of_the_standard():
    """SHAKE-128 of nothing, FIPS 202's own example."""
    assert tensors.noise("", 8).hex() == "7f9c2ba4e88f827d"
    assert tensors.noise("x0", 100)[:50] == tensors.noise("x0", 50) != tensors.noise("x1", 50)


@pytest.mark.parametrize(
    "workload", [w for w in WORKLOADS if isinstance(w, Conv2d) and w.groups == 1], ids=WORKLOADS.get
)
def test_weights_and_their_words(workload):
    rng, most = np.random.default_rng(0), 1 << (workload.weight_bits - 1)
    shape = (workload.out_channels, workload.in_channels, *workload.kernel)
    weight = rng.integers(-most, most, shape).astype("int8")
    words = conv2d_direct.weight_words(workload, weight)
    np.testing.assert_array_equal(conv2d_direct.weight_codes(workload, words), weight)
    config = conv2d_direct.default(workload, T4, 1)
    view = conv2d_direct.in_lane_order(config, workload, words)
    assert np.shares_memory(view, words)


@pytest.mark.parametrize("target", CUDA_TARGETS, ids=lambda target: target.arch)
@pytest.mark.parametrize("workload", [FOUR, *list(WORKLOADS)[2:6]], ids=WORKLOADS.get)
def test_constants_of_every_config_are_described(workload, target):
    choices, blobs = candidates(workload, target, 12), Blobs()
    made = values(choices[0], blobs)
    for choice in choices:
        wanted = choice.schedule.constants(choice.config, choice.workload, *made.parameters)
        described = made.constants(choice)
        assert [tensors.made(each, blobs.__getitem__) for each in described] == [array.tobytes() for array in wanted]
        assert [each["bytes"] for each in described] == [array.nbytes for array in wanted]


@pytest.mark.parametrize("workload", WORKLOADS, ids=WORKLOADS.get)
def test_outputs_have_many_values(workload):
    """A check by outputs that are nearly all clipped would show little."""
    (choice,) = candidates(workload, T4, 1)
    made, seen = values(choice, Blobs()), []
    real = expected.finished if made.parameters else expected.outcome
    with pytest.MonkeyPatch.context() as patch:

        def kept(*arguments):
            outputs = real(*arguments)
            seen.extend(outputs if isinstance(outputs, list) else [outputs])
            return outputs

        patch.setattr(expected, real.__name__, kept)
        values(choice, Blobs())
    for codes in seen:
        _, counts = np.unique(codes, return_counts=True)
        assert len(counts) >= min(16, codes.size) and counts.max() < 0.75 * codes.size


def plain(workload, inputs, weight=None, bias=None, b=None, c=None):
    """The tests' own statement of a workload."""
    if isinstance(workload, (Conv2d, Dense)):
        sums = (
            reference.conv2d(inputs[0], weight, bias, workload)
            if isinstance(workload, Conv2d)
            else reference.dense(inputs[0], weight, bias)
        )
        made = [reference.finish(sums, workload.epilogue, b, c, inputs[1] if len(inputs) > 1 else None)]
        codes = workload.epilogue.codes
        return made + ([reference.requantize(made[0], codes)] if codes else [])
    if isinstance(workload, Elementwise):
        return [reference.elementwise(inputs, workload)]
    if isinstance(workload, MaxPool2d):
        return [reference.max_pool2d(inputs[0], workload)]
    return [reference.avg_pool2d(inputs[0], workload)]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_expected_outputs_are_the_tests_own(seed):
    rng = np.random.default_rng(seed)
    for workload in WORKLOADS:
        if not isinstance(workload, (Conv2d, Dense, Elementwise, MaxPool2d, AvgPool2d)):
            continue
        if isinstance(workload, (Conv2d, Dense)):
            x = rng.integers(0, workload.x.limits[1] + 1, workload.x_dims)
            residual = rng.integers(-(2**15), 2**15, workload.out_dims)
            taps = (*workload.kernel,) if isinstance(workload, Conv2d) else ()
            groups = workload.groups if isinstance(workload, Conv2d) else 1
            weight = rng.integers(-8, 8, (workload.out_channels, workload.in_channels // groups, *taps)).astype("int8")
            bias, b, c = (rng.integers(*ends, workload.out_channels) for ends in ((-99, 99), (2**30, 2**31), (30, 44)))
            inputs = [x, residual] if workload.epilogue.residual else [x]
            sums = expected.layer_sums(workload, x, weight) + bias.reshape(1, -1, 1, 1)
            made = expected.finished(workload.epilogue, sums, b, c, residual)
            wanted = plain(workload, inputs, weight, bias, b, c)
        else:
            count = len(workload.operands) if isinstance(workload, Elementwise) else 1
            inputs = [rng.integers(-(2**15), 2**15, workload.dims) for _ in range(count)]
            made, wanted = [expected.outcome(workload, inputs)], plain(workload, inputs)
        for got, codes in zip(made, wanted, strict=True):
            np.testing.assert_array_equal(got, codes)


def test_a_concat_is_joined():
    workload = Concat(((1, 2, 1, 1), (1, 3, 1, 1)), BYTES, BYTES)
    inputs = [np.zeros((1, 2, 1, 1)), np.ones((1, 3, 1, 1))]
    assert expected.outcome(workload, inputs)[0, :, 0, 0].tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("workload", [FOUR, EIGHT], ids=WORKLOADS.get)
def test_candidates_are_the_default_the_best_and_some_others(workload):
    space = candidate_space(workload, T4, 1)
    chosen = without_measurements(space, 12)
    best = sorted(space.priors[1:])[:8]
    assert len(set(chosen)) == 12 and chosen[0] == 0
    assert [space.priors[index] for index in chosen[1:9]] == best
    assert any(space.priors[index] > best[-1] for index in chosen[9:])
    assert chosen == without_measurements(space, 12)
    found = candidates(workload, T4, 12)
    assert len(found) == 12 and all(each.workload == workload for each in found), "the network's own numbers"


def test_a_few_configs_are_all_taken():
    pool = next(w for w in WORKLOADS if isinstance(w, MaxPool2d))
    space = candidate_space(pool, T4, 1)
    assert sorted(without_measurements(space, 99)) == list(range(len(space.choices)))


def test_int32_codes_stay_small():
    """A rescaled residual of any int32 would leave the accumulator's range."""
    epilogue = replace(FOUR.epilogue, residual=replace(FOUR.epilogue.residual, format=Format("int32", "HWNC")))
    (choice,) = candidates(replace(FOUR, epilogue=epilogue), T4, 1)
    blobs = Blobs()
    residual = np.frombuffer(tensors.made(values(choice, blobs).inputs[1], blobs.__getitem__), "int32")
    assert residual.min() >= 0 and 2**19 < residual.max() < 2**20
