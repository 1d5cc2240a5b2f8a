"""The three blur syntheses, all following B = K * S + n, in linear light.

(a) `average_frames`: GoPro's way (Nah et al. 2017), the mean of an odd number of consecutive frames.
(b) `camera_shake`: a random camera path integrated over a still, with saturation and noise.
(c) `lens_blur`: a Gaussian or a defocus disc.

Every function takes its random generator, so a sample is a function of its seed.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.blur import Kernel, convolve, from_light, psf_from_path, shake_path, to_light
from unblur.runtime.frames import Frame

Light = NDArray[np.float32]

MAX_BLUR_PX = 40.0
REACH_PX = int(MAX_BLUR_PX) // 2 + 2
"""How far a blur reaches: so wide a border of a blurred image holds what was not in the still."""

WINDOW_FRAMES = range(7, 25, 2)
"""How many frames are averaged: odd, 7 to 23, as in GoPro (Nah et al. 2017)."""

_MIN_BLUR_PX = 4.0
_GAMMAS = (1.0, 2.2)  # GoPro's `blur/` averages encoded pixels, a camera averages light: meet both
_SATURATION_CHANCE = 0.3
_MAX_EXPOSURE = 1.6
_MAX_NOISE = 0.01


def average_frames(frames: Sequence[Frame], gamma: float = 2.2) -> Frame:
    """The blurred image of an odd number of consecutive uint8 frames; the centre one is its sharp partner.

    Raises ValueError for an even number.
    """
    if len(frames) % 2 == 0:
        raise ValueError(f"an odd number of frames has a centre, got {len(frames)}")
    total = np.zeros(frames[0].shape, np.float32)
    for frame in frames:
        total += to_light(frame, gamma)
    return from_light(total / np.float32(len(frames)), gamma)


def camera_shake(sharp: Frame, rng: np.random.Generator) -> tuple[Frame, Frame]:
    """(blurred, sharp) of a uint8 image under a random camera shake of 4 to 40 px.

    With a chance of 0.3 the exposure is raised, so that highlights saturate before they are smeared: the
    sharp partner is then the brightened image, clipped as a sensor would.
    """
    gamma = float(rng.choice(_GAMMAS))
    light = to_light(sharp, gamma)
    if rng.random() < _SATURATION_CHANCE:
        light = light * np.float32(rng.uniform(1.0, _MAX_EXPOSURE))
        sharp = from_light(light, gamma)
    length_px = _MIN_BLUR_PX + (MAX_BLUR_PX - _MIN_BLUR_PX) * rng.beta(1.3, 1.8)
    blurred = convolve(light, psf_from_path(shake_path(rng, length_px)))
    return add_noise(from_light(blurred, gamma), rng), sharp


def lens_blur(sharp: Frame, rng: np.random.Generator) -> Frame:
    """Blur by a Gaussian (sigma 0.8 to 4 px) or a defocus disc (radius 1 to 7 px)."""
    kernel = gaussian_kernel(rng.uniform(0.8, 4.0)) if rng.random() < 0.5 else disc_kernel(rng.uniform(1, 7))
    return add_noise(from_light(convolve(to_light(sharp), kernel)), rng)


def gaussian_kernel(sigma: float) -> Kernel:
    """Gaussian of `sigma` px, cut at 3 sigma, summing to 1."""
    radius = int(np.ceil(3 * sigma))
    offsets = np.arange(-radius, radius + 1)
    profile = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = np.outer(profile, profile)
    return np.asarray(kernel / kernel.sum(), np.float32)


def disc_kernel(radius_px: float) -> Kernel:
    """Disc of `radius_px` with an antialiased rim, summing to 1."""
    radius = int(np.ceil(radius_px)) + 1
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    kernel = np.clip(radius_px + 0.5 - np.hypot(y, x), 0, 1)
    return np.asarray(kernel / kernel.sum(), np.float32)


def add_noise(frame: Frame, rng: np.random.Generator) -> Frame:
    """Add Gaussian noise of a random strength up to 0.01 of the range."""
    noise = rng.normal(0, rng.uniform(0, _MAX_NOISE), frame.shape).astype(np.float32)
    return np.asarray(np.rint(np.clip(frame / np.float32(255) + noise, 0, 1) * 255), np.uint8)
