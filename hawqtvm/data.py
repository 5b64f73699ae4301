"""Images for calibration, accuracy and timing, from one place and in one shape.

Whatever the source, the result is float32 NCHW, already normalised as the model expects. Normalisation of 8-bit
pixels: three channels become (pixel / 255 - mean) / std with the ImageNet mean and std, one channel becomes
pixel / 255. The embedded digits hold values 0..16 and become pixel / 16, so they too lie in [0, 1].
"""

import math
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hawqtvm.errors import BadInput

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SOURCES = "'digits', 'random', a .npz file, or a folder of images"
RANDOM_COUNT = 32
SPLIT_SEED = 0


@dataclass(frozen=True, eq=False)
class Images:
    """A set of images held in memory.

    Attributes:
        images: float32 (N, C, H, W), normalised, finite, C-contiguous.
        labels: int64 (N,), or None where the set has no labels.
        name: what to call the set in reports.
        split: "train" or "test" for the embedded digits, "" for every other source.
    """

    images: np.ndarray
    labels: np.ndarray | None
    name: str
    split: str = ""

    def __len__(self) -> int:
        return len(self.images)


def load_images(
    source: str | Path, input_shape: tuple[int, int, int], limit: int | None = None, split: str = "test"
) -> Images:
    """Load a set of images that fit a model's input.

    Args:
        source: one of
            "digits": the embedded handwritten digits, see `digits_split`;
            "random": standard normal noise, seeded and unlabelled, `limit` or 32 images; good for speed only;
            a path to a .npz: `images` (N, C, H, W), float32 already normalised or uint8 (normalised here as this
            module's docstring says), and optionally integer `labels` (N,); pickled content is refused;
            a folder: image files (unlabelled), or one subfolder a class (labels count the sorted names from 0).
            An image that already has the model's size is used as it is; any other is resized (bilinear) so that its
            shorter side is size * 256 / 224 and cropped at the centre.
        input_shape: the model's (C, H, W).
        limit: use at most this many images, spread evenly over the set so that every class keeps its share.
        split: "train" (for calibration) or "test" (for accuracy); only the digits know the difference.

    Raises:
        BadInput: nothing at that path, no images, another shape, NaN or Inf, an unreadable file, wrong labels.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"limit is {limit}: at least one image is needed")
    if str(source) == "digits":
        found = digits_split(split)
        chosen = _spread(len(found), limit)
        found = Images(found.images[chosen], found.labels[chosen], found.name, found.split)
    elif str(source) == "random":
        found = _random(input_shape, limit or RANDOM_COUNT)
    else:
        path = Path(source)
        if not path.exists():
            raise BadInput(f"data source '{source}' does not exist: give {SOURCES}")
        if path.is_dir():
            found = _from_folder(path, input_shape, limit)
        elif path.suffix == ".npz":
            found = _from_npz(path, input_shape, limit)
        else:
            raise BadInput(f"data source {path} is neither a .npz file nor a folder: give {SOURCES}")
    _check(found, input_shape)
    return found


def digits_split(split: str) -> Images:
    """scikit-learn's 1797 handwritten digits, 80 % "train" and 20 % "test", stratified by class, always the same.

    The embedded checkpoint was trained on "train" alone: calibrate on "train", measure accuracy on "test".

    Returns:
        images float32 (N, 1, 8, 8) = pixels / 16 in [0, 1]; labels 0..9.
    """
    if split not in ("train", "test"):
        raise BadInput(f"split '{split}' is unknown: the digits have 'train' and 'test'")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    parts = train_test_split(
        digits.images, digits.target, test_size=0.2, stratify=digits.target, random_state=SPLIT_SEED
    )
    pixels, labels = (parts[0], parts[2]) if split == "train" else (parts[1], parts[3])
    return Images((pixels[:, None] / 16).astype(np.float32), labels.astype(np.int64), "digits", split)


def _random(input_shape: tuple[int, int, int], count: int) -> Images:
    _check_memory(count, input_shape, "random")
    generator = np.random.default_rng(0)
    return Images(generator.standard_normal((count, *input_shape), dtype=np.float32), None, "random")


def _spread(count: int, limit: int | None) -> np.ndarray:
    """At most `limit` of `count` indices, ascending and evenly spaced."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.arange(limit) * count // limit


def _normalise(pixels: np.ndarray, what: str) -> np.ndarray:
    """uint8 (N, C, H, W) -> float32, as this module's docstring says."""
    scaled = pixels.astype(np.float32) / 255
    channels = pixels.shape[1]
    if channels == 1:
        return scaled
    if channels == 3:
        mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return (scaled - mean) / std
    raise BadInput(
        f"{what}: 8-bit pixels of {channels} channels have no known normalisation; "
        "save float32 images that are normalised already in a .npz"
    )


