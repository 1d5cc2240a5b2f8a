"""What the file of an image says beside its pixels: EXIF, XMP, colour profile, resolution, comments."""

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import ExifTags, Image, PngImagePlugin

# EXIF orientation -> what turns the stored image upright: quarter turns anticlockwise, then whether to mirror it.
_UPRIGHT = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}
# Tags that describe how a TIFF stores its pixels: width, strips, tiles, compression, ...
_STRUCTURE = {254, 255, *range(256, 267), 273, *range(277, 282), 284, *range(317, 326), 330, 338, 339, 347, 34675}
_STRUCTURE |= {513, 514, 529, 530, 531, 532}
IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_XMP_KEY = "XML:com.adobe.xmp"  # of a PNG's text


@dataclass(frozen=True)
class About:
    """What the file of an image says beside its pixels.

    is_grey: it has no colour. exif: without orientation and thumbnail. text: the comments of a PNG. loop: how often
    an animation is shown, 0 without end. notes: what reading changed, for people.
    """

    is_grey: bool = False
    exif: bytes | None = None
    icc_profile: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    loop: int = 0
    notes: tuple[str, ...] = ()


def about_image(image: Image.Image, *, is_grey: bool, notes: tuple[str, ...]) -> About:
    """What an open image says, to be written beside its pixels turned upright. notes: see About."""
    exif, damage = _read_exif(image)
    return About(
        is_grey=is_grey,
        exif=_upright_exif(exif),
        icc_profile=image.info.get("icc_profile"),
        xmp=_upright_xmp(image.info.get("xmp")),
        dpi=_dpi(image.info.get("dpi")),
        text={key: str(value) for key, value in getattr(image, "text", {}).items() if key != _XMP_KEY},
        loop=int(image.info.get("loop", 0)),
        notes=(*notes, *damage),
    )


def orientation_of(image: Image.Image) -> tuple[int, bool]:
    """Quarter turns anticlockwise, then whether to mirror left to right, that turn an open image upright."""
    return _UPRIGHT.get(_read_exif(image)[0].get(ExifTags.Base.Orientation, 1), (0, False))


def fitting_profile(about: About, mode: str) -> bytes | None:
    """The colour profile if it is one of the colour model that is written (ICC.1, 7.2.6)."""
    profile = about.icc_profile
    return profile if profile and profile[16:20] == (b"GRAY" if mode.startswith("L") else b"RGB ") else None


def png_text(about: About) -> PngImagePlugin.PngInfo:
    """Comments and XMP as chunks."""
    info = PngImagePlugin.PngInfo()
    for key, text in about.text.items():
        info.add_itxt(key, text)
    if about.xmp is not None:
        info.add_itxt(_XMP_KEY, about.xmp.decode(errors="replace"))
    return info


def _read_exif(image: Image.Image) -> tuple[Image.Exif, tuple[str, ...]]:
    """Empty with a note if it is damaged, which does not make the image useless."""
    try:
        exif = image.getexif()
        for each in IFDS:
            exif.get_ifd(each)
        exif.tobytes()
    except (ArithmeticError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error):
        return Image.Exif(), ("damaged EXIF is dropped",)
    return exif, ()


def _upright_exif(exif: Image.Exif) -> bytes | None:
    """Without the orientation, and what describes the pixels of a TIFF; None if nothing is left."""
    kept = Image.Exif()
    for tag, value in exif.items():
        if tag not in {*_STRUCTURE, *IFDS, ExifTags.Base.Orientation}:
            kept[tag] = value
    for each in IFDS:
        entries = {tag: value for tag, value in exif.get_ifd(each).items() if tag != ExifTags.IFD.Interop}
        if entries:
            kept.get_ifd(each).update(entries)
            kept[each] = entries
    return kept.tobytes() if len(kept) else None


def _upright_xmp(xmp: bytes | str | None) -> bytes | None:
    data = xmp.encode() if isinstance(xmp, str) else xmp
    return None if not data else re.sub(rb'(tiff:Orientation(?:="|>))[2-8]', rb"\g<1>1", data)


def _dpi(dpi: object) -> tuple[float, float] | None:
    """None if it makes no sense: files give 0, fractions over 0, one number."""
    if not isinstance(dpi, tuple) or len(dpi) != 2:
        return None
    x, y = (float(dots) for dots in dpi)
    return (x, y) if all(math.isfinite(dots) and 1 <= dots < 65_536 for dots in (x, y)) else None
