"""The demo, `make demo`: how much of what a shaking camera took away the shipped model gives back.

    python docs/demo.py --preset lprn-s --output demo

A photograph that ships with scikit-image is moved along random camera paths and integrated, which gives a blurred
still and a blurred clip whose sharp pictures are known. The commands of the README deploy the model, verify the
bundle and restore both. All of it stays in the folder, with `before_after.png`; the PSNR is printed at the end.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from unblur.runtime.blur import shake_frame
from unblur.runtime.files import atomic_file
from unblur.runtime.frames import Frame
from unblur.runtime.images import read_image, write_image
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame
from unblur.runtime.media.open_media import open_sink, open_source
from unblur.runtime.metrics import psnr_db

PHOTOGRAPH = "astronaut.png"  # NASA, public domain; 512 x 512
CALIBRATION = ("chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")  # never the one that is restored
SEED = 0
SHAKE_PX = (4.0, 12.0)  # a hand: 1 to 2.5 percent of the width
MARGIN = 16  # what a shake brings in from outside the photograph is not known, so it is cut off
CLIP_HW = (384, 448)
CLIP_FRAMES = 24
RATE = Fraction(12)
VERIFIED_FRAMES = 4
DETAILS = ((50, 140), (310, 240))  # (top, left) in the still of the two enlarged squares: a face, a name tag
DETAIL_SIDE = 120
GAP = 8
LABEL_HEIGHT = 40


@dataclass(frozen=True)
class Exposure:
    """What the camera saw, uint8 (H, W, 3), and what it should have seen."""

    blurred: Frame
    sharp: Frame


def main() -> None:
    """Run the demo in the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Deploy a model, restore a shaken still and clip with it.")
    parser.add_argument("--preset", default="lprn-s", help="a shipped preset, or the path of a checkpoint")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for everything that is made")
    arguments = parser.parse_args()
    checkpoint = Path(arguments.preset)
    preset = str(checkpoint.resolve()) if checkpoint.is_file() else arguments.preset
    demonstrate(preset, f"{checkpoint.stem}.unblur", arguments.output)


def demonstrate(preset: str, bundle: str, out: Path) -> None:
    """Make the blurred pictures in `out`, restore them by the commands a user would type, and measure."""
    out.mkdir(parents=True, exist_ok=True)
    photograph = read_image(example(PHOTOGRAPH))
    still, clip = expose_still(photograph), list(expose_clip(photograph))
    write_inputs(out, still, clip)

    unblur(out, "deploy", preset, "--calibration", "photos", "--synthetic-blur", "-o", bundle)
    unblur(out, "verify", bundle, "--pairs", "pairs")
    unblur(out, "run", bundle, "--source", "still.png", "--sink", "still_restored.png")
    unblur(out, "run", bundle, "--source", "clip.mp4", "--sink", "clip_restored.mp4")

    restored = read_image(out / "still_restored.png")
    picture = before_after(still, restored)
    with atomic_file(out / "before_after.png") as temporary:
        picture.save(temporary, optimize=True)
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
    """A picture inside the scikit-image package."""
    return Path(str(files("skimage"))) / "data" / name


def expose_still(photograph: Frame) -> Exposure:
    """The whole photograph under one shake."""
    height, width = photograph.shape[:2]
    return expose(
        photograph, np.random.default_rng(SEED), (MARGIN, MARGIN), (height - 2 * MARGIN, width - 2 * MARGIN)
    )


def expose_clip(photograph: Frame) -> Iterator[Exposure]:
    """A camera that pans from the lower left to the upper right and shakes anew in every frame."""
    rng = np.random.default_rng(SEED + 1)
    travel = np.array(photograph.shape[:2]) - CLIP_HW - 2 * MARGIN
    for share in np.linspace(0, 1, CLIP_FRAMES):
        top, left = (MARGIN + travel * (1 - share, share)).round().astype(int)
        yield expose(photograph, rng, (int(top), int(left)), CLIP_HW)


def expose(
    photograph: Frame, rng: np.random.Generator, corner: tuple[int, int], size_hw: tuple[int, int]
) -> Exposure:
    """The window of `size_hw` whose upper left is `corner` = (top, left), shaken and still."""
    (top, left), (height, width) = corner, size_hw
    window = (slice(top, top + height), slice(left, left + width))
    return Exposure(shake_frame(photograph, rng, rng.uniform(*SHAKE_PX))[window], photograph[window])


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
    info = MediaInfo(example(PHOTOGRAPH), "folder", CLIP_HW, len(frames), RATE, 1 / RATE)
    with open_sink(str(path), info) as sink:
        for index, frame in enumerate(frames):
            sink.write(TimedFrame(frame, index / RATE, 1 / RATE))
        sink.finish(complete=True)


def unblur(folder: Path, *words: str) -> None:
    """Run one command in `folder`, showing it; a command that fails ends the demo with its exit code."""
    print(f"\n$ unblur {' '.join(words)}", flush=True)
    command = Path(sys.executable).with_name("unblur")
    if code := subprocess.run([command, *words], cwd=folder).returncode:
        sys.exit(code)


def mean_psnr_db(clip: Path, sharp: Sequence[Frame]) -> float:
    """PSNR of each decoded frame against its sharp reference, averaged over the clip, in dB."""
    with open_source(str(clip)) as source:
        return float(np.mean([psnr_db(frame.rgb, other) for frame, other in zip(source, sharp, strict=True)]))


def print_gains(psnrs_db: dict[str, tuple[float, float]]) -> None:
    """A line for each name of (blurred, restored)."""
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
