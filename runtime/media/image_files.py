"""Single images and folders of images as sources and sinks."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from unblur.runtime.errors import BadInput
from unblur.runtime.files import scratch_folder
from unblur.runtime.images import (
    list_images,
    read_icc_profile,
    read_image,
    save_image,
    upright_size_hw,
    write_image,
)
from unblur.runtime.media.interfaces import MediaInfo, MediaKind, TimedFrame


class ImageSource(AbstractContextManager["ImageSource"]):
    """One picture, or the pictures of one folder sorted by name, `rate` to a second."""

    lost_frames = 0

    def __init__(self, path: Path, *, max_pixels: int, rate: Fraction) -> None:
        """Reads every header, so that a folder with a bad file in it is refused before work starts.

        Raises BadInput that names the file which is missing, empty, too large or no picture.
        """
        kind: MediaKind = "folder" if path.is_dir() else "image"
        self._paths = list_images(path) if kind == "folder" else [path]
        self._max_pixels = max_pixels
        sizes = {upright_size_hw(picture, max_pixels) for picture in self._paths}
        self._info = MediaInfo(
            path=path,
            kind=kind,
            size_hw=sizes.pop() if len(sizes) == 1 else None,
            frames=len(self._paths),
            rate=rate,
            time_base=1 / rate,
        )

    @property
    def info(self) -> MediaInfo:
        return self._info

    def __iter__(self) -> Iterator[TimedFrame]:
        duration_s = 1 / self._info.rate
        for index, path in enumerate(self._paths):
            rgb = read_image(path, self._max_pixels)
            yield TimedFrame(rgb, index * duration_s, duration_s, path.name, read_icc_profile(path))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open between pictures."""


class ImageSink(AbstractContextManager["ImageSink"]):
    """One picture, in the format of its suffix."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, frame: TimedFrame) -> None:
        write_image(self._path, frame.rgb, frame.icc_profile)

    def finish(self, *, complete: bool) -> None:
        """The image is there since `write`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open."""


class FolderSink(AbstractContextManager["FolderSink"]):
    """A folder of images under their own names; the frames of a video become `000000.png`, `000001.png`, ...

    They are collected in a hidden folder and moved at `finish`: a run that fails leaves no trace. What else is in
    the folder stays; images of the same name are replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0
        self._stack = ExitStack()

    def __enter__(self) -> "FolderSink":
        # Inside an existing folder: that proves now that it can be written, and the moves stay on one disk.
        beside = self._path if self._path.is_dir() else self._path.parent
        self._staged = self._stack.enter_context(scratch_folder(beside / self._path.name))
        return self

    def write(self, frame: TimedFrame) -> None:
        name = frame.name or f"{self._written:06d}.png"
        try:
            save_image(self._staged / name, frame.rgb, frame.icc_profile)
        except OSError as error:
            raise BadInput(f"cannot write {self._path / name}: {error.strerror or error}") from error
        self._written += 1

    def finish(self, *, complete: bool) -> None:
        try:
            self._path.mkdir(exist_ok=True)
            for picture in sorted(self._staged.iterdir()):
                picture.replace(self._path / picture.name)
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
        try:
            self._path.mkdir(exist_ok=True)
        except OSError as error:
            raise BadInput(f"cannot write {self._path}: {error.strerror}") from error
        there = (int(picture.stem) for picture in self._path.glob("*.png") if picture.stem.isdecimal())
        self._next = max(there, default=-1) + 1
        return self

    def write(self, frame: TimedFrame) -> None:
        write_image(self._path / f"{self._next:06d}.png", frame.rgb)
        self._next += 1

    def finish(self, *, complete: bool) -> None:
        """All images are there since `write`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open between pictures."""
