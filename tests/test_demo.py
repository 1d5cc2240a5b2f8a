"""The images that the demo makes and measures."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from unblur.runtime.images import read_image

SCRIPT = Path(__file__).parents[1] / "docs/demo.py"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    specification = importlib.util.spec_from_file_location("demo", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["demo"] = module  # where dataclasses look for the module they are defined in
    specification.loader.exec_module(module)
    return module


def test_the_sharp_reference_of_every_exposure_is_a_window_of_the_photograph(demo: ModuleType) -> None:
    photograph = read_image(demo.example(demo.PHOTOGRAPH))
    clip = list(demo.expose_clip(photograph))
    assert len(clip) == demo.CLIP_FRAMES
    height, width = demo.CLIP_HW
    for exposure, (top, left) in ((clip[0], (112, 16)), (clip[-1], (16, 48))):
        np.testing.assert_array_equal(exposure.sharp, photograph[top : top + height, left : left + width])
        assert demo.psnr_db(exposure.blurred, exposure.sharp) < 30


def test_no_camera_path_leaves_the_photograph(demo: ModuleType) -> None:
    for seed in range(50):
        path = demo.camera_path(np.random.default_rng(seed), demo.SHAKE_PX[1])
        assert path.shape == (demo.POSES, 2)
        assert np.abs(path).max() <= demo.MARGIN
        assert demo.SHAKE_PX[1] / 2 < np.ptp(path, axis=0).max() <= demo.SHAKE_PX[1] + 1


def test_blur_averages_linear_light_along_the_path(demo: ModuleType) -> None:
    """A point of light keeps its energy; the same scene without detail stays as it is."""
    grey = np.full((64, 64, 3), 128, np.uint8)
    exposure = demo.expose(grey, demo.camera_path(np.random.default_rng(0), 9.0), (16, 16), (32, 32))
    np.testing.assert_array_equal(exposure.blurred, exposure.sharp)
    point = np.zeros((65, 65, 3), np.uint8)
    point[32, 32] = 255
    blurred = demo.expose(point, demo.camera_path(np.random.default_rng(0), 9.0), (16, 16), (33, 33)).blurred
    assert ((blurred / 255.0) ** demo.GAMMA).sum() == pytest.approx(3.0, rel=0.05)


def test_a_clip_is_written_and_measured_frame_by_frame(demo: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    light = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    frames = [np.asarray(Image.fromarray(frame).resize(demo.CLIP_HW[::-1])) for frame in light]
    demo.write_clip(tmp_path / "clip.mp4", frames[:1])
    demo.write_clip(tmp_path / "clip.mp4", frames)  # a second demo replaces the clip of the first
    assert demo.mean_psnr_db(tmp_path / "clip.mp4", frames) > 35
    assert demo.mean_psnr_db(tmp_path / "clip.mp4", frames[::-1]) < 30


def test_the_strip_shows_blurred_restored_and_sharp_side_by_side(demo: ModuleType) -> None:
    photograph = read_image(demo.example(demo.PHOTOGRAPH))
    still = demo.expose_still(photograph)
    restored = np.full_like(still.sharp, 128)
    strip = np.asarray(demo.before_after(still, restored))
    height, width = still.sharp.shape[:2]
    for index, frame in enumerate((still.blurred, restored, still.sharp)):
        left = index * (width + demo.GAP)
        shown = strip[demo.LABEL_HEIGHT : demo.LABEL_HEIGHT + height, left : left + width]
        np.testing.assert_array_equal(shown, frame)
        assert strip[: demo.LABEL_HEIGHT, left : left + width].min() < 64, "a label"
