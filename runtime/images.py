"""Read and write single images, with what their files say beside the colours.

`read_image` and `write_image` are plain RGB. `read_still` and `write_still` lose nothing: 16 bits, transparency,
grey, the colour profile, EXIF and XMP. An image is turned upright, and its orientation tag removed.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from unblur.runtime.errors import BadInput, needs_extra
from unblur.runtime.files import atomic_file
from unblur.runtime.frames import AnyFrame, Frame, eight_bits
from unblur.runtime.image_metadata import IFDS, About, about_image, fitting_profile, orientation_of, png_text

# What Pillow's decoders raise for bytes that make no sense.
_DAMAGED = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError),
    *(MemoryError, struct.error),
)
# Of Pillow, which would give EPS to Ghostscript.
_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_HEIF = frozenset({".heic", ".heif"})
_TIFF = frozenset({".tif", ".tiff"})
_DEEP = _TIFF | {".png"}  # written with 16 bits
_HAS_ALPHA = _DEEP | _HEIF | {".webp", ".gif", ".avif"}
_HAS_GREY = _DEEP | {".jpg", ".jpeg", ".bmp", ".ppm", ".gif"}
_HAS_EXIF = _DEEP | _HEIF | {".webp", ".avif", ".jpg", ".jpeg"}
ANIMATED = _TIFF | {".gif", ".webp", ".png", ".avif"}
IMAGE_SUFFIXES = _HAS_EXIF | {".bmp", ".ppm", ".gif"}
MAX_PIXELS = 100_000_000
DEFAULT_QUALITY = 95
_PNG_LEVEL = 1  # of zlib: a quarter of the time of the default, 6, for files a seventh larger


@dataclass(frozen=True)
class Still:
    """An image, upright. rgb: uint8 or uint16 (H, W, 3); grey has three equal channels. alpha: (H, W), or None."""

    rgb: AnyFrame
    alpha: AnyFrame | None = None
    about: About = field(default_factory=About)


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
    Raises BadInput if the file is missing, empty, truncated, too large or not an image, MissingExtra for HEIC
    without the extra "heif".
    """
    return eight_bits(read_still(path, max_pixels).rgb)


def read_still(path: Path, max_pixels: int = MAX_PIXELS) -> Still:
    """Decode an image with all that is to be kept of it; of several frames the first. Errors as `read_image`."""
    with open_image(path, max_pixels) as image:
        return still_from(image, path)


def image_size_hw(path: Path) -> tuple[int, int]:
    """(height, width) from the header, as stored (before EXIF rotation); BadInput if it is not an image."""
    try:
        _know_heif(path)
        with Image.open(path, formats=_formats()) as image:
            return image.height, image.width
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise BadInput(f"{path} is not an image that can be read") from error


