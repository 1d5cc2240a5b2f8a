"""Images, animations, and folders of images as sources and sinks."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from unblur.runtime.errors import BadInput, MissingExtra
from unblur.runtime.files import atomic_file, make_folder, scratch_folder
from unblur.runtime.image_metadata import About
from unblur.runtime.images import (
    ANIMATED,
    DEFAULT_QUALITY,
    Still,
    check_image_suffix,
    list_images,
    losses,
    open_image,
    read_still,
    save_animation,
    save_still,
    still_from,
    upright_size_hw,
    write_still,
)
from unblur.runtime.media.interfaces import MediaInfo, MediaKind, TimedFrame

_log = logging.getLogger(__name__)

_DEFAULT_FRAME_MS = 100.0  # what browsers show a frame for that gives no duration


class ImageSource(AbstractContextManager["ImageSource"]):
    """One image, or several in their order, `rate` to a second.

    Of several, one that cannot be read is left out; `failed` then says why.
    """

    def __init__(self, path: Path, *, max_pixels: int, rate: Fraction, paths: Sequence[Path] | None = None) -> None:
        """Reads every header. path: an image or a folder. paths: the images to take of it; default all, by name.

        Raises BadInput if there is no image that can be read.
        """
        kind: MediaKind = "folder" if path.is_dir() or paths else "image"
        self.failed: dict[Path, str] = {}
        self._max_pixels = max_pixels
        self._paths = (list_images(path) if kind == "folder" else [path]) if paths is None else paths
        sizes = {each: size for each in self._paths if (size := self._size_hw(each)) is not None}
        if not sizes and paths is None:
            raise BadInput(next(iter(self.failed.values())))
        self._paths = list(sizes)
        self._info = MediaInfo(
            path=path,
            kind=kind,
            size_hw=next(iter(sizes.values())) if len(set(sizes.values())) == 1 else None,
            frames=len(self._paths),
            rate=rate,
            time_base=1 / rate,
        )

    @property
    def info(self) -> MediaInfo:
        return self._info

    @property
    def lost_frames(self) -> int:
        return len(self.failed)

    def __iter__(self) -> Iterator[TimedFrame]:
        duration_s = 1 / self._info.rate
        for index, path in enumerate(self._paths):
            try:
                still = read_still(path, self._max_pixels)
            except BadInput as error:
                if len(self._paths) == 1 and self._info.kind == "image":
                    raise
                self.failed[path] = str(error)
            else:
                time_s = index * duration_s
                yield TimedFrame(still.rgb, time_s, duration_s, path, still.alpha, still.about)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open between images."""

    def _size_hw(self, path: Path) -> tuple[int, int] | None:
        try:
            return upright_size_hw(path, self._max_pixels)
        except (BadInput, MissingExtra) as error:
            self.failed[path] = str(error)
            return None


def is_animation(path: Path, max_pixels: int) -> bool:
    """Whether an image file holds several frames, or pages, that can be written again."""
    if path.suffix.lower() not in ANIMATED or not path.is_file():
        return False
    with open_image(path, max_pixels) as image:
        return getattr(image, "n_frames", 1) > 1


