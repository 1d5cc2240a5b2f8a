"""Camera-shake blur on numpy arrays: what training, calibration, the demo and the test camera synthesise.

The camera moves along a smooth random path during the exposure; the image is the integral of the moving scene.
For a path without rotation that is a convolution with the path drawn as a kernel (the point spread function).
Light adds up in linear intensity, so images are linearised (gamma 2.2) before and encoded after.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unblur.runtime.frames import Frame

Path2D = NDArray[np.float64]
Kernel = NDArray[np.float32]
LINEAR_LIGHT_GAMMA = 2.2
_POSES = 96
_INERTIA = 0.9
_JOLT_CHANCE = 0.02


def shake_path(rng: np.random.Generator, length_px: float) -> Path2D:
    """A random camera path (poses, 2) in pixels, its longer side `length_px`, centred on the origin.

    A random walk with inertia and rare jolts, after Boracchi and Foi 2012 and Kupyn et al. 2018 (DeblurGAN).
    """
    angle = rng.uniform(0, 2 * np.pi)
    velocity = np.array([np.cos(angle), np.sin(angle)])
    waywardness = rng.uniform(0.0, 0.5)
    steps = np.empty((_POSES, 2))
    for step in steps:
        velocity = _INERTIA * velocity + (1 - _INERTIA) * rng.normal(size=2) * 4 * waywardness
        if rng.random() < _JOLT_CHANCE:
            velocity = -velocity + rng.normal(size=2) * waywardness
        velocity /= max(float(np.hypot(*velocity)), 1e-6)
        step[:] = velocity
    path = np.cumsum(steps, axis=0)
    path -= (path.max(0) + path.min(0)) / 2
    extent = float((path.max(0) - path.min(0)).max())
    return np.asarray(path * (length_px / max(extent, 1e-6)))


def psf_from_path(path: Path2D) -> Kernel:
    """Draw a path as an odd-sized square kernel that sums to 1, each pose splatted bilinearly."""
    radius = int(np.ceil(np.abs(path).max())) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    corner = np.floor(path).astype(int)
    fraction = path - corner
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dy - fraction[:, 0]) * np.abs(1 - dx - fraction[:, 1])
            np.add.at(kernel, (corner[:, 0] + radius + dy, corner[:, 1] + radius + dx), weight)
    return np.asarray(kernel / kernel.sum(), np.float32)


def convolve(image: NDArray[np.float32], kernel: Kernel) -> NDArray[np.float32]:
    """Filter float32 (H, W, C) with an odd-sized kernel; the border is mirrored. Same shape."""
    radius = kernel.shape[0] // 2
    height, width = image.shape[:2]
    border = ((radius, radius), (radius, radius), (0, 0))
    fits = min(height, width) > radius
    padded = np.pad(image, border, mode="reflect") if fits else np.pad(image, border, mode="edge")
    size = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, s=size)[..., None]
    filtered = np.fft.irfft2(spectrum, s=size, axes=(0, 1))
    # the kernel's centre sits at index `radius`, so the valid part starts at 2 * radius
    return np.asarray(filtered[2 * radius :, 2 * radius :], np.float32)


def to_light(frame: Frame, gamma: float = LINEAR_LIGHT_GAMMA) -> NDArray[np.float32]:
    """uint8 pixels -> linear light in [0, 1]."""
    table = (np.arange(256) / 255.0) ** gamma
    return np.asarray(table.astype(np.float32)[frame])


def from_light(light: NDArray[np.float32], gamma: float = LINEAR_LIGHT_GAMMA) -> Frame:
    """Linear light -> uint8 pixels, clipped to [0, 1] and rounded."""
    pixels = np.clip(light, 0, 1) ** np.float32(1 / gamma)
    return np.asarray(np.rint(pixels * 255), np.uint8)


def shake_frame(frame: Frame, rng: np.random.Generator, length_px: float) -> Frame:
    """Blur a sharp uint8 RGB image by one random camera shake in linear light."""
    return from_light(convolve(to_light(frame), psf_from_path(shake_path(rng, length_px))))


_EVERY = 8  # lines: every eighth row and column says as much as all of them
_REACH = 11  # pixels of the box filter, as in the paper
_REC709_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


def blur_score(frame_rgb: Frame) -> float:
    """0 (perfectly sharp) to 1 (blurred): Crete et al., "The blur effect", SPIE 2007.

    Blurring a sharp image once more takes away most of the differences between neighbours, blurring a blurred
    one takes away little. Both directions are judged and the more blurred one counts, since a camera moves in one.
    It is relative to the image's own contrast, so one threshold serves dark and bright scenes. An image
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

    sharp: at or below this score a frame is passed on as it is. mild: at or below this it gets the
    lowest rung of the ladder.
    """

    sharp: float = 0.33
    mild: float = 0.42

    def highest_rung(self, frame_rgb: Frame) -> int | None:
        """0: pass the frame on; 1: the lowest rung; None: the highest that fits the deadline."""
        score = blur_score(frame_rgb)
        if score <= self.sharp:
            return 0
        return 1 if score <= self.mild else None
