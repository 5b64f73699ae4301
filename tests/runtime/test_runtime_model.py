"""A loaded artifact computes what the reference does, however the images lie in memory and whoever calls."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tiny_artifact import OUTPUT, SHAPE, reference, write_manifest

from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.runtime import load
from hawqtvm.runtime.engine import ffi
from hawqtvm.runtime.threads import ALLOWED_CPUS

COUNTS = [1, 2] if len(ALLOWED_CPUS) > 1 else [1]


@pytest.fixture
def model(built):
    return load(built())


@pytest.mark.parametrize("threads", COUNTS)
def test_codes_and_images(built, codes, threads):
    model = load(built(), threads=threads)
    logits = model(codes)
    assert logits.dtype == np.int32 and logits.shape == OUTPUT
    np.testing.assert_array_equal(logits, reference(codes))
    images = np.random.default_rng(2).normal(0, 60, SHAPE).astype(np.float32)
    quantized = np.clip((images * np.float32(2) + np.float32(10.5)).astype(np.int32), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(model(images), reference(quantized))


def test_results_belong_to_the_caller(model, codes):
    first = model(codes)
    kept = first.copy()
    model(codes + np.uint8(1))
    np.testing.assert_array_equal(first, kept)
    assert first.flags.owndata and first.flags.writeable


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_any_memory_layout(model, dtype):
    values = np.random.default_rng(3).integers(0, 100, SHAPE).astype(dtype)
    expected = model(values)
    size = values.nbytes
    for offset in (1, 3, 4, 32):
        raw = np.zeros(size + 64, np.uint8)
        shifted = raw[offset : offset + size].view(dtype).reshape(SHAPE)
        shifted[...] = values
        np.testing.assert_array_equal(model(shifted), expected)
    frozen = values.copy()
    frozen.flags.writeable = False
    strided = np.repeat(values, 2, axis=3)[..., ::2]
    for same in (frozen, strided, np.asfortranarray(values), values[::-1][::-1]):
        np.testing.assert_array_equal(model(same), expected)


def test_memory_mapped_images(model, tmp_path, codes):
    np.save(tmp_path / "codes.npy", codes)
    np.testing.assert_array_equal(model(np.load(tmp_path / "codes.npy", mmap_mode="r")), reference(codes))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[1, 2]], "must be a numpy array .*not list"),
        (np.zeros(SHAPE), "must be float32, or uint8 .*not float64"),
        (np.zeros(SHAPE, ">f4"), "must be float32, or uint8 .*not >f4"),
        (np.zeros((1, *SHAPE[1:]), np.uint8), r"\(1, 4, 8, 8\), the artifact takes \(2, 4, 8, 8\): run_all"),
        (np.zeros((2, 8, 8, 4), np.float32), r"\(2, 8, 8, 4\), the artifact takes"),
        (np.zeros((4, 8, 8), np.uint8), r"\(4, 8, 8\), the artifact takes"),
    ],
)
def test_images_that_do_not_fit(model, images, message):
    for use in (model, model.trace, model.profile):
        with pytest.raises(BadInput, match=message):
            use(images)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6])
def test_run_all(model, count):
    images = np.random.default_rng(4).integers(0, 256, (count, *SHAPE[1:]), np.uint8)
    logits = model.run_all(images)
    assert logits.shape == (count, 4) and logits.dtype == np.int32
    np.testing.assert_array_equal(logits, reference(images))
    dark = images // 4  # 2x + 10 stays a uint8
    np.testing.assert_array_equal(model.run_all(dark.astype(np.float32)), reference(dark * 2 + np.uint8(10)))


def test_run_all_of_wrong_shape(model):
    with pytest.raises(BadInput, match="'any number', 4, 8, 8"):
        model.run_all(np.zeros((3, 4, 8, 9), np.uint8))


def test_trace_copies_every_layer(model, codes):
    stored = model.trace(codes)
    assert list(stored) == ["scale", "total"]
    np.testing.assert_array_equal(stored["scale"], codes * np.uint8(3))
    np.testing.assert_array_equal(stored["total"], reference(codes))
    model.trace(codes + np.uint8(1))
    np.testing.assert_array_equal(stored["scale"], codes * np.uint8(3))


def test_trace_takes_two_outputs_from_the_last_two_arguments(artifact, codes):
    rows = [
        {"name": "scale", "kernel": "hawq_scale"},
        {"name": "copy", "kernel": "hawq_total", "second_output": {"tensor": "sums"}},
    ]
    write_manifest(artifact, layers=rows)
    model = load(artifact)
    stored = model.trace(codes)
    assert list(stored) == ["scale", "copy", "sums"]
    np.testing.assert_array_equal(stored["copy"], stored["scale"])
    np.testing.assert_array_equal(stored["sums"], reference(codes))
    assert list(model.profile(codes, repeats=1)) == ["scale", "copy"]


def test_profile_and_measure(model, codes):
    seconds = model.profile(codes, repeats=4)
    assert list(seconds) == ["scale", "total"]
    assert all(len(samples) == 4 and all(0 < s < 1 for s in samples) for samples in seconds.values())
    whole = model.measure(repeats=5, warmup=2)
    assert len(whole) == 5 and all(0 < s < 1 for s in whole)


def test_instrument_is_gone_afterwards(model, codes, monkeypatch):
    calls = []
    monkeypatch.setattr(np, "from_dlpack", lambda x, convert=np.from_dlpack: calls.append(x) or convert(x))
    model.trace(codes)
    assert len(calls) == 3
    calls.clear()
    model(codes)
    assert len(calls) == 1


def test_an_error_while_watched_passes_and_removes_the_instrument(model, codes):
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), model._program.watched(interrupted, interrupted):
        model(codes)
    np.testing.assert_array_equal(model(codes), reference(codes))


def test_a_manifest_of_another_library_fails_the_trace(artifact, codes):
    write_manifest(artifact, layers=[{"name": "conv1", "kernel": "absent"}])
    for look in (load(artifact).trace, load(artifact).profile):
        with pytest.raises(CheckFailed, match="layer conv1 ran 0 times"):
            look(codes)


@pytest.mark.skipif(len(COUNTS) < 2, reason="one CPU")
def test_each_model_keeps_its_own_thread_count(built, codes):
    used = ffi().get_global_func("runtime.NumThreads")
    one, two = load(built(), threads=1), load(built(), threads=2)
    for _ in range(3):
        for model, count in ((one, 1), (two, 2)):
            assert model._run(used) == count
            np.testing.assert_array_equal(model(codes), reference(codes))


def test_callers_in_several_threads(built):
    models = [load(built(), threads=count) for count in COUNTS]
    batches = [np.full(SHAPE, i, np.uint8) for i in range(40)]

    def work(i):
        return models[i % len(models)](batches[i])

    with ThreadPoolExecutor(4) as pool:
        for batch, logits in zip(batches, pool.map(work, range(40)), strict=True):
            np.testing.assert_array_equal(logits, reference(batch))