def _from_npz(path: Path, input_shape: tuple[int, int, int], limit: int | None) -> Images:
    try:
        with np.load(path, allow_pickle=False) as file:
            if "images" not in file:
                raise BadInput(
                    f"{path} holds {', '.join(file) or 'nothing'} but no array 'images': "
                    "save it with numpy.savez(path, images=..., labels=...)"
                )
            images = file["images"]
            labels = file.get("labels")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"{path} cannot be read ({error}): write it again with numpy.savez, without objects") from error
    _check_shape(images.shape, input_shape, str(path))
    if labels is not None:
        if labels.shape != (len(images),):
            raise BadInput(f"{path}: labels of shape {labels.shape} for {len(images)} images; one label an image")
        if labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
            raise BadInput(f"{path}: labels must be class numbers from 0 on, found {labels.dtype}; save them as int64")
    chosen = _spread(len(images), limit)
    images, labels = images[chosen], None if labels is None else labels[chosen].astype(np.int64)
    if images.dtype == np.uint8:
        images = _normalise(images, str(path))
    elif images.dtype != np.float32:
        raise BadInput(f"{path}: images are {images.dtype}; save float32 (normalised) or uint8 (pixels 0..255)")
    return Images(np.ascontiguousarray(images), labels, path.stem)


def _from_folder(folder: Path, input_shape: tuple[int, int, int], limit: int | None) -> Images:
    files, labels = _list_folder(folder)
    channels, height, width = input_shape
    if channels not in (1, 3):
        raise BadInput(f"{folder}: image files give 1 or 3 channels, the model takes {channels}; use a .npz")
    chosen = _spread(len(files), limit)
    _check_memory(len(chosen), input_shape, str(folder))
    images = np.empty((len(chosen), *input_shape), np.float32)
    for row, index in enumerate(chosen):
        pixels = _read_image(files[index], channels, height, width)
        images[row] = _normalise(pixels[None], str(folder))[0]
    return Images(images, None if labels is None else labels[chosen], folder.resolve().name)


def _check_memory(count: int, input_shape: tuple[int, int, int], what: str) -> None:
    """Refuse a set that would fill most of this machine's memory, before reading it for an hour."""
    each = 4 * math.prod(input_shape)
    allowed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
    if count * each > allowed:
        raise BadInput(
            f"{what}: {count} images take {count * each / 1e9:.0f} GB of memory, more than this machine "
            f"should give; set a limit of at most {allowed // each} images"
        )


def _list_folder(folder: Path) -> tuple[list[Path], np.ndarray | None]:
    """The image files in sorted order, and each one's class number if the folder has one subfolder a class."""

    def images_in(where: Path) -> list[Path]:
        return sorted(p for p in where.iterdir() if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES)

    flat = images_in(folder)
    # an empty class keeps its number, or every label after it would be wrong
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    labelled = [(file, number) for number, name in enumerate(classes) for file in images_in(name)]
    if flat and labelled:
        raise BadInput(f"{folder} holds images beside class folders: keep either images or class folders in it")
    if flat:
        return flat, None
    if not labelled:
        raise BadInput(
            f"{folder} holds no images: put {', '.join(IMAGE_SUFFIXES)} files there, or one subfolder for each class"
        )
    return [file for file, _ in labelled], np.array([number for _, number in labelled], np.int64)


def _read_image(path: Path, channels: int, height: int, width: int) -> np.ndarray:
    """One file -> uint8 (C, H, W)."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            # Pillow clips deeper pixels to 8 bits instead of scaling them
            if file.mode.startswith(("I", "F")):
                raise BadInput(f"{path} has {file.mode} pixels: convert it to 8 bits a channel")
            image = file.convert("L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadInput(f"image {path} cannot be read ({error}): remove it or save it again") from error
    if image.size != (width, height):
        image = _resize_and_crop(image, height, width)
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


def _resize_and_crop(image, height: int, width: int):
    """Scale until the crop of (height, width) covers 224/256 of the tighter side, then crop at the centre."""
    from PIL import Image

    factor = max(height / image.height, width / image.width) * 256 / 224
    grown = (max(width, round(image.width * factor)), max(height, round(image.height * factor)))
    left, top = (grown[0] - width) // 2, (grown[1] - height) // 2
    return image.resize(grown, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))


def _check_shape(shape: tuple[int, ...], input_shape: tuple[int, int, int], what: str) -> None:
    if len(shape) != 4 or tuple(shape[1:]) != tuple(input_shape):
        expected = ", ".join(map(str, input_shape))
        raise BadInput(f"{what}: images of shape {tuple(shape)}, but the model takes (N, {expected})")
    if shape[0] == 0:
        raise BadInput(f"{what} holds no images: at least one is needed")


def _check(found: Images, input_shape: tuple[int, int, int]) -> None:
    _check_shape(found.images.shape, input_shape, found.name)
    bad = ~np.isfinite(found.images).reshape(len(found), -1).all(axis=1)
    if bad.any():
        raise BadInput(f"{found.name}: image {int(bad.argmax())} holds NaN or Inf: repair or remove it")
