"""Canny's edges against scikit-image's."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import color, data, feature

from unblur.train.networks.edges import CannyEdges

BORDER = 6  # ours mirrors the frame, scikit-image drops what its Gaussian cannot see


def edges(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    images = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
    return (CannyEdges()(images)[0, 0] > 0.5).numpy()


@pytest.mark.parametrize("picture", [data.chelsea(), data.astronaut(), data.coffee()], ids=["cat", "face", "cup"])
def test_edges_are_those_of_scikit_image(picture: NDArray[np.uint8]) -> None:
    inner = (slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    ours = edges(picture)[inner]
    theirs = feature.canny(color.rgb2gray(picture))[inner]
    assert theirs.mean() > 0.05
    assert (ours & ~theirs).sum() <= 1e-3 * theirs.sum()  # rounding
    assert (theirs & ~ours).sum() <= 5e-3 * theirs.sum()  # the ends of long weak edges


def test_a_flat_frame_has_no_edge_and_a_step_has_one_line() -> None:
    frame = np.full((32, 48, 3), 60, np.uint8)
    assert not edges(frame).any()
    frame[:, 20:] = 200
    found = edges(frame)[BORDER:-BORDER]
    assert set(found.sum(1).tolist()) <= {1, 2}  # the step lies between two columns, equally strong
    assert set(np.nonzero(found)[1].tolist()) <= {19, 20}


def test_a_weak_edge_is_followed_for_32_pixels() -> None:
    frame = np.full((16, 160, 3), 100, np.uint8)
    below = np.interp(
        np.arange(160), [20, 50], [150, 114]
    )  # under the low threshold nowhere, over the high one at left
    frame[8:] = np.rint(below)[:, None]
    grey = color.rgb2gray(frame)
    strong, whole = (
        np.nonzero(feature.canny(grey, low_threshold=low, high_threshold=0.2).any(0))[0].max() for low in (0.2, 0.1)
    )
    assert whole > strong + 32
    assert np.nonzero(edges(frame)[:, :-BORDER].any(0))[0].max() == strong + 32


def test_training_in_bfloat16_sees_the_same_edges() -> None:
    images = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = CannyEdges()(images)
    assert torch.equal(mixed, CannyEdges()(images))


def test_nothing_is_learnt_or_stored() -> None:
    module = CannyEdges()
    assert not module.state_dict()
    assert not module(torch.rand(1, 3, 8, 8, requires_grad=True)).requires_grad
