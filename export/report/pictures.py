"""The pictures of a report: the liveliest crop of a frame before and after, and maps of what is wrong with it."""

import base64
import io

import numpy as np
from PIL import Image

from unblur.export.report.data import CropComparison, Picture
from unblur.runtime.frames import Frame
from unblur.runtime.metrics import psnr_db

_JPEG_QUALITY = 82
_CROP = 192
_STRIDE = 32
_GAIN, _INT8_GAIN = 4, 32


def compare_crops(name: str, blurred: Frame, restored: Frame, int8: Frame, sharp: Frame | None) -> CropComparison:
    """A crop before and after, what INT8 makes different, and how far it is from ground truth if there is any.

    restored, int8: by the float32 and the INT8 form. All are uint8 (H, W, 3) of one size.
    """
    crop = _liveliest(blurred if sharp is None else sharp)
    frames = (blurred[crop], restored[crop], int8[crop])
    return CropComparison(name, _without_truth(*frames) if sharp is None else _with_truth(*frames, sharp[crop]))


def _without_truth(blurred: Frame, restored: Frame, int8: Frame) -> tuple[Picture, ...]:
    return (
        _picture("before", blurred),
        _picture("after", restored),
        _difference("changed", restored, blurred, _GAIN),
        _difference("INT8 against fp32", int8, restored, _INT8_GAIN),
    )


def _with_truth(blurred: Frame, restored: Frame, int8: Frame, sharp: Frame) -> tuple[Picture, ...]:
    return (
        _picture("before", blurred, psnr_db(blurred, sharp)),
        _picture("after", restored, psnr_db(restored, sharp)),
        _picture("sharp", sharp),
        _difference("error before", blurred, sharp, _GAIN),
        _difference("error after", restored, sharp, _GAIN),
        _difference("INT8 against fp32", int8, restored, _INT8_GAIN),
    )


def _difference(caption: str, picture: Frame, other: Frame, gain: int) -> Picture:
    """The absolute difference, `gain` times as bright."""
    difference = np.abs(picture.astype(np.int16) - other)
    return _picture(f"{caption}, x {gain}", np.asarray(np.clip(gain * difference, 0, 255), np.uint8))


def _picture(caption: str, frame: Frame, db: float | None = None) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return Picture(caption, db, f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}")


def _liveliest(picture: Frame) -> tuple[slice, slice]:
    """The crop with the most contrast between neighbours, on a grid of `_STRIDE` pixels."""
    grey = picture.astype(np.float64).mean(axis=2)
    energy = np.zeros_like(grey)
    energy[1:] += np.abs(np.diff(grey, axis=0))
    energy[:, 1:] += np.abs(np.diff(grey, axis=1))
    totals = np.pad(energy.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    height, width = grey.shape
    rows, columns = min(_CROP, height), min(_CROP, width)
    corners = [
        (top, left)
        for top in range(0, height - rows + 1, _STRIDE)
        for left in range(0, width - columns + 1, _STRIDE)
    ]
    top, left = max(
        corners,
        key=lambda corner: float(
            totals[corner[0] + rows, corner[1] + columns]
            - totals[corner[0], corner[1] + columns]
            - totals[corner[0] + rows, corner[1]]
            + totals[corner]
        ),
    )
    return slice(top, top + rows), slice(left, left + columns)
