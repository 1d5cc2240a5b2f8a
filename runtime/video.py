"""Turn what a user typed into a source or a sink: a picture, a folder of pictures or a video file.

A camera or a network stream is a scheme, as in `v4l2:///dev/video0`: add it to `_SOURCES`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from unblur.runtime.errors import BadInput
from unblur.runtime.images import IMAGE_SUFFIXES, MAX_PIXELS, is_image_path
from unblur.runtime.media import MediaInfo, Sink, Source
from unblur.runtime.null_sink import NullSink
from unblur.runtime.picture_media import FolderSink, PictureSink, PictureSource
from unblur.runtime.source_url import read_options, split_options
from unblur.runtime.synthetic_source import MovingScene, SyntheticSource
from unblur.runtime.tee_sink import TeeSink
from unblur.runtime.video_sink import FORMATS, VideoSink
from unblur.runtime.video_source import VideoSource

DEFAULT_CRF = 18
DEFAULT_RATE = Fraction(25)


def open_source(text: str, *, max_pixels: int = MAX_PIXELS, rate: Fraction = DEFAULT_RATE) -> Source:
    """The source that `text` names.

    max_pixels: larger frames are refused before they are decoded. rate: pictures per second of a folder.
    Raises BadInput if it does not exist, cannot be read, or has an unknown scheme.
    """
    scheme, rest = _split_scheme(text)
    if scheme not in _SOURCES:
        raise _unknown_scheme(text, scheme)
    return _SOURCES[scheme](rest, max_pixels, rate)


def is_live(text: str) -> bool:
    """True if `text` names a camera or a stream, which does not wait for who reads it."""
    return _split_scheme(text)[0] != "file"


def open_sinks(texts: Sequence[str], info: MediaInfo, *, crf: int = DEFAULT_CRF) -> Sink:
    """One sink that writes to all that `texts` name; see `open_sink`. ValueError if there are none."""
    if not texts:
        raise ValueError("no sink was given")
    sinks = [open_sink(text, info, crf=crf) for text in texts]
    return sinks[0] if len(sinks) == 1 else TeeSink(sinks)


def open_sink(text: str, info: MediaInfo, *, crf: int = DEFAULT_CRF) -> Sink:
    """The sink that `text` names, for a source described by `info`. Nothing is written before it is entered.

    A picture takes one picture; a folder (existing, or without a suffix, or written with a slash at the end)
    takes anything; a video takes a video or a folder. crf: quality of H.264, 0 (lossless) to 51.
    Raises BadInput if it fits neither of these or is the source itself.
    """
    scheme, rest = _split_scheme(text)
    if scheme not in _SINKS:
        raise _unknown_scheme(text, scheme)
    return _SINKS[scheme](rest, info, crf)


def _file_source(text: str, max_pixels: int, rate: Fraction) -> Source:
    path = Path(text)
    if path.is_dir() or is_image_path(path):
        return PictureSource(path, max_pixels=max_pixels, rate=rate)
    return VideoSource(path, max_pixels=max_pixels)


def _file_sink(text: str, info: MediaInfo, crf: int) -> Sink:
    path = Path(text)
    if path.is_dir() or text.endswith("/") or not path.suffix:
        if info.path is not None:
            _refuse_source(path / info.path.name if info.kind == "picture" else path, info.path)
        return FolderSink(path)
    if info.path is not None:
        _refuse_source(path, info.path)
    if path.suffix.lower() in FORMATS:
        return VideoSink(path, info, crf=crf)
    if not is_image_path(path):
        raise BadInput(
            f"cannot write {path}: '{path.suffix}' is no picture ({_listed(IMAGE_SUFFIXES)}) and no video "
            f"({_listed(FORMATS)}); for a folder end it with a slash"
        )
    if info.kind != "picture":
        raise BadInput(f"{path} is one picture, but {info.name} is a {info.kind}; give a folder or a video as sink")
    return PictureSink(path)


def _test_source(text: str, max_pixels: int, rate: Fraction) -> Source:
    address, given = split_options(text)
    url = f"test://{text}"
    if address != "moving":
        raise BadInput(f"{url} is no test source; there is test://moving?size=720x1280&fps=30&blur=12")
    return SyntheticSource(read_options(MovingScene, given, url), url, max_pixels=max_pixels)


_SOURCES: Mapping[str, Callable[[str, int, Fraction], Source]] = {"file": _file_source, "test": _test_source}


def _null_sink(text: str, info: MediaInfo, crf: int) -> Sink:
    return NullSink()


_SINKS: Mapping[str, Callable[[str, MediaInfo, int], Sink]] = {"file": _file_sink, "null": _null_sink}


def _split_scheme(text: str) -> tuple[str, str]:
    """("v4l2", "/dev/video0") for "v4l2:///dev/video0"; ("file", text) for a path."""
    match = re.match(r"([a-z][a-z0-9+.]+):(?://)?", text)
    if match is None or Path(text).exists():
        return "file", text
    return match[1], text[match.end() :]


def _unknown_scheme(text: str, scheme: str) -> BadInput:
    return BadInput(f"{text} has the unknown scheme '{scheme}:'; for a file of that name write ./{text}")


def _refuse_source(path: Path, source: Path) -> None:
    if path.exists() and path.samefile(source):
        raise BadInput(f"{path} is the source itself; give another sink")


def _listed(suffixes: Iterable[str]) -> str:
    return " ".join(sorted(suffixes))