def upright_size_hw(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) that `read_image` would give, from the header alone; the same errors for the header."""
    with open_image(path, max_pixels) as image:
        turns, _ = orientation_of(image)
        return (image.width, image.height) if turns % 2 else (image.height, image.width)


def write_image(path: Path, frame: Frame, icc_profile: bytes | None = None) -> None:
    """Write uint8 RGB (H, W, 3) in the format of the suffix, whole or not at all."""
    write_still(path, Still(frame, about=About(icc_profile=icc_profile)))


def write_still(path: Path, still: Still, quality: int = DEFAULT_QUALITY) -> None:
    """Write an image in the format of the suffix, whole or not at all, with all that the format can hold.

    quality: 1 to 100 of JPEG, WebP, AVIF and HEIC. What it cannot hold is dropped; see `losses`.
    """
    check_image_suffix(path)
    with atomic_file(path) as temporary:
        save_still(temporary, still, quality)


def check_image_suffix(path: Path) -> None:
    """Raise BadInput if images cannot be written in the format of the suffix."""
    if not is_image_path(path):
        raise BadInput(
            f"cannot write {path}: '{path.suffix}' is not an image format ({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    _know_heif(path)


def save_still(path: Path, still: Still, quality: int = DEFAULT_QUALITY) -> None:
    """As `write_still`, straight to `path`, for a writer that stages its files itself; raises OSError."""
    try:
        _save_still(path, still, quality)
    except (ValueError, struct.error) as error:  # more pixels or metadata than the format can hold
        raise OSError(str(error)) from error


def _save_still(path: Path, still: Still, quality: int) -> None:
    suffix, about = path.suffix.lower(), still.about
    _know_heif(path)
    if still.rgb.dtype == np.uint16 and suffix in _DEEP:
        save = _save_tiff16 if suffix in _TIFF else _save_png16
        save(path, _channels(still, with_alpha=True), about)
        return
    image = pillow_image(still, suffix)
    image.save(path, **_save_options(about, image.mode, suffix, quality))


def save_animation(
    path: Path, stills: Sequence[Still], durations_ms: Sequence[float], quality: int = DEFAULT_QUALITY
) -> None:
    """Write the frames of an animation, or the pages of a TIFF, straight to `path`; raises OSError."""
    suffix = path.suffix.lower()
    first, *others = (pillow_image(still, suffix) for still in stills)
    options = _save_options(stills[0].about, first.mode, suffix, quality)
    if suffix not in _TIFF:
        options |= {"duration": list(durations_ms), "loop": stills[0].about.loop}
    if suffix == ".gif" and first.mode.endswith("A"):
        options["disposal"] = 2  # what is transparent shows the background, not the frame before
    first.save(path, save_all=True, append_images=others, **options)


def _save_options(about: About, mode: str, suffix: str, quality: int) -> dict[str, Any]:
    options: dict[str, Any] = {"quality": quality, "compress_level": _PNG_LEVEL, "dpi": about.dpi}
    options["icc_profile"] = fitting_profile(about, mode)
    if suffix in _HAS_EXIF:
        options |= {"exif": about.exif, "xmp": about.xmp, "pnginfo": png_text(about) if suffix == ".png" else None}
    return {name: value for name, value in options.items() if value is not None}


def losses(still: Still, suffix: str) -> list[str]:
    """What a format cannot hold of an image, for people."""
    about, suffix = still.about, suffix.lower()
    lost = ["16 bits become 8"] if still.rgb.dtype == np.uint16 and suffix not in _DEEP else []
    if still.alpha is not None and suffix not in _HAS_ALPHA:
        lost.append("transparency is dropped")
    if (about.exif or about.xmp) and suffix not in _HAS_EXIF:
        lost.append("EXIF is dropped")
    return lost


@contextmanager
def open_image(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """The image with its header read; errors of the block that come from its bytes become BadInput."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty")
    _know_heif(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow has to say about odd metadata changes nothing
            with Image.open(path, formats=_formats()) as image:
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


def still_from(image: Image.Image, path: Path) -> Still:
    """The current frame of an open image. path: its file."""
    levels, notes = _levels(image, path)
    turns, mirror = orientation_of(image)
    turned = np.rot90(levels, turns)
    levels = cast(AnyFrame, np.ascontiguousarray(turned[:, ::-1] if mirror else turned))
    is_grey, has_alpha = levels.shape[2] < 3, levels.shape[2] % 2 == 0
    rgb = np.repeat(levels[..., :1], 3, axis=2) if is_grey else np.ascontiguousarray(levels[..., :3])
    about = about_image(image, is_grey=is_grey, notes=notes)
    return Still(cast(AnyFrame, rgb), levels[..., -1] if has_alpha else None, about)


def pillow_image(still: Still, suffix: str) -> Image.Image:
    """The image with 8 bits a channel, grey and transparent where it was and the format of `suffix` can be."""
    channels = eight_bits(_channels(still, with_alpha=suffix in _HAS_ALPHA, grey=suffix in _HAS_GREY))
    return Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)


def _channels(still: Still, *, with_alpha: bool, grey: bool = True) -> AnyFrame:
    """(H, W, 1 to 4): grey or RGB, then alpha."""
    colour = still.rgb
    if still.about.is_grey and grey:
        colour = cast(AnyFrame, np.rint(colour.mean(axis=2, keepdims=True)).astype(colour.dtype))
    if still.alpha is None or not with_alpha:
        return colour
    return cast(AnyFrame, np.concatenate([colour, still.alpha[..., None]], axis=2))


def _levels(image: Image.Image, path: Path) -> tuple[AnyFrame, tuple[str, ...]]:
    """(H, W, 1 to 4) as stored: grey or RGB, then alpha, uint8 or uint16; and what was converted."""
    notes: tuple[str, ...] = ()
    if image.mode.startswith("I"):
        return np.clip(np.asarray(image, np.int64), 0, 65_535).astype(np.uint16)[..., None], notes
    if image.mode == "F":
        raise BadInput(f"{path} has floating-point values, expected 8 or 16 bits; convert it first")
    if any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        single = getattr(image, "n_frames", 1) == 1
        if single and (deep := _decode_deep(path)) is not None:
            return deep, notes
        notes = ("16 bits are read as 8",)
    if image.mode in ("CMYK", "LAB"):
        notes = (f"{image.mode} becomes RGB",)
    levels = np.array(_in_plain_mode(image), np.uint8)
    return (levels[..., None] if levels.ndim == 2 else levels), notes


def _in_plain_mode(image: Image.Image) -> Image.Image:
    """As L, LA, RGB or RGBA."""
    if image.mode in ("CMYK", "LAB"):
        return _rgb_from_profile(image)
    if image.mode == "1":
        return image.convert("L")
    if image.mode not in ("L", "LA", "RGB", "RGBA") or "transparency" in image.info:
        alpha = "A" if image.has_transparency_data else ""
        return image.convert(f"{'L' if image.mode in ('L', 'La') else 'RGB'}{alpha}")
    return image


