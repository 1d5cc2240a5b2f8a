"""Read and write single pictures."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unblur.runtime.atomic import atomic_file
from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
MAX_PIXELS = 100_000_000
_JPEG_QUALITY = 95


def is_image_path(path: Path) -> bool:
    """True if the suffix is one of a picture format that we read."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def list_images(folder: Path) -> list[Path]:
    """All pictures directly in `folder`, sorted by name; BadInput if there are none."""
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder of pictures")
    paths = sorted(path for path in folder.iterdir() if is_image_path(path) and not path.name.startswith("."))
    if not paths:
        raise BadInput(f"{folder} holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return paths


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Frame:
    """Decode a picture to uint8 RGB (H, W, 3), turned upright by its EXIF orientation.

    Grey, palette and 16-bit pictures are converted; transparency is dropped (the colour below is kept).
    max_pixels: refuse a larger picture before decoding it (decompression bombs).
    Raises BadInput if the file is missing, empty, truncated, too large or no picture.
    """
    if not path.is_file():
        raise BadInput(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check_pixels(path, image.size, max_pixels)
                return _upright_rgb(image)
    except UnidentifiedImageError as error:
        raise BadInput(f"{path} is not a picture that can be read") from error
    except Image.DecompressionBombError as error:
        raise BadInput(f"{path} is too large a picture; raise --max-pixels if you trust it") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInput(f"{path} is damaged or truncated: {error}") from error


def image_size_hw(path: Path) -> tuple[int, int]:
    """(height, width) from the header, as stored (before EXIF rotation); BadInput if it is no picture."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path} is not a picture that can be read") from error


def write_image(path: Path, frame: Frame) -> None:
    """Write uint8 RGB (H, W, 3) in the format of the suffix, whole or not at all."""
    if not is_image_path(path):
        raise BadInput(
            f"cannot write {path}: '{path.suffix}' is no picture format ({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    with atomic_file(path) as temporary:
        Image.fromarray(frame).save(temporary, quality=_JPEG_QUALITY)


def _check_pixels(path: Path, size_wh: tuple[int, int], max_pixels: int) -> None:
    width, height = size_wh
    if width * height > max_pixels:
        raise BadInput(
            f"{path} has {width} x {height} pixels, more than the limit of {max_pixels}; "
            "raise --max-pixels if you trust it"
        )


def _upright_rgb(image: Image.Image) -> Frame:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode == "I":
        levels = np.asarray(upright, np.int64) // 257
        grey = np.clip(levels, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if upright.mode == "P":
        upright = upright.convert("RGBA")
    return np.array(upright.convert("RGB"), np.uint8)
