"""Deblur arrays.

from unblur.runtime.model.deblurrer import Deblurrer, deblur

sharp_rgb = deblur(blurred_rgb)  # one image, uint8 (H, W, 3), any size

with Deblurrer("lprn-s", RunnerOptions(threads=2)) as deblurrer:  # many: the model is opened once
    for frame_rgb in frames:
        deblurrer(frame_rgb, out=frame_rgb_out)  # no allocation once the size repeats
"""

from pathlib import Path
from types import TracebackType
from typing import cast

import numpy as np

from unblur.runtime.frames import AnyFrame, AnyFrameT, Batch, Frame, Padding, check_frame
from unblur.runtime.model.open_model import open_runner
from unblur.runtime.model.tiles import (
    TilePlan,
    affordable_halo_of,
    infer_tiles,
    max_pixels_of,
    plan_fixed_tiles,
    plan_tiles,
    plan_tiles_within,
)
from unblur.runtime.runner import FrameRunner, OverlappingRunner, Runner, RunnerOptions, SizedRunner, YuvRunner
from unblur.runtime.spec import ModelSpec
from unblur.runtime.yuv import YuvFrame

DEFAULT_MODEL = "lprn-s"


class Deblurrer:
    """Restores frames of any size, one after the other; not for several threads at a time.

    model: a shipped preset, a bundle folder, an .onnx file, or a Runner, which stays the caller's to close.
    options: how to open it; of no effect on a Runner.
    tile: most pixels given to the network at once; larger frames are cut into tiles that overlap. Less takes less
        memory and more time, since the overlaps are computed twice. Default: what stays below about 3 GiB; of an
        engine, the largest size that it was built for.
    """

    def __init__(
        self,
        model: str | Path | Runner = DEFAULT_MODEL,
        options: RunnerOptions = RunnerOptions(),
        *,
        tile: int | None = None,
    ) -> None:
        self._is_owner = isinstance(model, (str, Path))
        self._runner = open_runner(model, options) if isinstance(model, (str, Path)) else model
        self._tile = tile
        self._plan: TilePlan | None = None
        self._buffer: Batch = np.empty((1, 3, 0, 0), np.float32)

    @property
    def spec(self) -> ModelSpec:
        return self._runner.spec

    @property
    def runner(self) -> Runner:
        return self._runner

    def plan(self, size_hw: tuple[int, int]) -> TilePlan:
        """How frames of that size are cut; one tile if they are not. ValueError if `tile` is too small for it."""
        if self._tile is None and isinstance(self._runner, SizedRunner):
            return plan_tiles_within(size_hw, self.spec, self._runner.sizes)
        if self.spec.fixed_hw is not None:
            return plan_fixed_tiles(size_hw, self.spec)
        return plan_tiles(
            size_hw,
            multiple_of=self.spec.multiple_of,
            halo=affordable_halo_of(self.spec),
            max_pixels=max_pixels_of(self.spec) if self._tile is None else self._tile,
        )

    def __call__(self, frame_rgb: AnyFrameT | YuvFrame, out: AnyFrameT | None = None) -> AnyFrameT:
        """Restore one frame.

        frame_rgb: uint8 or uint16 (H, W, 3), or YUV as a camera gives it, which a GPU takes as it is. out: an array
        of the restored shape, `spec.scale` times the size, and of the same type, to fill and return instead of a
        new one; it may be `frame_rgb` itself unless the frame is tiled or scaled. Raises TypeError or ValueError
        for another type or shape, DeviceError if the network gives NaN or infinity.
        """
        if isinstance(frame_rgb, YuvFrame):
            return cast(AnyFrameT, self._restore_yuv(frame_rgb, cast(Frame | None, out)))
        check_frame(frame_rgb)
        plan = self._prepare((frame_rgb.shape[0], frame_rgb.shape[1]))
        shape = (*self.spec.output_hw(plan.size_hw), 3)
        if out is None:
            out = cast(AnyFrameT, np.empty(shape, frame_rgb.dtype))
        elif out.shape != shape or out.dtype != frame_rgb.dtype:
            raise ValueError(f"out is {out.dtype} {out.shape}, expected {frame_rgb.dtype} {shape}")
        elif plan.count > 1 and np.may_share_memory(out, frame_rgb):
            raise ValueError(f"out shares memory with a frame that needs {plan.count} tiles; give another array")
        if self._is_whole(plan) and isinstance(self._runner, FrameRunner) and frame_rgb.dtype == np.uint8:
            self._runner.infer_frame(cast(Frame, frame_rgb), cast(Frame, out))
        else:
            infer_tiles(self._runner, frame_rgb, plan, self._buffer, out)
        return out

    def begin(self, frame: AnyFrame | YuvFrame, out: AnyFrame) -> bool:
        """Begin to restore a frame into `out`, filled when `end` has returned; two may be under way.

        False, and nothing is begun, where the runner does not overlap frames, or this one has to be tiled or is of
        16 bits.
        """
        whole = self._is_whole(self._prepare((frame.shape[0], frame.shape[1])))
        if whole and isinstance(self._runner, OverlappingRunner) and out.dtype == np.uint8:
            self._runner.begin_frame(cast(Frame | YuvFrame, frame), cast(Frame, out))
            return True
        return False

    def end(self) -> None:
        """Wait for the frame that was begun first."""
        assert isinstance(self._runner, OverlappingRunner)  # noqa: S101
        self._runner.end_frame()

    def _restore_yuv(self, frame: YuvFrame, out: Frame | None) -> Frame:
        plan = self._prepare(frame.layout.size_hw)
        if not (self._is_whole(plan) and isinstance(self._runner, YuvRunner)):
            return self(frame.rgb(), out)
        out = np.empty((*self.spec.output_hw(plan.size_hw), 3), np.uint8) if out is None else out
        self._runner.infer_yuv(frame, out)
        return out

    def _is_whole(self, plan: TilePlan) -> bool:
        """Whether the runner takes the frame at once and pads it itself."""
        return plan.count == 1 and (
            plan.tile_hw == Padding.to_multiple(plan.size_hw, self.spec.multiple_of).padded_hw
        )

    def close(self) -> None:
        """Close the runner if it was opened here."""
        if self._is_owner:
            self._runner.close()

    def __enter__(self) -> "Deblurrer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, size_hw: tuple[int, int]) -> TilePlan:
        """The plan and the buffer, new only when the size changes."""
        if self._plan is None or self._plan.size_hw != size_hw:
            self._plan = self.plan(size_hw)
            if self._buffer.shape[2:] != self._plan.tile_hw:
                self._buffer = np.empty((1, 3, *self._plan.tile_hw), np.float32)
        return self._plan


def deblur(frame_rgb: Frame, model: str | Path | Runner = DEFAULT_MODEL) -> Frame:
    """Restore one image, uint8 RGB (H, W, 3). Opens the model every time; for many use a Deblurrer."""
    with Deblurrer(model) as deblurrer:
        return deblurrer(frame_rgb)
