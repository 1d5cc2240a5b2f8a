"""Every preset as a graph with random weights, which its time does not depend on, and the size to run it at."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from unblur.calibration.onnx_file import write_onnx
from unblur.export.onnx_from_checkpoint import onnx_from_network
from unblur.train.networks import PRESETS, build_network
from unblur.train.networks.base import gflop

FITTED = frozenset(sorted(PRESETS)[::2])
"""The presets that the factors of `estimate.method` were fitted on; the others were left out to judge them by."""

_MOST_GFLOP = 60.0
_SIDES = (256, 128, 64)


def exported(presets: Sequence[str], folder: Path, processes: int = 2) -> Iterator[tuple[str, Path]]:
    """Name and file of each preset, as soon as it is there; a file that is in `folder` already is taken."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield from zip(presets, pool.map(_export, presets, [folder] * len(presets)), strict=True)


def side_of(preset: str) -> int:
    """The largest of 256, 128 and 64 pixels at which a frame takes about a second or less on two cores."""
    network = build_network(preset)
    multiple = network.spec.multiple_of
    fitting = [side for side in _SIDES if side % multiple == 0]
    return next((side for side in fitting if gflop(network, (side, side)) <= _MOST_GFLOP), fitting[-1])


def _export(preset: str, folder: Path) -> Path:
    path = folder / f"{preset}.onnx"
    if not path.is_file():
        torch.set_num_threads(1)
        torch.manual_seed(0)
        write_onnx(path, onnx_from_network(build_network(preset).eval()))
    return path
