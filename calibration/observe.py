"""Run a network on calibration pictures and see what values its tensors take.

One picture is in memory at a time, its activations in groups of limited size, so memory does not depend on how many
pictures there are. ONNX Runtime's own calibrators keep the activations of all of them.

Minimum and maximum are not taken inside the graph. ONNX Runtime runs added reductions after everything else, so all
tensors stay in memory until then (lprn-s on 1024 x 1024: a peak of 819 MiB, of 481 MiB when they are fetched).
Besides, its ReduceMin and ReduceMax pass over NaN.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from unblur.calibration.graph_view import keep_only
from unblur.calibration.observation import Histogram, ObservationState, Observed, Range
from unblur.calibration.onnx_model import CPU, OnnxModel, open_session
from unblur.runtime.errors import CalibrationError, DeviceError
from unblur.runtime.frames import Batch

__all__ = ["Kind", "Observed", "Range", "observe"]

Kind = Literal["ranges", "histograms"]
Activation = NDArray[np.float32]

_GROUP_BYTES = 512 * 2**20
_PROBE_CELLS = 16  # side of the picture that sizes are measured on, in units of the model's multiple
_SAVE_EVERY = 4  # pictures


def observe(
    model: OnnxModel,
    tensors: Sequence[str],
    batches: Iterable[Batch],
    *,
    kind: Kind,
    names: Sequence[str] | None = None,
    progress: Callable[[], object] | None = None,
    state: Path | None = None,
    providers: Sequence[str] = CPU,
) -> dict[str, Observed]:
    """Run an fp32 graph on every batch and give what was seen of each of `tensors` over all of them.

    batches: float32 (N, 3, H, W), read one at a time, sizes may differ. names: of the pictures, for messages.
    progress: called once a batch. state: a file to save to every few pictures; where it is there already, the run
        goes on after the pictures it holds, which are read again to see that they are the same. It stays when all
        is done; the caller removes it. providers: of ONNX Runtime, the first one that has an operator runs it.
    Raises CalibrationError if there are no batches, if a tensor is not finite or the state is of another run,
    DeviceError if ONNX Runtime lacks a provider.
    """
    network = _Network(model, tensors, providers)
    run = ObservationState.start(model, tensors, histograms=kind == "histograms")
    pictures = _counted(batches, progress)
    if state is not None and state.exists():
        run = run.resumed(state, pictures)
    for batch in pictures:
        for name, values in network.activations(batch):
            run.observed[name] = _look(name, values, run, names)
        run.note(batch)
        if state is not None and run.pictures % _SAVE_EVERY == 0:
            run.save(state)
    if run.pictures == 0:
        raise CalibrationError("no calibration pictures were given; INT8 needs some to measure the ranges")
    if state is not None:
        run.save(state)
    return {name: run.observed[name] for name in tensors}


def _look(name: str, values: Activation, run: ObservationState, names: Sequence[str] | None) -> Observed:
    """What was seen of a tensor, `values` included."""
    seen = Range.of(values)
    if not seen.finite:
        picture = f"{run.pictures + 1}" + (f" ({names[run.pictures]})" if names else "")
        raise CalibrationError(
            f"tensor '{name}' is not finite on calibration picture {picture}; "
            "the weights are damaged or the training diverged"
        )
    before = run.observed.get(name)
    if before is None:
        before = Observed(seen, Histogram() if run.histograms else None)
    if before.histogram is not None:
        before.histogram.add(values)
    return Observed(before.range.union(seen), before.histogram)


def _counted(batches: Iterable[Batch], progress: Callable[[], object] | None) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        if progress is not None:
            progress()


class _Network:
    """Gives the values of inner tensors, in groups of at most `_GROUP_BYTES`.

    A group has its own session, of the graph cut off behind it, opened anew for each picture unless there is only
    one; a second group computes again what the first one needed.
    """

    def __init__(self, model: OnnxModel, tensors: Sequence[str], providers: Sequence[str]) -> None:
        _check_providers(providers)
        self._model, self._tensors, self._providers = model, tuple(dict.fromkeys(tensors)), list(providers)
        self._probe_side = _PROBE_CELLS * model.spec.multiple_of
        self._bytes_per_pixel: list[float] = []
        self._group: tuple[str, ...] = ()
        self._session: onnxruntime.InferenceSession | None = None

    def activations(self, batch: Batch) -> Iterator[tuple[str, Activation]]:
        """Every tensor with its values on the batch; a value is freed once the next one is asked for."""
        for group in self._groups(batch):
            values = self._session_for(group).run(list(group), self._feed(batch))
            for name in reversed(group):
                yield name, values.pop()

    def _groups(self, batch: Batch) -> list[tuple[str, ...]]:
        pixels = batch.size // batch.shape[1]
        groups: list[list[str]] = [[]]
        used = 0.0
        for name, per_pixel in zip(self._tensors, self._sizes(batch), strict=True):
            size = per_pixel * pixels
            if groups[-1] and used + size > _GROUP_BYTES:
                groups.append([])
                used = 0.0
            groups[-1].append(name)
            used += size
        return [tuple(group) for group in groups]

    def _sizes(self, batch: Batch) -> list[float]:
        """Bytes per pixel of the picture, measured on a corner of the first one."""
        if not self._bytes_per_pixel:
            side = None if self._model.spec.fixed_hw else self._probe_side
            corner = np.ascontiguousarray(batch[:1, :, :side, :side])
            pixels = corner.shape[2] * corner.shape[3]
            values = self._session_for(self._tensors).run(list(self._tensors), self._feed(corner))
            self._bytes_per_pixel = [value.nbytes / pixels for value in values]
        return self._bytes_per_pixel

    def _feed(self, batch: Batch) -> dict[str, NDArray[np.floating]]:
        return {self._model.input: self._model.network_values(batch)}

    def _session_for(self, group: tuple[str, ...]) -> onnxruntime.InferenceSession:
        if self._session is None or group != self._group:
            self._session = None  # its arena holds the memory of a picture, which the next one needs
            self._session = open_session(cut(self._model, group), providers=self._providers)
            self._group = group
        return self._session


def _check_providers(providers: Sequence[str]) -> None:
    missing = [name for name in providers if name not in onnxruntime.get_available_providers()]
    if missing:
        raise DeviceError(
            f"onnxruntime {onnxruntime.__version__} has no {missing[0]}, it has "
            f"{', '.join(onnxruntime.get_available_providers())}"
        )


def cut(model: OnnxModel, tensors: Sequence[str]) -> ModelProto:
    """The part of a graph that computes `tensors`, with these as its outputs."""
    part = model.copied()
    keep_only(part.graph, tensors)
    for name in tensors:
        part.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return part
