"""Where ONNX Runtime's factors in `export/estimate/method.py` come from: the shares of the peaks that layers reach.

    python -m benchmarks.estimate_fit --folder exports

Profiles the presets of the fit, layer by layer, and prints for each kind of layer which share of this CPU's peaks
it reaches: of the peak operations where it multiplies, of the peak bytes elsewhere. The slow end of the estimate is
near the tenth percentile, the fast end near the ninetieth, weighted by time; `benchmarks.estimate` judges them by
the other presets.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.estimate_presets import FITTED, exported, side_of
from benchmarks.parts import run, say
from unblur.export.estimate.graph import KINDS, Kind
from unblur.export.estimate.kernels import MULTIPLYING
from unblur.runtime.profile.layers import Layer
from unblur.runtime.profile.layers_onnx import BETWEEN, onnx_layers
from unblur.runtime.profile.roofline import Peaks, measure_peaks

_LEVELS = (0.1, 0.5, 0.9)
_ONLY_HERE: Mapping[str, Kind] = {
    "FusedConv": "convolution",
    "FusedMatMul": "product",
    "ReorderInput": "movement",
    "ReorderOutput": "movement",
    "Upsample": "resize",
}
"""Operators that ONNX Runtime makes itself."""


def main(
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="Of each preset; the median counts.")] = 5,
    folder: Annotated[Path | None, typer.Option(help="Keep the exports here, for the next time.")] = None,
) -> None:
    """Print the shares by kind, and what a run takes between its layers."""
    peaks = measure_peaks(threads)
    say(f"peaks: {peaks.gflops['fp32']:.0f} GFLOP/s, {peaks.gbytes_per_s:.1f} GB/s, {peaks.source}")
    layers: list[Layer] = []
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as kept:
        for name, path in list(exported(sorted(FITTED), Path(kept))):  # exports would disturb the clock
            side = side_of(name)
            layers += onnx_layers(path, (1, 3, side, side), threads=threads, runs=runs)
            say(f"profiled {name} at {side}")
    print(f"{'kind':14} layers       ms   {'   '.join(f'{level:.0%}' for level in _LEVELS)}")
    by_kind: dict[Kind, list[Layer]] = {}
    for layer in layers:
        if layer.name != BETWEEN and layer.ms:
            by_kind.setdefault(_kind(layer), []).append(layer)
    for kind, members in sorted(by_kind.items()):
        print(_line(kind, members, peaks))
    between = [layer.ms or 0.0 for layer in layers if layer.name == BETWEEN]
    print(f"between layers: {1e3 * sum(between) / (len(layers) - len(between)):.1f} us a layer")


def _line(kind: Kind, layers: Sequence[Layer], peaks: Peaks) -> str:
    times = np.array([layer.ms for layer in layers])
    work = np.array([layer.flops if kind in MULTIPLYING else layer.bytes for layer in layers]) / 1e6
    shares = work / times / (peaks.gflops["fp32"] if kind in MULTIPLYING else peaks.gbytes_per_s)
    order = np.argsort(shares)
    until = np.cumsum(times[order]) / times.sum()
    quantiles = [shares[order][np.searchsorted(until, level)] for level in _LEVELS]
    return f"{kind:14} {len(layers):6} {times.sum():8.1f}  {'  '.join(f'{share:.2f}' for share in quantiles)}"


def _kind(layer: Layer) -> Kind:
    kind = _ONLY_HERE.get(layer.operator) or KINDS.get(layer.operator, "elementwise")
    read, *others = [[int(side) for side in re.findall(r"\d+", text.partition("[")[2])] for text in layer.inputs]
    written = [int(side) for side in re.findall(r"\d+", layer.outputs[0].partition("[")[2])]
    if kind == "convolution" and others and read[1] > others[0][1]:
        return "grouped"
    if kind == "reduction" and written[-2:] != read[-2:]:
        return "pooling"
    return kind


if __name__ == "__main__":
    run(main)
