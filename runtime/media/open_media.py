"""Turn what a user typed into a source or a sink: an image, a folder, a video file, a camera, a stream.

All but files have a scheme, as in `v4l2:///dev/video0`: `_SOURCES` and `_SINKS` are the lists of them.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from unblur.runtime.errors import BadInput
from unblur.runtime.files import exists, require_parent
from unblur.runtime.images import DEFAULT_QUALITY, IMAGE_SUFFIXES, MAX_PIXELS, is_image_path
from unblur.runtime.media.encode import RecordingSink
from unblur.runtime.media.gstreamer_source import CsiFormat, GStreamerSource, csi_pipeline
from unblur.runtime.media.image_files import (
    AnimationSink,
    AnimationSource,
    FolderSink,
    ImageSink,
    ImageSource,
    LiveFolderSink,
    is_animation,
)
from unblur.runtime.media.interfaces import MediaInfo, Sink, Source, TimedFrame
from unblur.runtime.media.push_child import PROTOCOLS
from unblur.runtime.media.push_sink import PushSink, RetryingSink
from unblur.runtime.media.stream_source import CameraFormat, open_http, open_rtsp, open_v4l2
from unblur.runtime.media.synthetic_source import MovingScene, SyntheticSource
from unblur.runtime.media.url import read_options, split_options, without_secrets
from unblur.runtime.media.video_sink import FORMATS, VideoSink
from unblur.runtime.media.video_source import VideoSource


class LoopSource(AbstractContextManager["LoopSource"]):
    """Repeats an image, a folder or a video for ever; times go on from one round to the next."""

    def __init__(self, open_source: Callable[[], Source]) -> None:
        """Opens it for the first round. Raises what `open_source` raises."""
        self._open_source = open_source
        self._source = open_source()
        self.info = dataclasses.replace(self._source.info, frames=None)
        self.lost_frames = 0

    def __iter__(self) -> Iterator[TimedFrame]:
        """Raises BadInput if the file is no longer there."""
        start_s = Fraction(0)
        while True:
            end_s = start_s
            with self._source:
                for frame in self._source:
                    end_s = start_s + frame.time_s + (frame.duration_s or 1 / self.info.rate)
                    yield dataclasses.replace(frame, time_s=start_s + frame.time_s)
                self.lost_frames += self._source.lost_frames
            start_s = end_s
            self._source = self._open_source()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.__exit__(kind, error, trace)


class NullSink(AbstractContextManager["NullSink"]):
    """A sink without output."""

    def write(self, frame: TimedFrame) -> None:
        """Does nothing."""

    def finish(self, *, complete: bool) -> None:
        """Does nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open."""


class TeeSink(AbstractContextManager["TeeSink"]):
    """Writes every frame to all of `sinks`, in their order; the first that fails ends it."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)
        self._stack = ExitStack()

    def __enter__(self) -> "TeeSink":
        with ExitStack() as stack:
            for sink in self._sinks:
                stack.enter_context(sink)
            self._stack = stack.pop_all()
        return self

    def write(self, frame: TimedFrame) -> None:
        for sink in self._sinks:
            sink.write(frame)

    def finish(self, *, complete: bool) -> None:
        """Finish all, also where one of them cannot; then raise its error."""
        with ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink.finish, complete=complete)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


DEFAULT_CRF = 18
DEFAULT_RATE = Fraction(25)


@dataclass(frozen=True)
class Decoding:
    """How a source is read. max_pixels: larger frames are refused before they are decoded. rate: images per second
    of a folder. keep_depth: give 16 bits a channel of a video of more than 8, and leave HDR as it is.
    """

    max_pixels: int = MAX_PIXELS
    rate: Fraction = DEFAULT_RATE
    keep_depth: bool = False


@dataclass(frozen=True)
class Encoding:
    """How a sink is written. crf: of H.264 and HEVC, 0 (lossless) to 51. quality: of JPEG, WebP, AVIF and HEIC,
    1 to 100.
    """

    crf: int = DEFAULT_CRF
    quality: int = DEFAULT_QUALITY


