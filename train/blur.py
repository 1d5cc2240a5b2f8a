"""Blur synthesis for training: B = K * S + n, in linear light.

`average_frames`: GoPro's way, the mean of an odd number of consecutive frames (Nah et al. 2017). `moving_scene`: a
sharp image under camera motion, with moving objects, saturation and noise; see `unblur.train.motion`. `lens_blur`:
a Gaussian or a defocus disc.

Every function takes its random generator, so a sample is a function of its seed.
"""

from collections.abc import Sequence

import numpy as np

from unblur.runtime.blur import Kernel, convolve, from_light, to_light
from unblur.runtime.frames import Frame
from unblur.train.motion import MAX_BLUR_PX, Light, exposed, random_length_px, random_motion, with_moving_objects

REACH_PX = int(MAX_BLUR_PX) - 4
"""A blur reaches hardly farther: so wide a border of a blurred image holds what was not in the still."""

WINDOW_FRAMES = range(7, 25, 2)
"""How many frames are averaged: odd, 7 to 23, as in GoPro (Nah et al. 2017)."""

_GAMMAS = (1.0, 2.2)  # GoPro's `blur/` averages encoded pixels, a camera averages light: train on both
_SATURATION_CHANCE = 0.25
_MAX_EXPOSURE = 1.6
_OBJECTS_CHANCE = 0.4
_NOISE_CHANCE = 0.5
_SHOT_NOISE = (0.0, 1e-3)  # variance per unit of light; at light 0.5 up to 2 % of the range
_READ_NOISE = 1e-6  # variance
_MAX_LENS_NOISE = 0.008


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


def moving_scene(still: Frame, rng: np.random.Generator, texture: Frame | None = None) -> tuple[Frame, Frame]:
    """(blurred, sharp) of a uint8 image (H, W, 3) as a moving camera sees it: 1 to 36 px of blur.

    texture: an image of the same size; with a chance of 0.4 objects made of it move in front of the still.
    With a chance of 0.25 the exposure is raised: highlights are smeared before they saturate, and the sharp partner
    is the brightened image, clipped as a sensor does. Noise is added to the light, before the tone curve.
    """
    gamma = float(rng.choice(_GAMMAS))
    exposure = np.float32(rng.uniform(1, _MAX_EXPOSURE) if rng.random() < _SATURATION_CHANCE else 1)
    sharp = to_light(still, gamma) * exposure
    camera = random_motion(rng, (sharp.shape[0], sharp.shape[1]), random_length_px(rng))
    blurred = exposed(sharp, camera)
    if texture is not None and rng.random() < _OBJECTS_CHANCE:
        sharp, blurred = with_moving_objects(sharp, blurred, to_light(texture, gamma), camera, rng)
    if rng.random() < _NOISE_CHANCE:
        blurred = _with_sensor_noise(blurred, rng)
    return from_light(blurred, gamma), from_light(sharp, gamma)


def lens_blur(sharp: Frame, rng: np.random.Generator) -> Frame:
    """Blur by a Gaussian (sigma 0.6 to 3 px) or a defocus disc (radius 1 to 5 px)."""
    kernel = gaussian_kernel(rng.uniform(0.6, 3.0)) if rng.random() < 0.5 else disc_kernel(rng.uniform(1, 5))
    pixels = from_light(convolve(to_light(sharp), kernel)) / np.float32(255)
    noise = rng.normal(0, rng.uniform(0, _MAX_LENS_NOISE), pixels.shape).astype(np.float32)
    return from_light(np.asarray(pixels + noise, np.float32), 1.0)


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


def _with_sensor_noise(light: Light, rng: np.random.Generator) -> Light:
    """Gaussian noise whose variance grows with the light (shot noise), over a floor (read noise)."""
    variance = np.clip(light, 0, 1) * np.float32(rng.uniform(*_SHOT_NOISE)) + np.float32(_READ_NOISE)
    noise = rng.standard_normal(light.shape, np.float32)
    return np.asarray(light + noise * np.sqrt(variance), np.float32)
