"""The demo, `make demo`: how much of what camera shake took away the shipped model restores.

    python docs/demo.py --preset lprn-s -o demo

A photograph that comes with scikit-image is averaged along random camera paths, which gives a blurred still and a
blurred clip whose sharp frames are known. The commands of the README deploy the model, verify the bundle and
restore both. Everything stays in the folder, with `before_after.png`; the PSNR is printed at the end.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from unblur.runtime import read_image, write_image

Frame = NDArray[np.uint8]  # (H, W, 3), RGB

PHOTOGRAPH = "astronaut.png"  # NASA, public domain; 512 x 512
CALIBRATION = ("chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")  # never the one that is restored
SEED = 0
SHAKE_PX = (4.0, 12.0)  # length of a path: a hand, 1 to 2.5 percent of the width
POSES = 64  # of the camera during an exposure
GAMMA = 2.2  # light adds up in linear intensity
MARGIN = 16  # no path leaves the photograph
CLIP_HW = (384, 448)
CLIP_FRAMES = 24
FPS = Fraction(12)
VERIFIED_FRAMES = 4
DETAILS = ((50, 140), (310, 240))  # (top, left) of the two enlarged squares in the still: a face, a name tag
DETAIL_SIDE = 120
GAP = 8
LABEL_HEIGHT = 40


@dataclass(frozen=True)
class Exposure:
    """What the camera saw, uint8 (H, W, 3), and what it should have seen."""

    blurred: Frame
    sharp: Frame


def main() -> None:
    """Read the command line and run the demo."""
    parser = argparse.ArgumentParser(description="Deploy a model, then restore a blurred still and clip with it.")
    parser.add_argument("--preset", default="lprn-s", help="a shipped preset, or the path of a checkpoint")
    parser.add_argument("--output", "-o", type=Path, default=Path("demo"), help="folder for all results")
    arguments = parser.parse_args()
    checkpoint = Path(arguments.preset)
    preset = str(checkpoint.resolve()) if checkpoint.is_file() else arguments.preset
    demonstrate(preset, f"{checkpoint.stem}.unblur", arguments.output)


def demonstrate(preset: str, bundle: str, out: Path) -> None:
    """Make blurred images in `out`, restore them with the commands a user would type, and measure the result."""
    out.mkdir(parents=True, exist_ok=True)
    photograph = read_image(example(PHOTOGRAPH))
    still, clip = expose_still(photograph), list(expose_clip(photograph))
    write_inputs(out, still, clip)

    unblur(out, "deploy", preset, "--calibration", "photos", "--synthetic-blur", "-o", bundle)
    unblur(out, "verify", bundle, "--pairs", "pairs")
    unblur(out, "run", bundle, "--source", "still.png", "--sink", "still_restored.png")
    unblur(out, "run", bundle, "--source", "clip.mp4", "--sink", "clip_restored.mp4")

    restored = read_image(out / "still_restored.png")
    before_after(still, restored).save(out / "before_after.png", optimize=True)
    sharp_frames = [exposure.sharp for exposure in clip]
    print_gains(
        {
            "still.png": (psnr_db(still.blurred, still.sharp), psnr_db(restored, still.sharp)),
            f"clip.mp4, mean of {CLIP_FRAMES} frames": (
                mean_psnr_db(out / "clip.mp4", sharp_frames),
                mean_psnr_db(out / "clip_restored.mp4", sharp_frames),
            ),
        }
    )
    print(f"wrote {out / 'before_after.png'}, {out / 'clip_restored.mp4'} and {out / bundle / 'report.html'}")


def example(name: str) -> Path:
    """An image inside the scikit-image package."""
    return Path(str(files("skimage"))) / "data" / name


def expose_still(photograph: Frame) -> Exposure:
    """The whole photograph in one exposure, with the longest path."""
    height, width = photograph.shape[:2]
    return expose(
        photograph,
        camera_path(np.random.default_rng(SEED), SHAKE_PX[1]),
        (MARGIN, MARGIN),
        (height - 2 * MARGIN, width - 2 * MARGIN),
    )


def expose_clip(photograph: Frame) -> Iterator[Exposure]:
    """A camera that pans from the lower left to the upper right, with a new path in every frame."""
    rng = np.random.default_rng(SEED + 1)
    travel = np.array(photograph.shape[:2]) - CLIP_HW - 2 * MARGIN
    for share in np.linspace(0, 1, CLIP_FRAMES):
        top, left = (MARGIN + travel * (1 - share, share)).round().astype(int)
        yield expose(photograph, camera_path(rng, rng.uniform(*SHAKE_PX)), (int(top), int(left)), CLIP_HW)


def expose(
    photograph: Frame, path: NDArray[np.int64], corner: tuple[int, int], size_hw: tuple[int, int]
) -> Exposure:
    """The window of `size_hw` whose upper left is `corner` = (top, left), averaged along `path` and sharp."""

    def window(image: NDArray[Any], top: int, left: int) -> NDArray[Any]:
        return image[top : top + size_hw[0], left : left + size_hw[1]]

    light = (np.arange(256) / 255.0) ** GAMMA
    linear = light.astype(np.float32)[photograph]
    poses, counts = np.unique(corner + path, axis=0, return_counts=True)
    mean = np.average([window(linear, *pose) for pose in poses], axis=0, weights=counts)
    blurred = np.rint(255 * mean ** (1 / GAMMA)).astype(np.uint8)
    return Exposure(blurred, window(photograph, *corner))


def camera_path(rng: np.random.Generator, length_px: float) -> NDArray[np.int64]:
    """A bent line of random direction and curvature: (POSES, 2) in whole pixels, around the origin."""
    along = np.linspace(-0.5, 0.5, POSES)
    across = rng.uniform(-1, 1) * (along**2 - 1 / 12)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    path = length_px * np.stack([along, across], axis=1) @ turn
    return np.asarray(np.rint(path), np.int64)


def write_inputs(out: Path, still: Exposure, clip: Sequence[Exposure]) -> None:
    """Write still.png, clip.mp4, pairs/ for `unblur verify` and photos/ to calibrate on."""
    for folder in ("photos", "pairs/blur", "pairs/sharp"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for name in CALIBRATION:
        (out / "photos" / name).write_bytes(example(name).read_bytes())
    for index in range(0, CLIP_FRAMES, CLIP_FRAMES // VERIFIED_FRAMES):
        write_image(out / "pairs/blur" / f"{index:02}.png", clip[index].blurred)
        write_image(out / "pairs/sharp" / f"{index:02}.png", clip[index].sharp)
    write_image(out / "still.png", still.blurred)
    write_clip(out / "clip.mp4", [exposure.blurred for exposure in clip])


def write_clip(path: Path, frames: Sequence[Frame]) -> None:
    """Write H.264 as a camera would: 8 bits, 4:2:0."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def unblur(folder: Path, *words: str) -> None:
    """Print and run one command in `folder`; a command that fails ends the demo with its exit code."""
    print(f"\n$ unblur {' '.join(words)}", flush=True)
    command = Path(sys.executable).with_name("unblur")
    if code := subprocess.run([command, *words], cwd=folder).returncode:
        sys.exit(code)


