"""How much a checkpoint restores: PSNR on real frames and on shaken photographs, for every step of a recursion.

    python -m benchmarks.quality lprn-s --data ../shared/data
    python -m benchmarks.quality runs/s/lprn-s.safetensors --data ../shared/data --decide

DATA holds gopro_test (three public pairs) and stills_test (Kodak's 24 photographs). The photographs are shaken with
a fixed seed, once for each range of blur: 4 to 8, 8 to 16 and 16 to 30 px. With --decide the sets are those
held out of training to choose by, and the test sets are not touched: the last 8 pairs of gopro_train, the pairs
GOPR0374 of pairs_train, and the last 20 photographs of stills_more.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.command import Json, log, print_report, run
from benchmarks.figures import Figure, Report
from unblur.runtime.blur import from_light, to_light
from unblur.runtime.frames import Frame, Padding, batch_from_frame, frame_from_batch
from unblur.runtime.images import list_images, read_image
from unblur.runtime.metrics import psnr_db
from unblur.runtime.quality.pairs import find_pairs, read_pair
from unblur.train.checkpoint import load_checkpoint, resolve_checkpoint
from unblur.train.motion import exposed, random_motion
from unblur.train.networks import DeblurringNetwork

NamedPairs = Iterator[tuple[str, Frame, Frame]]

BLUR_PX = ((4, 8), (8, 16), (16, 30))
_SEED = 20
_STEP_GAIN_DB = 0.1
_ASKED_DB: Mapping[str, Mapping[str, float]] = {
    "lprn-s": {"gopro_test": 1.2, "shaken 4 to 8 px": 2.0, "shaken 8 to 16 px": 1.2, "shaken 16 to 30 px": 0.6},
    "lprn-n": {"gopro_test": 0.7},
}
"""By preset and set: the gain to reach in dB."""


def main(
    weights: Annotated[str, typer.Argument(help="A checkpoint or a shipped preset.")],
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")] = Path("../shared/data"),
    decide: Annotated[bool, typer.Option("--decide", help="On the held-out sets, not on the test sets.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Recursion steps; default the checkpoint's.")] = None,
    json: Json = False,
) -> None:
    """Print the gain of every set, and of every frame of the real ones; exit 1 if a bound is missed."""
    network = load_checkpoint(resolve_checkpoint(weights), steps=steps)
    asked = {} if decide else _ASKED_DB.get(network.spec.preset, {})
    figures, details = list[Figure](), {}
    for name, pairs in (decision_sets(data) if decide else test_sets(data)).items():
        rows = {frame: _psnrs_db(network, blurred, sharp) for frame, blurred, sharp in pairs}
        details[name] = rows
        figures += _figures(name, rows, asked.get(name))
        log(f"{name}: {figures[-1].value:+.2f} dB")
    print_report(Report("quality", tuple(figures), {"spec": network.spec, "psnr_db": details}), json=json)


def test_sets(data: Path) -> dict[str, NamedPairs]:
    """Set -> (frame, blurred, sharp)."""
    photographs = list_images(data / "stills_test")
    shaken = {f"shaken {low} to {high} px": _shaken(photographs, low, high) for low, high in BLUR_PX}
    return {"gopro_test": _real(data / "gopro_test"), **shaken}


def decision_sets(data: Path) -> dict[str, NamedPairs]:
    """As `test_sets`."""
    return {
        "GOPR0372": _real(data / "gopro_train", last=8),
        "GOPR0374": _real(data / "pairs_train", containing="GOPR0374"),
        "shaken 4 to 30 px": _shaken(list_images(data / "stills_more")[-20:], 4, 30),
    }


def _real(folder: Path, last: int = 0, containing: str = "") -> NamedPairs:
    for pair in [pair for pair in find_pairs(folder) if containing in pair.name][-last:]:
        yield (pair.name, *read_pair(pair))


def _shaken(photographs: list[Path], low_px: float, high_px: float) -> NamedPairs:
    """Each photograph under a camera motion of its own, in linear light, without noise."""
    for number, path in enumerate(photographs):
        rng = np.random.default_rng([_SEED, number, int(low_px)])
        sharp = read_image(path)
        motion = random_motion(rng, (sharp.shape[0], sharp.shape[1]), float(rng.uniform(low_px, high_px)))
        yield path.stem, from_light(exposed(to_light(sharp), motion)), sharp


def _psnrs_db(network: DeblurringNetwork, blurred: Frame, sharp: Frame) -> list[float]:
    """Of the blurred frame and of each restoration, whole frames of 8 bits."""
    padding = Padding.to_multiple((sharp.shape[0], sharp.shape[1]), network.spec.multiple_of)
    with torch.inference_mode():
        outputs = network.restorations(torch.from_numpy(batch_from_frame(blurred, padding)))
    restored = map(partial(frame_from_batch, padding=padding), (output.numpy() for output in outputs))
    return [psnr_db(frame, sharp) for frame in (blurred, *restored)]


def _figures(name: str, rows: Mapping[str, list[float]], asked: float | None) -> Iterator[Figure]:
    """The gain of every frame of a small set, of each further step, and of the mean."""
    if len(rows) < 10:
        for frame, psnrs in rows.items():
            named = f"{name}, {frame}: {psnrs[0]:.2f} to {psnrs[-1]:.2f}"
            yield Figure(named, "dB", psnrs[-1] - psnrs[0], "higher")
    means = np.mean(list(rows.values()), axis=0)
    for step in range(2, len(means)):
        gain_db = float(means[step] - means[step - 1])
        yield Figure(f"{name}, gain of step {step}", "dB", gain_db, "higher", asked=_STEP_GAIN_DB)
    mean_name = f"{name}, mean of {len(rows)}: {means[0]:.2f} to {means[-1]:.2f}"
    yield Figure(mean_name, "dB", float(means[-1] - means[0]), "higher", asked=asked)


if __name__ == "__main__":
    run(main)
