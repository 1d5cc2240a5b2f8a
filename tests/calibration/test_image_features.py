from collections.abc import Callable

import numpy as np
import pytest

from unblur.calibration.images import FEATURES, picture_features
from unblur.runtime.blur import shake_frame
from unblur.runtime.frames import Frame


def _scene(size_hw: tuple[int, int] = (64, 96)) -> Frame:
    """Squares of mid brightness under a soft wave."""
    rows, columns = np.indices(size_hw)
    waves = 90 + 20 * np.sin(rows / 7) + 30 * np.sign(np.sin(columns / 9) * np.sin(rows / 8))
    return np.repeat(waves[..., None], 3, axis=2).astype(np.uint8)


def _noisy(picture: Frame, sigma: float) -> Frame:
    noise = np.random.default_rng(0).normal(0, sigma, picture.shape[:2])[..., None]
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def _feature(picture: Frame, name: str) -> float:
    return float(picture_features(picture)[FEATURES.index(name)])


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("blur", lambda scene: shake_frame(scene, np.random.default_rng(1), 12.0)),
        ("brightness", lambda scene: scene + np.uint8(40)),
        ("texture", lambda scene: (scene.astype(int) * 2 - 100).clip(0, 255).astype(np.uint8)),
        ("noise", lambda scene: _noisy(scene, 6)),
    ],
)
def test_a_feature_rises_with_what_it_is_named_for(name: str, more: Callable[[Frame], Frame]) -> None:
    assert _feature(more(_scene()), name) > _feature(_scene(), name) + 0.05


def test_brightness_is_the_mean_luma() -> None:
    green = np.zeros((8, 8, 3), np.uint8)
    green[..., 1] = 255
    assert _feature(green, "brightness") == pytest.approx(0.587)


@pytest.mark.parametrize("sigma", [2.0, 5.0, 10.0])
def test_noise_is_its_standard_deviation(sigma: float) -> None:
    flat = np.full((256, 256, 3), 128, np.uint8)
    assert _feature(_noisy(flat, sigma), "noise") == pytest.approx(sigma, rel=0.2)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 40), (40, 1), (15, 15), (17, 33)])
@pytest.mark.parametrize("constant", [True, False])
def test_any_picture_has_finite_features(size_hw: tuple[int, int], constant: bool) -> None:
    picture = np.full((*size_hw, 3), 7, np.uint8)
    if not constant:
        picture = np.random.default_rng(0).integers(0, 256, picture.shape, np.uint8)
    features = picture_features(picture)
    assert np.isfinite(features).all()
    assert 0 <= features[FEATURES.index("blur")] <= 1
    if constant:
        assert features == pytest.approx([1, 7 / 255, 0, 0], abs=1e-5)
