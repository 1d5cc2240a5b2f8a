"""Four cheap numbers that tell calibration pictures apart, all of the luma."""

import math

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.frames import Frame

FEATURES = ("blur", "brightness", "texture", "noise")

Luma = NDArray[np.float32]

_LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_REBLUR_TAPS = 9
_NOISE_BLOCK = 16  # pixels
_FLATTEST = 0.1  # share of the blocks, whose Laplacian is noise rather than texture


def picture_features(picture: Frame) -> NDArray[np.float64]:
    """The `FEATURES` of a uint8 RGB picture.

    blur: 0 sharp to 1 no detail at all. brightness: mean, 0 to 1. texture: log2(1 + mean difference of neighbours
    in 8-bit levels). noise: standard deviation in 8-bit levels.
    """
    luma = np.asarray(picture @ _LUMA_WEIGHTS, np.float32)
    differences = (np.abs(np.diff(luma, axis=0)), np.abs(np.diff(luma, axis=1)))
    return np.array(
        [
            max(_blur(luma, axis, difference) for axis, difference in enumerate(differences)),
            float(luma.mean()) / 255,
            math.log2(1 + sum(float(difference.mean()) for difference in differences if difference.size) / 2),
            _noise(luma),
        ]
    )


def _blur(luma: Luma, axis: int, difference: Luma) -> float:
    """How little of the difference of neighbours along an axis another blur takes away (Crete et al. 2007)."""
    detail = float(difference.sum())
    if detail == 0:
        return 1.0
    pad = [(0, 0), (0, 0)]
    pad[axis] = (_REBLUR_TAPS // 2, _REBLUR_TAPS // 2)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(luma, pad, "edge"), _REBLUR_TAPS, axis)
    lost = difference - np.abs(np.diff(windows.mean(-1), axis=axis))
    return 1 - float(np.maximum(lost, 0).sum()) / detail


def _noise(luma: Luma) -> float:
    """Immerkaer's estimate ("Fast noise variance estimation", 1996) in the flattest blocks of the picture."""
    p = np.pad(luma, 1, "edge")
    rows = p[:-2] - 2 * p[1:-1] + p[2:]
    response = np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])
    return math.sqrt(math.pi / 2) / 6 * float(np.quantile(_block_means(response), _FLATTEST))


def _block_means(values: Luma) -> Luma:
    """Means of the whole blocks; of everything if there is none."""
    rows, columns = (side // _NOISE_BLOCK for side in values.shape)
    if rows == 0 or columns == 0:
        return np.full((1, 1), values.mean(), np.float32)
    whole = values[: rows * _NOISE_BLOCK, : columns * _NOISE_BLOCK]
    return np.asarray(whole.reshape(rows, _NOISE_BLOCK, columns, _NOISE_BLOCK).mean((1, 3)))