def open_source(
    text: str,
    *,
    max_pixels: int = MAX_PIXELS,
    rate: Fraction = DEFAULT_RATE,
    loop: bool = False,
    keep_depth: bool = False,
) -> Source:
    """The source that `text` names.

    max_pixels, rate, keep_depth: see `Decoding`. loop: begin a file or a folder again at its end; live sources have
    none.
    Raises BadInput if it does not exist, cannot be read, or has an unknown scheme.
    """
    scheme, rest = _split_scheme(text)
    if scheme not in _SOURCES:
        raise _unknown_scheme(text, scheme, _SOURCES)
    address, decoding = _Address(text, rest), Decoding(max_pixels, rate, keep_depth)
    if loop and scheme == "file":
        return LoopSource(lambda: _SOURCES[scheme](address, decoding))
    return _SOURCES[scheme](address, decoding)


def is_live(text: str) -> bool:
    """True if `text` names a camera or a stream, which does not wait for who reads it."""
    return _split_scheme(text)[0] != "file"


def open_sinks(
    texts: Sequence[str],
    info: MediaInfo,
    *,
    crf: int = DEFAULT_CRF,
    quality: int = DEFAULT_QUALITY,
    retry: bool = False,
) -> Sink:
    """One sink that writes to all that `texts` name; see `open_sink`. ValueError if there are none.

    retry: a connection that breaks or is stuck is made again, and stops nothing; see `RetryingSink`.
    """
    if not texts:
        raise ValueError("no sink was given")

    def one(text: str) -> Sink:
        sink = open_sink(text, info, crf=crf, quality=quality)
        if not (retry and isinstance(sink, PushSink)):
            return sink
        return RetryingSink(lambda: open_sink(text, info, crf=crf, quality=quality))

    sinks = [one(text) for text in texts]
    return sinks[0] if len(sinks) == 1 else TeeSink(sinks)


def open_sink(text: str, info: MediaInfo, *, crf: int = DEFAULT_CRF, quality: int = DEFAULT_QUALITY) -> Sink:
    """The sink that `text` names, for a source described by `info`. Nothing is written before it is entered.

    An image takes one image, or an animation where its format can; a folder (existing, or without a suffix, or
    written with a slash at the end) takes anything; a video and a stream take all but images of different sizes.
    What is written of a live source is there at once, of any other at `finish`. crf, quality: see `Encoding`.
    Raises BadInput if it fits neither of these or is the source itself.
    """
    scheme, rest = _split_scheme(text)
    if scheme not in _SINKS:
        raise _unknown_scheme(text, scheme, _SINKS)
    return _SINKS[scheme](_Address(text, rest), info, Encoding(crf, quality))


@dataclass(frozen=True)
class _Address:
    """What was typed, and what of it follows the scheme."""

    text: str
    rest: str


def _file_source(address: _Address, how: Decoding) -> Source:
    path = Path(address.rest)
    if is_animation(path, how.max_pixels):
        return AnimationSource(path, max_pixels=how.max_pixels)
    if path.is_dir() or is_image_path(path):
        return ImageSource(path, max_pixels=how.max_pixels, rate=how.rate)
    return VideoSource(path, max_pixels=how.max_pixels, keep_depth=how.keep_depth)


def _test_source(address: _Address, how: Decoding) -> Source:
    name, given = split_options(address.rest)
    if name != "moving":
        raise BadInput(f"{address.text} is not a test source; expected test://moving?size=720x1280&fps=30&blur=12")
    options = read_options(MovingScene, given, address.text)
    return SyntheticSource(options, address.text, max_pixels=how.max_pixels)


def _v4l2_source(address: _Address, how: Decoding) -> Source:
    device, given = split_options(address.rest)
    options = read_options(CameraFormat, given, address.text)
    return open_v4l2(Path(device), options, address.text, max_pixels=how.max_pixels)