def _rgb_from_profile(image: Image.Image) -> Image.Image:
    """CMYK and Lab in sRGB, by the image's own colour profile if it has one."""
    profile = image.info.get("icc_profile")
    if profile is None and image.mode == "CMYK":
        return image.convert("RGB")
    try:
        given = (
            ImageCms.createProfile("LAB")
            if image.mode == "LAB"
            else ImageCms.getOpenProfile(io.BytesIO(profile or b""))
        )
        converted = ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError:
        return image.convert("RGB")
    return cast(Image.Image, converted)


def _decode_deep(path: Path) -> AnyFrame | None:
    """A PNG or TIFF of 16 bits by FFmpeg, since Pillow cuts RGB to 8: uint16 (H, W, 1 to 4); None if it cannot."""
    codec = av.CodecContext.create("tiff" if path.suffix.lower() in _TIFF else "png", "r")
    try:
        frame = next(iter([*codec.decode(av.Packet(path.read_bytes())), *codec.decode(None)]), None)
    except FFmpegError:
        return None
    if not isinstance(frame, VideoFrame) or frame.format.name[:-2] not in ("gray16", "ya16", "rgb48", "rgba64"):
        return None
    plane, count = frame.planes[0], len(frame.format.components)
    order = ">u2" if frame.format.name.endswith("be") else "<u2"
    rows = np.frombuffer(memoryview(plane), order).reshape(frame.height, -1)
    return rows[:, : frame.width * count].reshape(frame.height, frame.width, count).astype(np.uint16)


def _save_png16(path: Path, channels: AnyFrame, about: About) -> None:
    """Pillow writes no RGB of 16 bits. Each row is stored as differences between neighbours (filter "Sub")."""
    height, width, count = channels.shape
    rows = channels.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.insert(rows, 0, 1, axis=1)
    filtered[:, 1 + 2 * count :] -= rows[:, : -2 * count]
    profile = fitting_profile(about, "L" if count < 3 else "RGB")
    chunks = [(b"IHDR", struct.pack(">2I5B", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[count], 0, 0, 0))]
    if profile is not None:
        chunks.append((b"iCCP", b"ICC\0\0" + zlib.compress(profile)))
    if about.dpi is not None:
        chunks.append((b"pHYs", struct.pack(">2IB", *(round(dots / 0.0254) for dots in about.dpi), 1)))
    if about.exif is not None:
        chunks.append((b"eXIf", about.exif.removeprefix(b"Exif\0\0")))
    chunks += [(kind, data) for kind, data, *_ in png_text(about).chunks]
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), _PNG_LEVEL)), (b"IEND", b"")]
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in chunks:
            PngImagePlugin.putchunk(file, kind, data)


def _save_tiff16(path: Path, channels: AnyFrame, about: About) -> None:
    """One strip, packed by Deflate; Pillow writes no RGB of 16 bits, and reads no grey with alpha."""
    if channels.shape[2] == 2:
        channels = channels[..., [0, 0, 0, 1]]
    height, width, count = channels.shape
    strip = zlib.compress(channels.astype("<u2").tobytes())
    exif = Image.Exif()
    exif.load(about.exif or b"")
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in exif.items():
        directory[tag] = exif.get_ifd(tag) if tag in IFDS else value
    layout = {256: width, 257: height, 258: (16,) * count, 259: 8, 262: 1 if count < 3 else 2, 273: 0, 277: count}
    layout |= {278: height, 279: len(strip), 284: 1}
    if count % 2 == 0:
        layout[338] = 2  # the last channel is alpha, not premultiplied
    for tag, number in layout.items():
        directory[tag] = number
    if (profile := fitting_profile(about, "L" if count < 3 else "RGB")) is not None:
        directory[TiffImagePlugin.ICCPROFILE] = profile
    with path.open("wb") as file:
        file.write(b"II*\0" + struct.pack("<I", 8))
        directory.save(file)
        file.write(strip)


def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


@cache
def _register_heif() -> None:
    with needs_extra("heif"):
        import pillow_heif
    pillow_heif.register_heif_opener()


def _know_heif(path: Path) -> None:
    """Let Pillow read and write HEIC if this is one; MissingExtra without the extra."""
    if path.suffix.lower() in _HEIF:
        _register_heif()


def _check_pixels(path: Path, size_wh: tuple[int, int], max_pixels: int) -> None:
    width, height = size_wh
    if width * height > max_pixels:
        raise BadInput(
            f"{path} has {width} x {height} pixels, more than the limit of {max_pixels}; "
            "raise --max-pixels if you trust it"
        )
