"""Raw video as GStreamer lays it out in memory, restored in place: what the element does, without GStreamer.

restorer = BufferRestorer("lprn-s", RunnerOptions())
restorer.set_layout(BufferLayout("RGB", (64, 96), strides=(288,), offsets=(0,)))
restorer.restore(buffer)  # a writable bytearray or memoryview of 64 * 288 bytes
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from av.video.frame import VideoFrame

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.frames import Frame
from unblur.runtime.loops.ladder import Ladder, open_ladder
from unblur.runtime.media.colour import REC709, Colour, ColourConverter
from unblur.runtime.runner import RunnerOptions
from unblur.runtime.spec import Precision

_UNSPECIFIED = 2


@dataclass(frozen=True)
class BufferLayout:
    """Where the pixels of a frame lie. strides, offsets: bytes, of each plane.

    matrix: H.273 code of NV12, 0 or 2 if it is not known. full_range: NV12 uses 0 to 255, not 16 to 235.
    """

    pixel_format: Literal["RGB", "NV12"]
    size_hw: tuple[int, int]
    strides: Sequence[int]
    offsets: Sequence[int]
    matrix: int = _UNSPECIFIED
    full_range: bool = False

    def planes(self, data: bytearray | memoryview) -> list[Frame]:
        """Views of the pixels in `data`, uint8 (rows, bytes), without what pads a row."""
        height, width = self.size_hw
        half = ((height + 1) // 2, 2 * ((width + 1) // 2))
        shapes = [(height, 3 * width)] if self.pixel_format == "RGB" else [(height, width), half]
        return [
            np.ndarray(shape, np.uint8, data, offset, (stride, 1))
            for shape, offset, stride in zip(shapes, self.offsets, self.strides, strict=False)
        ]


def options_of(precision: str, steps: int) -> RunnerOptions:
    """How to open a model, from the properties of the element; 0 steps are the model's own. Raises BadInput."""
    known = ("auto", *get_args(Precision))
    if precision not in known:
        raise BadInput(f"precision is '{precision}', expected one of {', '.join(known)}")
    return RunnerOptions(precision=precision, steps=steps or None)  # type: ignore[arg-type]


class BufferRestorer:
    """One model in memory, timed at the size of the stream. One owner thread at a time."""

    def __init__(self, model: str, options: RunnerOptions) -> None:
        """Raises what `open_ladder` raises, SpecMismatch if the model gives larger frames than it takes."""
        self._opened = open_ladder(model, None, options)
        self._ladder: Ladder | None = None
        if self._opened.runner.spec.scale != 1:
            self._opened.close()
            raise SpecMismatch(f"{model} gives larger frames than it takes, which only unblur run can do")

    def set_layout(self, layout: BufferLayout) -> None:
        """Make ready for frames of that layout."""
        self._ladder = self._opened.at_size(layout.size_hw)
        self.layout = layout
        self._before, self._after = (np.empty((*layout.size_hw, 3), np.uint8) for _ in range(2))
        matrix = layout.matrix or _UNSPECIFIED
        self._converter = ColourConverter(
            Colour(matrix, 2 if layout.full_range else 1, REC709.primaries, REC709.transfer)
        )
        self._yuv = VideoFrame(layout.size_hw[1], layout.size_hw[0], "nv12")

    def restore(
        self, data: bytearray | memoryview, *, layout: BufferLayout | None = None, deadline_ms: float | None = None
    ) -> None:
        """Restore a frame in place. layout: of this frame, if it is not that of the stream; the size is the same.

        deadline_ms: as many steps as fit; None is all of them. Raises DeviceError.
        """
        if self._ladder is None:
            raise ValueError("no layout was set")
        layout = layout or self.layout
        planes = layout.planes(data)
        if layout.pixel_format == "RGB":
            np.copyto(self._before.reshape(planes[0].shape), planes[0])
        else:
            _copy_planes(planes, _planes_of(self._yuv, planes))
            self._converter.rgb_into(self._yuv, self._before)
        self._ladder.restore(self._before, self._after, deadline_ms=deadline_ms)
        if layout.pixel_format == "RGB":
            np.copyto(planes[0], self._after.reshape(planes[0].shape))
        else:
            _copy_planes(_planes_of(self._converter.yuv_from(self._after, "nv12"), planes), planes)

    def latency_ms(self, deadline_ms: float | None = None) -> float:
        """What a frame takes, as timed when the layout was set, with as many steps as the deadline allows."""
        if self._ladder is None:
            return 0.0
        fewest, most = self._ladder.costs[0].ms, self._ladder.costs[-1].ms
        return most if deadline_ms is None else max(fewest, min(most, deadline_ms))

    def close(self) -> None:
        """Close the model."""
        self._opened.close()


def _planes_of(frame: VideoFrame, like: Sequence[Frame]) -> list[Frame]:
    """Views of the planes of a video frame, of the same shapes as `like`."""
    rows = [np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size) for plane in frame.planes]
    return [plane[: view.shape[0], : view.shape[1]] for plane, view in zip(rows, like, strict=True)]


def _copy_planes(sources: Sequence[Frame], targets: Sequence[Frame]) -> None:
    for source, target in zip(sources, targets, strict=True):
        np.copyto(target, source)