class AnimationSource(AbstractContextManager["AnimationSource"]):
    """The frames of a GIF, WebP, APNG or AVIF, or the pages of a TIFF."""

    lost_frames = 0

    def __init__(self, path: Path, *, max_pixels: int) -> None:
        """Raises BadInput if it cannot be read."""
        self._path = path
        self._max_pixels = max_pixels
        with open_image(path, max_pixels) as image:
            image.load()
            frames, first_ms = getattr(image, "n_frames", 1), image.info.get("duration") or _DEFAULT_FRAME_MS
            self._info = MediaInfo(
                path=path,
                kind="animation",
                size_hw=(image.height, image.width),
                frames=frames,
                rate=Fraction(1000 / first_ms).limit_denominator(1001),
                time_base=Fraction(1, 1000),
            )

    @property
    def info(self) -> MediaInfo:
        return self._info

    def __iter__(self) -> Iterator[TimedFrame]:
        time_s = Fraction(0)
        with open_image(self._path, self._max_pixels) as image:
            for index in range(self._info.frames or 1):
                image.seek(index)
                image.load()
                still = still_from(image, self._path)
                duration_s = Fraction(round(image.info.get("duration") or _DEFAULT_FRAME_MS), 1000)
                yield TimedFrame(still.rgb, time_s, duration_s, None, still.alpha, still.about)
                time_s += duration_s

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The file is open only while it is read."""


def _still_of(frame: TimedFrame) -> Still:
    return Still(frame.rgb, frame.alpha, frame.about or About())


def _log_notes(still: Still, path: Path, shown: Path) -> None:
    """Log what reading converted, and what the format of `path` loses. shown: the file that is named."""
    if notes := [*still.about.notes, *losses(still, path.suffix)]:
        _log.info("%s: %s", shown, "; ".join(notes))


class ImageSink(AbstractContextManager["ImageSink"]):
    """Single images, each in the format of its suffix, each there at once.

    Of several, `written` holds the sources of those that are there, `failed` why others could not be written.
    """

    def __init__(self, target: Path | Mapping[Path, Path], *, quality: int = DEFAULT_QUALITY) -> None:
        """target: of the one image, or of each by the path that it came from; their folders are made.

        quality: see `write_still`. Raises BadInput if a suffix is not of an image.
        """
        self.written: list[Path] = []
        self.failed: dict[Path, str] = {}
        self._target = target
        self._quality = quality
        for path in [target] if isinstance(target, Path) else target.values():
            check_image_suffix(path)

    def write(self, frame: TimedFrame) -> None:
        source = frame.path or Path()
        if isinstance(self._target, Path):
            self._write(frame, self._target, frame.path or self._target)
            return
        path = self._target[source]
        try:
            make_folder(path.parent)
            self._write(frame, path, source)
        except BadInput as error:
            self.failed[source] = str(error)
        else:
            self.written.append(source)

    def _write(self, frame: TimedFrame, path: Path, shown: Path) -> None:
        still = _still_of(frame)
        _log_notes(still, path, shown)
        write_still(path, still, self._quality)

    def finish(self, *, complete: bool) -> None:
        """The images are there since `write`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open."""


class AnimationSink(AbstractContextManager["AnimationSink"]):
    """One animation, or one TIFF of several pages. The frames are kept in memory until `finish`."""

    def __init__(self, path: Path, *, quality: int = DEFAULT_QUALITY) -> None:
        """Raises BadInput if the format of the suffix holds one image only."""
        if path.suffix.lower() not in ANIMATED:
            raise BadInput(f"{path} holds one image; an animation needs one of {' '.join(sorted(ANIMATED))}")
        self._path = path
        self._quality = quality
        self._stills: list[Still] = []
        self._durations_ms: list[float] = []

    def write(self, frame: TimedFrame) -> None:
        still = replace(_still_of(frame), rgb=frame.rgb.copy())
        if not self._stills:
            _log_notes(still, self._path, self._path)
        self._stills.append(still)
        self._durations_ms.append(float(frame.duration_s * 1000))

    def finish(self, *, complete: bool) -> None:
        make_folder(self._path.parent)
        with atomic_file(self._path) as temporary:
            save_animation(temporary, self._stills, self._durations_ms, self._quality)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open."""


class FolderSink(AbstractContextManager["FolderSink"]):
    """A folder of images under their own names; the frames of a video become `000000.png`, `000001.png`, ...

    They are collected in a hidden folder and moved at `finish`: a run that fails leaves no trace. What else is in
    the folder stays; images of the same name are replaced.
    """

    def __init__(self, path: Path, *, quality: int = DEFAULT_QUALITY) -> None:
        self._path = path
        self._quality = quality
        self._written = 0
        self._stack = ExitStack()

    def __enter__(self) -> "FolderSink":
        # Inside an existing folder: that proves now that it can be written, and the moves stay on one disk.
        beside = self._path if self._path.is_dir() else self._path.parent
        self._staged = self._stack.enter_context(scratch_folder(beside / self._path.name))
        return self

    def write(self, frame: TimedFrame) -> None:
        name = f"{self._written:06d}.png" if frame.path is None else frame.path.name
        try:
            still = _still_of(frame)
            _log_notes(still, self._path / name, frame.path or self._path / name)
            save_still(self._staged / name, still, self._quality)
        except OSError as error:
            raise BadInput(f"cannot write {self._path / name}: {error.strerror or error}") from error
        self._written += 1

    def finish(self, *, complete: bool) -> None:
        try:
            self._path.mkdir(exist_ok=True)
            for image in sorted(self._staged.iterdir()):
                image.replace(self._path / image.name)
        except OSError as error:
            raise BadInput(f"cannot write {self._path}: {error.strerror}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


class LiveFolderSink(AbstractContextManager["LiveFolderSink"]):
    """A folder of images of a live source: `000000.png`, ..., each there at once, going on after the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> "LiveFolderSink":
        """Makes the folder. BadInput if it cannot be made."""
        make_folder(self._path)
        there = (int(image.stem) for image in self._path.glob("*.png") if image.stem.isdecimal())
        self._next = max(there, default=-1) + 1
        return self

    def write(self, frame: TimedFrame) -> None:
        write_still(self._path / f"{self._next:06d}.png", Still(frame.rgb))
        self._next += 1

    def finish(self, *, complete: bool) -> None:
        """All images are there since `write`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open between images."""
