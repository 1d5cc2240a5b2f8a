"""Record a live stream into a file that can be played at any time."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType

import av
from av.container import OutputContainer
from av.error import FFmpegError

from unblur.runtime.errors import BadInput
from unblur.runtime.files import require_file_place
from unblur.runtime.media.encode import LiveEncoder, one_size_hw
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame

# Each fragment is a key frame and what follows, and carries its own index: no end is needed to play the file.
# Clusters do that for Matroska, after at most that many milliseconds. Both go to the kernel once they are whole.
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
_CLUSTERS = {"cluster_time_limit": "1000", "flush_packets": "1"}
_OPTIONS = {"mp4": _FRAGMENTS, "mov": _FRAGMENTS, "matroska": _CLUSTERS}


class RecordingSink(AbstractContextManager["RecordingSink"]):
    """Written under its own name from the start, unlike a file made from a file: there is no end to wait for.

    It can be played when the disk is full, and after a kill, which costs two seconds at most.
    """

    def __init__(self, path: Path, info: MediaInfo, container_format: str, *, crf: int) -> None:
        """container_format: FFmpeg's "mp4", "mov" or "matroska". crf: of x264, 0 to 51.

        Raises BadInput if the frames of the source differ in size.
        """
        one_size_hw(info)
        self._path = path
        self._info = info
        self._format = container_format
        self._crf = crf

    def __enter__(self) -> "RecordingSink":
        """Begins the file; one of that name is replaced. BadInput if it cannot be written."""
        require_file_place(self._path)
        self._container: OutputContainer = av.open(
            f"file:{self._path}", "w", format=self._format, options=dict(_OPTIONS[self._format])
        )
        try:
            self._encoder = LiveEncoder(self._container, self._info, crf=self._crf)
        except FFmpegError as error:
            raise BadInput(f"cannot write {self._path}: {error.strerror}") from error
        return self

    def write(self, frame: TimedFrame) -> None:
        with self._write_errors():
            self._encoder.write(frame)

    def finish(self, *, complete: bool) -> None:
        with self._write_errors():
            self._encoder.finish()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keeps what was written."""
        with suppress(FFmpegError):  # the one that matters was raised by `write` or `finish`
            self._container.close()
        if not self._encoder.end_s:
            self._path.unlink(missing_ok=True)

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except FFmpegError as error:
            held_s = float(self._encoder.end_s)
            raise BadInput(
                f"cannot write {self._path}: {error.strerror}; it holds the first {held_s:.1f} s"
            ) from error
