"""Frames for the preview page: before and after as two JPEGs in one message, encoded in a thread of their own.

A message is the length of its header (4 bytes, big endian), the header as JSON, the JPEG before, the JPEG after.
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import IO

from PIL import Image

from unblur.runtime.frames import Frame
from unblur.runtime.live.loop import LiveResult
from unblur.runtime.live.newest import Newest

_LIVE_SIDE = 1280  # pixels of the longer side of what is shown live
_LIVE_QUALITY = 80
_STILL_QUALITY = 95
_MOST_FPS = 15.0  # enough to watch by; every further one takes time from the network


@dataclass(frozen=True)
class Shown:
    """A result with its number: how many frames were restored until then."""

    index: int
    result: LiveResult


class Pictures:
    """Encodes the newest result whenever somebody waits for one, at most `most_fps` times a second.

    with Pictures(publish, is_wanted) as pictures:
        pictures.offer(result)  # from the loop, with every frame
    """

    def __init__(
        self, publish: Callable[[bytes], None], is_wanted: Callable[[], bool], most_fps: float = _MOST_FPS
    ) -> None:
        """publish: called with each message, in the encoding thread. is_wanted: whether anybody waits for one."""
        self._publish = publish
        self._is_wanted = is_wanted
        self._period_s = 1 / most_fps
        self._newest = Newest[Shown]()
        self._count = 0
        self._last: Shown | None = None
        self._thread = threading.Thread(target=self._encode_all, name="unblur-preview-jpeg", daemon=True)

    def offer(self, result: LiveResult) -> None:
        """Leave a result to be encoded if anybody wants one; never waits."""
        self._count += 1
        if self._is_wanted():
            self._newest.put(Shown(self._count, result))

    def still(self) -> bytes | None:
        """The frame that was encoded last, at its full size; None if there was none. Takes a while."""
        last = self._last
        return None if last is None else encode(last, still=True)

    def __enter__(self) -> "Pictures":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._newest.close()
        self._thread.join()

    def _encode_all(self) -> None:
        while (shown := self._newest.take()) is not None:
            began_s = time.monotonic()
            self._last = shown
            self._publish(encode(shown))
            time.sleep(max(0.0, began_s + self._period_s - time.monotonic()))


def encode(shown: Shown, *, still: bool = False) -> bytes:
    """One message. still: at full size and in better quality, to look at closely."""
    result = shown.result
    before, after = (_jpeg(frame.rgb, still=still) for frame in (result.before, result.after))
    header = {
        "index": shown.index,
        "steps": result.restored.steps,
        "ms": round(result.restored.ms, 1),
        "late": result.restored.late,
        "size": result.before.rgb.shape[:2],
        "still": still,
        "before": len(before),
    }
    text = json.dumps(header).encode()
    return b"".join((len(text).to_bytes(4, "big"), text, before, after))


def _jpeg(frame_rgb: Frame, *, still: bool) -> bytes:
    image = Image.fromarray(frame_rgb)
    if not still:
        image = image.reduce(ceil(max(image.size) / _LIVE_SIDE))
    quality, subsampling = (_STILL_QUALITY, "4:4:4") if still else (_LIVE_QUALITY, "4:2:0")
    # Into a real file, since Pillow releases the GIL only then, which the loop needs between two frames.
    with _file_in_memory() as file:
        image.save(file, "JPEG", quality=quality, subsampling=subsampling)
        file.seek(0)
        return file.read()


def _file_in_memory() -> IO[bytes]:
    """On disk where the system has no files in memory."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("unblur-preview"), "w+b")
    return tempfile.TemporaryFile()