def mean_psnr_db(clip: Path, sharp: Sequence[Frame]) -> float:
    """PSNR of each decoded frame against its sharp reference, averaged over the clip, in dB."""
    with av.open(str(clip)) as container:
        frames = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]
    return float(np.mean([psnr_db(frame, other) for frame, other in zip(frames, sharp, strict=True)]))


def psnr_db(frame: Frame, reference: Frame) -> float:
    """Peak signal-to-noise ratio of two 8-bit images, in dB; they differ somewhere."""
    mean_square = np.mean((frame.astype(np.float64) - reference) ** 2)
    return float(10 * np.log10(255**2 / mean_square))


def print_gains(psnrs_db: dict[str, tuple[float, float]]) -> None:
    """Print a table of psnrs_db: name -> (blurred, restored)."""
    table = Table("", "blurred", "restored", "gain", title="\nPSNR against the sharp reference, dB")
    for name, (blurred_db, restored_db) in psnrs_db.items():
        table.add_row(name, f"{blurred_db:.2f}", f"{restored_db:.2f}", f"{restored_db - blurred_db:+.2f}")
    Console(highlight=False).print(table)


def before_after(still: Exposure, restored: Frame) -> Image.Image:
    """Blurred, restored and sharp beside each other, two details of each enlarged below."""
    columns = {
        f"blurred, {psnr_db(still.blurred, still.sharp):.2f} dB": still.blurred,
        f"restored, {psnr_db(restored, still.sharp):.2f} dB": restored,
        "sharp": still.sharp,
    }
    height, width = still.sharp.shape[:2]
    detail = (width - GAP) // len(DETAILS)
    size = (len(columns) * (width + GAP) - GAP, LABEL_HEIGHT + height + GAP + detail)
    strip = Image.new("RGB", size, "white")
    for index, (label, frame) in enumerate(columns.items()):
        left = index * (width + GAP)
        font = ImageFont.load_default(size=24)
        ImageDraw.Draw(strip).text((left + width // 2, LABEL_HEIGHT // 2), label, "black", font, anchor="mm")
        strip.paste(Image.fromarray(frame), (left, LABEL_HEIGHT))
        for place, corner in enumerate(DETAILS):
            enlarged = enlarge(frame, corner, detail)
            strip.paste(enlarged, (left + place * (detail + GAP), LABEL_HEIGHT + height + GAP))
    return strip


def enlarge(frame: Frame, corner: tuple[int, int], side: int) -> Image.Image:
    """The square of DETAIL_SIDE pixels whose upper left is `corner`, `side` pixels wide."""
    top, left = corner
    square = Image.fromarray(frame[top : top + DETAIL_SIDE, left : left + DETAIL_SIDE])
    return square.resize((side, side), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main()
