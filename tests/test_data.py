"""Image sources: shapes, normalisation, labels, and every bad input."""

import numpy as np
import pytest
from PIL import Image

from hawqtvm.data import IMAGENET_MEAN, IMAGENET_STD, digits_split, load_images
from hawqtvm.errors import BadInput

SHAPE = (3, 32, 32)


def refusal(source, shape=SHAPE, **options):
    with pytest.raises(BadInput) as caught:
        load_images(source, shape, **options)
    return str(caught.value)


def save_image(path, size=(40, 36), mode="RGB", value=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (value,) * 3 if mode == "RGB" else value).save(path)


def save_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_the_digits_splits_are_stratified_disjoint_and_fixed():
    train, test = digits_split("train"), digits_split("test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape[1:] == (1, 8, 8)
    assert train.images.dtype == np.float32
    assert train.labels.dtype == np.int64
    assert train.images.min() == 0
    assert train.images.max() == 1
    shares = [np.bincount(part.labels) / len(part) for part in (train, test)]
    assert np.abs(shares[0] - shares[1]).max() < 0.005
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)
    assert np.array_equal(digits_split("test").images, test.images)


def test_the_digits_give_the_split_asked_for():
    assert load_images("digits", (1, 8, 8)).split == "test"
    assert len(load_images("digits", (1, 8, 8), split="train")) == 1437
    assert "'val'" in refusal("digits", (1, 8, 8), split="val")
    message = refusal("digits")
    assert "(360, 1, 8, 8)" in message
    assert "(N, 3, 32, 32)" in message


def test_a_limit_spreads_over_the_classes():
    few = load_images("digits", (1, 8, 8), limit=100)
    assert len(few) == 100
    assert set(few.labels) == set(range(10))
    assert "limit is 0" in refusal("digits", (1, 8, 8), limit=0)
    assert len(load_images("digits", (1, 8, 8), limit=10_000)) == 360


def test_random_images_are_seeded_and_unlabelled():
    first, second = (load_images("random", SHAPE, limit=4) for _ in range(2))
    assert first.images.shape == (4, *SHAPE)
    assert first.images.dtype == np.float32
    assert first.labels is None
    assert np.array_equal(first.images, second.images)


def test_a_set_that_does_not_fit_in_memory_is_refused_before_it_is_made():
    assert "set a limit of at most" in refusal("random", (3, 224, 224), limit=100_000_000)


def test_float_npz_is_taken_as_it_is(tmp_path):
    images = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32)
    path = save_npz(tmp_path / "set.npz", images=images, labels=np.arange(5, dtype=np.uint8))
    found = load_images(path, SHAPE)
    assert np.array_equal(found.images, images)
    assert found.labels.tolist() == [0, 1, 2, 3, 4]
    assert found.labels.dtype == np.int64
    assert found.name == "set"
    assert load_images(str(path), SHAPE, limit=2).labels.tolist() == [0, 2]
    assert load_images(save_npz(tmp_path / "plain.npz", images=images), SHAPE).labels is None


def test_byte_npz_is_normalised(tmp_path):
    colour = save_npz(tmp_path / "colour.npz", images=np.full((1, *SHAPE), 255, np.uint8))
    expected = (1 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    assert np.allclose(load_images(colour, SHAPE).images[0, :, 0, 0], expected)
    grey = save_npz(tmp_path / "grey.npz", images=np.full((1, 1, 8, 8), 51, np.uint8))
    assert np.allclose(load_images(grey, (1, 8, 8)).images, 0.2)
    deep = save_npz(tmp_path / "deep.npz", images=np.zeros((1, 4, 8, 8), np.uint8))
    assert "4 channels" in refusal(deep, (4, 8, 8))


def test_a_flat_folder_has_no_labels(tmp_path):
    for name in ("b.png", "a.JPG", "c.jpeg", "d.bmp", "e.webp"):
        save_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    found = load_images(tmp_path, SHAPE)
    assert found.images.shape == (5, *SHAPE)
    assert found.labels is None
    expected = (128 / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    assert np.allclose(found.images.mean((0, 2, 3)), expected, atol=0.02)


def test_class_folders_give_labels_in_sorted_order(tmp_path):
    save_image(tmp_path / "zebra" / "1.png")
    save_image(tmp_path / "ant" / "1.png")
    save_image(tmp_path / "ant" / "2.png")
    (tmp_path / "bee").mkdir()
    save_image(tmp_path / ".cache" / "1.png")
    assert load_images(tmp_path, SHAPE).labels.tolist() == [0, 0, 2]
    save_image(tmp_path / "loose.png")
    assert "beside class folders" in refusal(tmp_path)


def test_grey_models_get_grey_images_without_resizing_what_fits(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.allclose(load_images(tmp_path, (1, 8, 8)).images[0, 0] * 255, pixels, atol=1e-4)
    assert "1 or 3 channels" in refusal(tmp_path, (2, 8, 8))


def test_resizing_keeps_the_centre(tmp_path):
    pixels = np.zeros((64, 256, 3), np.uint8)
    pixels[:, 96:160] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    found = load_images(tmp_path, SHAPE)
    assert (found.images[0] > 2).all()


def test_wrong_paths_and_empty_sets_are_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "gone")
    assert "holds no images" in refusal(tmp_path)
    (tmp_path / "set.tar").write_bytes(b"")
    assert "neither" in refusal(tmp_path / "set.tar")
    empty = save_npz(tmp_path / "empty.npz", images=np.zeros((0, *SHAPE), np.float32))
    assert "no images" in refusal(empty)


def test_unreadable_images_are_named(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "torn.png")
    whole = (tmp_path / "torn.png").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"text"):
        (tmp_path / "torn.png").write_bytes(content)
        assert "torn.png" in refusal(tmp_path)
    (tmp_path / "torn.png").unlink()
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(tmp_path / "deep.png")
    assert "deep.png" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": np.zeros((2, *SHAPE), np.float32)}, "no array 'images'"),
        ({"images": np.zeros((2, 3, 16, 16), np.float32)}, "(2, 3, 16, 16)"),
        ({"images": np.zeros((2, 32, 32, 3), np.float32)}, "(N, 3, 32, 32)"),
        ({"images": np.zeros((2, *SHAPE), np.float64)}, "float64"),
        ({"images": np.zeros((2, *SHAPE), np.float32), "labels": np.arange(3)}, "labels of shape (3,)"),
        ({"images": np.zeros((2, *SHAPE), np.float32), "labels": np.zeros(2)}, "float64"),
        ({"images": np.zeros((2, *SHAPE), np.float32), "labels": np.array([0, -1])}, "class numbers"),
        ({"images": np.array([None, None])}, "cannot be read"),
    ],
)
def test_bad_npz_files_are_refused(tmp_path, arrays, said):
    assert said in refusal(save_npz(tmp_path / "bad.npz", **arrays))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path, value):
    images = np.zeros((4, *SHAPE), np.float32)
    images[2, 1, 3, 3] = value
    assert "image 2" in refusal(save_npz(tmp_path / "bad.npz", images=images))


@pytest.mark.parametrize("keep", [0, 10, 2000, -30])
def test_a_truncated_npz_is_refused(tmp_path, keep):
    path = save_npz(tmp_path / "torn.npz", images=np.ones((4, *SHAPE), np.float32))
    path.write_bytes(path.read_bytes()[:keep])
    assert "cannot be read" in refusal(path)
