"""A camera without a camera: `test://moving?size=720x1280&fps=30&blur=12`.

It pans over a drawn scene at constant speed, in real time. The shutter is open while the scene passes by `blur`
pixels, so every frame has that motion blur, and what it would be without is known.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame, FramePool
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame
from unblur.runtime.media.url import Size

_GAMMA = 2.2
_SHUTTER = 0.5  # share of the frame time that it is open: a 180 degree shutter


@dataclass(frozen=True)
class MovingScene:
    """Options of the source. blur: length of the motion blur in pixels; 0 is a sharp image that stands still.

    frames: how many there are; 0 is no end.
    """

    size: Size = field(default_factory=lambda: Size(720, 1280))
    fps: Fraction = Fraction(30)
    blur: int = 12
    seed: int = 0
    frames: int = 0


class SyntheticSource(AbstractContextManager["SyntheticSource"]):
    """Frames when their time has come, cut from a panorama that was blurred once."""

    lost_frames = 0

    def __init__(self, options: MovingScene, url: str, *, max_pixels: int) -> None:
        """BadInput if the frames are larger than `max_pixels`."""
        height, width = options.size
        if height * width > max_pixels:
            raise BadInput(f"{url} has {height * width} pixels a frame, at most {max_pixels} are allowed")
        self._options = options
        self._pool = FramePool()
        sharp = _panorama(height, 2 * width, options.seed)
        self._period_px = 2 * width
        self._sharp = np.concatenate([sharp, sharp[:, :width]], axis=1)
        blurred = _smear(sharp, options.blur)
        self._blurred = np.concatenate([blurred, blurred[:, :width]], axis=1)
        self.info = MediaInfo(
            path=None,
            kind="live",
            size_hw=options.size,
            frames=options.frames or None,
            rate=options.fps,
            time_base=1 / options.fps,
            url=url,
        )

    def sharp(self, index: int) -> Frame:
        """What frame `index` would be without blur: uint8 RGB (H, W, 3), not to be written to."""
        return self._cut(self._sharp, index)

    def __iter__(self) -> Iterator[TimedFrame]:
        period_s = 1 / self._options.fps
        started_s = time.monotonic()
        index = 0
        while not self._options.frames or index < self._options.frames:
            time.sleep(max(0.0, started_s + float(index * period_s) - time.monotonic()))
            frame = self._pool.take((*self._options.size, 3))
            np.copyto(frame, self._cut(self._blurred, index))
            yield TimedFrame(frame, index * period_s, period_s)
            index += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open."""

    def _cut(self, panorama: Frame, index: int) -> Frame:
        """The window of the frame in the middle of its exposure."""
        left = round(index * self._options.blur / _SHUTTER) % self._period_px
        return panorama[:, left : left + self._options.size.width]


def _panorama(height: int, width: int, seed: int) -> Frame:
    """A scene that closes on itself from left to right: sky, hills, houses with windows, posts, fine texture."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(0, 1, height)[:, None, None]
    scene = np.broadcast_to((1 - rows) * [120, 170, 220] + rows * [205, 195, 175], (height, width, 3)).copy()
    turn = np.linspace(0, 2 * np.pi, width, endpoint=False)
    hills = height * (0.55 + 0.06 * np.sin(3 * turn + rng.uniform(0, 6)) + 0.03 * np.sin(11 * turn))
    scene[np.arange(height)[:, None] > hills] = [70, 95, 60]
    for base in np.sort(rng.uniform(0.64, 1.05, width // 60)):  # the far ones first
        _draw_house(scene, int(base * height), rng)
    texture = rng.normal(0, 5, (height, width, 1))
    return np.clip(scene + texture, 0, 255).astype(np.uint8)


def _draw_house(scene: NDArray[np.float64], base: int, rng: np.random.Generator) -> None:
    """A wall with rows of windows that stands on the row `base`, wrapped around the edge."""
    height, width = scene.shape[:2]
    wide = int(rng.integers(height // 12 + 2, height // 4 + 4))
    top = max(base - int(rng.integers(height // 8 + 2, height // 2 + 3)), 0)
    columns = np.arange(wide) + rng.integers(width)
    wall = 0.5 * rng.uniform(60, 220) + 0.5 * rng.uniform(60, 220, 3)
    scene[top:base, columns % width] = wall
    pane = max(wide // 8, 2)
    for row in range(top + pane, min(base, height) - pane, 2 * pane):
        for column in range(pane, wide - pane, 2 * pane):
            window = columns[column : column + pane] % width
            scene[row : row + pane, window] = wall * rng.choice([0.35, 0.5, 1.25])


def _smear(panorama: Frame, blur: int) -> Frame:
    """The mean over a window of `blur` pixels to the right and left of each, in linear light, closed on itself."""
    if blur < 2:
        return panorama
    linear = (panorama / 255.0) ** _GAMMA
    reach = blur // 2
    wrapped = np.concatenate([linear[:, -reach:], linear, linear[:, : blur - reach]], axis=1)
    sums = np.cumsum(np.pad(wrapped, ((0, 0), (1, 0), (0, 0))), axis=1)
    width = panorama.shape[1]
    mean = (sums[:, blur : blur + width] - sums[:, :width]) / blur
    levels = 255 * np.clip(mean, 0, 1) ** (1 / _GAMMA)
    return np.asarray(np.rint(levels), np.uint8)
