"""Motion blur as light makes it: a scene that moves during the exposure, its light averaged.

The camera follows a smooth random path with some rotation and zoom; objects in front of the scene move on paths of
their own. Each pose of the exposure is a similarity of the image plane; the warped images are averaged in linear
light. The sharp partner lies where the camera was on average: with changing speed the middle of the exposure is
pixels away from there, and no network can know that shift (Köhler et al. 2012 align before they compare).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from torch.nn import functional as F

from unblur.runtime.blur import Path2D

Light = NDArray[np.float32]

MAX_BLUR_PX = 36.0
_LENGTHS_PX = ((1.0, 8.0), (4.0, 20.0), (10.0, MAX_BLUR_PX))  # of the path, its longer side
_LENGTH_SHARES = (0.25, 0.45, 0.3)
_POSES_PER_PX = 1.2
_POSES = (7, 31)
_ROTATION_DEG = 1.2  # standard deviation over the exposure, where there is rotation
_ZOOM = 0.012
_WANDER = (0.03, 0.15, 0.5)  # from nearly straight, as a short exposure is, to a shaky hand
_JOLT_CHANCE = 0.02
_EDGE_PX = 0.7  # softness of an object's outline


@dataclass(frozen=True)
class Motion:
    """What the image plane does during an exposure.

    path: (poses, 2) pixels, x and y, from the sharp partner. rotation_deg, zoom: from the first pose to the last.
    centre: of rotation and zoom, x and y in pixels.
    """

    path: Path2D
    rotation_deg: float = 0.0
    zoom: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)


def random_length_px(rng: np.random.Generator) -> float:
    """1 to 36 px, most of them 4 to 20."""
    low, high = _LENGTHS_PX[int(rng.choice(len(_LENGTHS_PX), p=_LENGTH_SHARES))]
    return float(rng.uniform(low, high))


def random_path(rng: np.random.Generator, length_px: float, poses: int) -> Path2D:
    """A smooth random walk with changing speed and rare jolts, `length_px` on its longer side; its mean is zero."""
    wander = rng.choice(_WANDER)
    angle = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    speed = np.maximum(1 + 0.5 * np.cumsum(rng.normal(size=poses)) / np.sqrt(poses), 0.1)
    steps = np.empty((poses, 2))
    for step, pace in zip(steps, speed, strict=True):
        direction = 0.85 * direction + 0.45 * wander * rng.normal(size=2)
        if rng.random() < _JOLT_CHANCE:
            direction = -direction + wander * rng.normal(size=2)
        direction /= max(float(np.hypot(*direction)), 1e-6)
        step[:] = pace * direction
    path = np.cumsum(steps, axis=0)
    path -= path.mean(axis=0)
    extent = float(np.ptp(path, axis=0).max())
    return np.asarray(path * (length_px / max(extent, 1e-6)))


def random_motion(rng: np.random.Generator, size_hw: tuple[int, int], length_px: float) -> Motion:
    """A camera's motion: a path, in half of the cases with rotation, in three of ten with zoom."""
    poses = int(np.clip(length_px * _POSES_PER_PX, *_POSES)) | 1
    rotation_deg = float(rng.normal() * _ROTATION_DEG) if rng.random() < 0.5 else 0.0
    zoom = float(rng.normal() * _ZOOM) if rng.random() < 0.3 else 0.0
    height, width = size_hw
    centre = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
    return Motion(random_path(rng, length_px, poses), rotation_deg, zoom, centre)


def exposed(light: Light, motion: Motion) -> Light:
    """The mean of (H, W, C) light over the poses of a motion; beyond the border the image is mirrored."""
    height, width = light.shape[:2]
    still = torch.from_numpy(np.ascontiguousarray(light.transpose(2, 0, 1)))[None]
    total = torch.zeros_like(still)
    for theta in _sampling_matrices(motion, (height, width)):
        grid = F.affine_grid(theta[None], list(still.shape), align_corners=False)
        total += F.grid_sample(still, grid, padding_mode="reflection", align_corners=False)
    mean = (total / len(motion.path))[0].permute(1, 2, 0)
    return np.ascontiguousarray(mean.numpy())


def _sampling_matrices(motion: Motion, size_hw: tuple[int, int]) -> torch.Tensor:
    """(poses, 2, 3): where each pose samples the still, in the coordinates of `affine_grid`, -1 to 1."""
    poses = len(motion.path)
    time = (np.arange(poses) - poses // 2) / max(poses - 1, 1)
    angle, scale = np.deg2rad(motion.rotation_deg) * time, 1 + motion.zoom * time
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    centre = np.array(motion.centre)
    matrices = np.zeros((poses, 3, 3))
    matrices[:, 0, 0], matrices[:, 0, 1] = cosine, -sine
    matrices[:, 1, 0], matrices[:, 1, 1] = sine, cosine
    matrices[:, :2, 2] = centre - matrices[:, :2, :2] @ centre + motion.path
    matrices[:, 2, 2] = 1
    height, width = size_hw
    to_unit = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
    return torch.from_numpy((to_unit @ matrices @ np.linalg.inv(to_unit))[:, :2].astype(np.float32))


def with_moving_objects(
    scene: Light, blurred: Light, texture: Light, camera: Motion, rng: np.random.Generator
) -> tuple[Light, Light]:
    """Put one to three objects in front of a scene: (sharp, blurred), all (H, W, 3) of one size.

    texture: what the objects are made of. They move with the camera times a parallax of 0 to 1.5, or on a path of
    their own; the outline is blurred with them.
    """
    mask = _random_mask(rng, scene.shape[:2])
    poses = len(camera.path)
    has_parallax = rng.random() < 0.4
    path = camera.path * rng.uniform(0, 1.5) if has_parallax else random_path(rng, random_length_px(rng), poses)
    height, width = scene.shape[:2]
    motion = Motion(path, float(rng.normal() * _ROTATION_DEG), 0.0, (width / 2, height / 2))
    moved = exposed(np.concatenate([texture * mask, mask], axis=2), motion)
    return scene * (1 - mask) + texture * mask, blurred * (1 - moved[..., 3:]) + moved[..., :3]


def _random_mask(rng: np.random.Generator, size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W, 1): 1 inside of one to three ellipses and polygons, with soft edges."""
    height, width = size_hw
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    for _ in range(int(rng.integers(1, 4))):
        centre = rng.uniform(0.15, 0.85, 2) * (width, height)
        if rng.random() < 0.5:
            reach = rng.uniform(0.05, 0.3, 2) * min(size_hw)
            draw.ellipse((*(centre - reach), *(centre + reach)), fill=255)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
            radii = rng.uniform(0.08, 0.35, len(angles)) * min(size_hw)
            corners = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
            draw.polygon([(float(x), float(y)) for x, y in corners], fill=255)
    soft = mask.filter(ImageFilter.GaussianBlur(_EDGE_PX))
    return np.asarray(soft, np.float32)[..., None] / np.float32(255)