def _csi_source(address: _Address, how: Decoding) -> Source:
    sensor, given = split_options(address.rest)
    if not sensor.isdecimal():
        raise BadInput(
            f"{address.text} is not a CSI camera; expected its number, as in csi://0?size=720x1280&fps=30"
        )
    pipeline = csi_pipeline(int(sensor), read_options(CsiFormat, given, address.text))
    return GStreamerSource(pipeline, address.text, max_pixels=how.max_pixels)


_SOURCES: Mapping[str, Callable[[_Address, Decoding], Source]] = {
    "file": _file_source,
    "v4l2": _v4l2_source,
    "csi": _csi_source,
    "rtsp": lambda address, how: open_rtsp(address.text, max_pixels=how.max_pixels),
    "http": lambda address, how: open_http(address.text, max_pixels=how.max_pixels),
    "https": lambda address, how: open_http(address.text, max_pixels=how.max_pixels),
    "gst": lambda address, how: GStreamerSource(address.rest, address.text, max_pixels=how.max_pixels),
    "test": _test_source,
}


def _file_sink(address: _Address, info: MediaInfo, how: Encoding) -> Sink:
    path = Path(address.rest)
    if path.is_dir() or address.rest.endswith("/") or not path.suffix:
        return _folder_sink(path, info, how)
    require_parent(path)
    if info.path is not None:
        _refuse_source(path, info.path)
    if path.suffix.lower() in FORMATS:
        return _video_sink(path, info, how.crf)
    if not is_image_path(path):
        raise BadInput(
            f"cannot write {path}: '{path.suffix}' is neither an image ({_listed(IMAGE_SUFFIXES)}) nor a video "
            f"({_listed(FORMATS)}); for a folder end it with a slash"
        )
    if info.kind == "animation":
        return AnimationSink(path, quality=how.quality)
    if info.kind != "image":
        kind = "live source" if info.kind == "live" else info.kind
        raise BadInput(f"{path} is one image, but {info.name} is a {kind}; give a folder or a video as sink")
    return ImageSink(path, quality=how.quality)


def _folder_sink(path: Path, info: MediaInfo, how: Encoding) -> Sink:
    if info.kind == "live":
        return LiveFolderSink(path)
    if info.path is not None:
        _refuse_source(path / info.path.name if info.kind != "folder" else path, info.path)
        if info.kind == "animation":
            return AnimationSink(path / info.path.name, quality=how.quality)
    return FolderSink(path, quality=how.quality)


def _video_sink(path: Path, info: MediaInfo, crf: int) -> Sink:
    if info.kind == "live":
        return RecordingSink(path, info, FORMATS[path.suffix.lower()], crf=crf)
    return VideoSink(path, info, crf=crf)


_SINKS: Mapping[str, Callable[[_Address, MediaInfo, Encoding], Sink]] = {
    "file": _file_sink,
    "null": lambda address, info, how: NullSink(),
    **{scheme: lambda address, info, how: PushSink(address.text, info, crf=how.crf) for scheme in PROTOCOLS},
}


def _split_scheme(text: str) -> tuple[str, str]:
    """("v4l2", "/dev/video0") for "v4l2:///dev/video0"; ("file", text) for a path."""
    match = re.match(r"([a-z][a-z0-9+.-]+):(?://)?", text, re.IGNORECASE)
    if match is None or (match[1].lower() not in {*_SOURCES, *_SINKS} and exists(Path(text))):
        return "file", text
    return match[1].lower(), text[match.end() :]


def _unknown_scheme(text: str, scheme: str, known: Iterable[str]) -> BadInput:
    text = without_secrets(text)
    return BadInput(
        f"{text} has the unknown scheme '{scheme}:', not one of {_listed(known)}; "
        f"for a file of that name write ./{text}"
    )


def _refuse_source(path: Path, source: Path) -> None:
    if path.exists() and path.samefile(source):
        raise BadInput(f"{path} is the source itself; give another sink")


def _listed(suffixes: Iterable[str]) -> str:
    return " ".join(sorted(suffixes))
