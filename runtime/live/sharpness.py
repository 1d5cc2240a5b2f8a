"""How blurred a frame is, in a millisecond: to spare the network what needs no restoring."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.frames import Frame

_EVERY = 8  # lines: every eighth row and column says as much as all of them
_REACH = 11  # pixels of the box filter, as in the paper
_REC709_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


def blur_score(frame_rgb: Frame) -> float:
    """0 (perfectly sharp) to 1 (blurred): Crete et al., "The blur effect", SPIE 2007.

    Blurring a sharp picture once more takes away most of the differences between neighbours, blurring a blurred
    one takes away little. Both directions are judged and the more blurred one counts, since a camera moves in one.
    It is relative to the picture's own contrast, so one threshold serves dark and bright scenes. A picture
    without any contrast, or narrower than the filter, scores 1: nothing in it says that it is sharp.

    frame_rgb: uint8 (H, W, 3).
    """
    rows = frame_rgb[::_EVERY] @ _REC709_LUMA
    columns = (frame_rgb[:, ::_EVERY] @ _REC709_LUMA).T
    return max(_blur_along_rows(rows), _blur_along_rows(columns))


def _blur_along_rows(luma: NDArray[np.float32]) -> float:
    """1 - the share of the differences along the rows that a box filter takes away."""
    if luma.shape[1] < 2 * _REACH:
        return 1.0
    sums = np.cumsum(luma, axis=1, dtype=np.float64)
    blurred = (sums[:, _REACH:] - sums[:, :-_REACH]) / _REACH
    margin = _REACH // 2 + 1
    kept = luma[:, margin : margin + blurred.shape[1]]
    sharp_steps = np.abs(np.diff(kept, axis=1))
    blurred_steps = np.abs(np.diff(blurred, axis=1))
    total = float(sharp_steps.sum())
    if total == 0:
        return 1.0
    return 1 - float(np.maximum(sharp_steps - blurred_steps, 0).sum()) / total


@dataclass(frozen=True)
class BlurGate:
    """Says how much restoring a frame deserves.

    On GoPro's frames sharp ones score 0.28 to 0.39 and their blurred partners 0.44 to 0.62. Noise counts as
    detail: a noisy night camera needs lower thresholds, or no gate.

    sharp: at or below this score a frame is passed on as it is. mild: at or below this it gets the fewest steps.
    """

    sharp: float = 0.33
    mild: float = 0.42

    def most_steps(self, frame_rgb: Frame) -> int | None:
        """0: none; 1: the fewest there are; None: as many as fit the deadline."""
        score = blur_score(frame_rgb)
        if score <= self.sharp:
            return 0
        return 1 if score <= self.mild else None
