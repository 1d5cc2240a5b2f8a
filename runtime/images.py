"""Read and write single images."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from unblur.runtime.errors import BadInput
from unblur.runtime.files import atomic_file
from unblur.runtime.frames import Frame

# What Pillow's decoders raise for bytes that make no sense.
_DAMAGED = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError),
    *(MemoryError, struct.error),
)
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # of Pillow; it would give EPS to Ghostscript
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
MAX_PIXELS = 100_000_000
_JPEG_QUALITY = 95
_PNG_LEVEL = 1  # of zlib: a quarter of the time of the default, 6, for files a seventh larger
_QUARTER_TURNS = frozenset({5, 6, 7, 8})  # EXIF orientations that swap height and width


def is_image_path(path: Path) -> bool:
    """Whether the suffix is one of IMAGE_SUFFIXES."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def list_images(folder: Path) -> list[Path]:
    """All images directly in `folder`, sorted by name; BadInput if there are none."""
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder of images")
    paths = sorted(path for path in folder.iterdir() if is_image_path(path) and not path.name.startswith("."))
    if not paths:
        raise BadInput(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return paths


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Frame:
    """Decode an image to uint8 RGB (H, W, 3), turned upright by its EXIF orientation.

    Grey, palette and 16-bit images are converted; transparency is dropped (the colour below is kept).
    max_pixels: refuse a larger image before decoding it (decompression bombs).
    Raises BadInput if the file is missing, empty, truncated, too large or not an image.
    """
    with _opened(path, max_pixels) as image:
        return _upright_rgb(image)


def image_size_hw(path: Path) -> tuple[int, int]:
    """(height, width) from the header, as stored (before EXIF rotation); BadInput if it is not an image."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return image.height, image.width
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise BadInput(f"{path} is not an image that can be read") from error


def upright_size_hw(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) that `read_image` would give, from the header alone; the same errors for the header."""
    with _opened(path, max_pixels) as image:
        height, width = image.height, image.width
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _QUARTER_TURNS
        return (width, height) if turned else (height, width)


def read_icc_profile(path: Path) -> bytes | None:
    """The colour profile that gives the RGB values of an image their meaning; None if it has none.

    Profiles of other colour models (grey, CMYK) do not fit what `read_image` gives, and are left out.
    """
    with Image.open(path, formats=_FORMATS) as image:
        profile: bytes | None = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
        return profile


def write_image(path: Path, frame: Frame, icc_profile: bytes | None = None) -> None:
    """Write uint8 RGB (H, W, 3) in the format of the suffix, whole or not at all."""
    if not is_image_path(path):
        raise BadInput(
            f"cannot write {path}: '{path.suffix}' is not an image format ({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    with atomic_file(path) as temporary:
        save_image(temporary, frame, icc_profile)


def save_image(path: Path, frame: Frame, icc_profile: bytes | None = None) -> None:
    """As `write_image`, straight to `path`, for a writer that stages its files itself; raises OSError."""
    Image.fromarray(frame).save(path, quality=_JPEG_QUALITY, compress_level=_PNG_LEVEL, icc_profile=icc_profile)


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """The image with its header read; errors of the block that come from its bytes become BadInput."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                _check_pixels(path, image.size, max_pixels)
                yield image
    except UnidentifiedImageError as error:
        raise BadInput(f"{path} is not an image that can be read") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise BadInput(
            f"{path} has more than {limit} pixels, which Pillow refuses; make it smaller first"
        ) from error
    except _DAMAGED as error:
        raise BadInput(f"{path} is damaged or truncated: {error}") from error


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
