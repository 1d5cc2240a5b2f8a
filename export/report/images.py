"""The images of a report: the most detailed crop of a frame, before and after, as data in the page."""

import base64
import io

import numpy as np
from PIL import Image

from unblur.export.report.data import CropComparison
from unblur.runtime.frames import Frame
from unblur.runtime.metrics import psnr_db

_WEBP_QUALITY = 82
_CROP_HW = (480, 720)
_STRIDE = 32

Crop = tuple[slice, slice]


def compare_crops(name: str, crop: Crop, blurred: Frame, restored: Frame, sharp: Frame) -> CropComparison:
    """One crop of three uint8 frames (H, W, 3). name: of the frame."""
    before, after, truth = (frame[crop] for frame in (blurred, restored, sharp))
    return CropComparison(
        name=name,
        size_hw=(before.shape[0], before.shape[1]),
        before_db=psnr_db(before, truth),
        after_db=psnr_db(after, truth),
        before=_data_uri(before),
        after=_data_uri(after),
        sharp=_data_uri(truth),
    )


def shrunk(frame: Frame, scale: int) -> Frame:
    """A frame at 1/scale of its size."""
    return np.asarray(Image.fromarray(frame).reduce(scale))


def gain_db(crop: Crop, blurred: Frame, restored: Frame, sharp: Frame) -> float:
    """What restoring gains in a crop, PSNR; negative where it makes things worse."""
    return psnr_db(restored[crop], sharp[crop]) - psnr_db(blurred[crop], sharp[crop])


def most_detailed_crop(frame: Frame) -> Crop:
    """The crop of at most 480 x 720 with the most contrast between neighbours, on a grid of 32 pixels."""
    grey = frame.astype(np.float64).mean(axis=2)
    energy = np.zeros_like(grey)
    energy[1:] += np.abs(np.diff(grey, axis=0))
    energy[:, 1:] += np.abs(np.diff(grey, axis=1))
    totals = np.pad(energy.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    height, width = grey.shape
    rows, columns = min(_CROP_HW[0], height), min(_CROP_HW[1], width)
    tops, lefts = np.arange(0, height - rows + 1, _STRIDE), np.arange(0, width - columns + 1, _STRIDE)
    bottoms, rights = tops + rows, lefts + columns
    sums = totals[np.ix_(bottoms, rights)] - totals[np.ix_(tops, rights)] - totals[np.ix_(bottoms, lefts)]
    best = np.unravel_index(np.argmax(sums + totals[np.ix_(tops, lefts)]), sums.shape)
    top, left = int(tops[best[0]]), int(lefts[best[1]])
    return slice(top, top + rows), slice(left, left + columns)


def _data_uri(frame: Frame) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(buffer, "WEBP", quality=_WEBP_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
