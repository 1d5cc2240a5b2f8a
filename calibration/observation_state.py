"""How far an observation came, on disk, so that one that was killed goes on instead of starting again."""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from onnx import ModelProto

from unblur.calibration.histogram import Histogram
from unblur.calibration.observed import Observed, Range
from unblur.calibration.onnx_file import onnx_bytes
from unblur.runtime.atomic import atomic_file
from unblur.runtime.errors import CalibrationError
from unblur.runtime.frames import Batch

SCHEMA = 1


@dataclass
class ObservationState:
    """What was seen so far, and of what.

    model: sha256 of the ONNX file. pictures: how many were seen. digest: a sha256 over them, as the network took
    them and in their order, so that another crop, blur, order or picture is noticed.
    """

    model: str
    tensors: tuple[str, ...]
    histograms: bool
    pictures: int = 0
    digest: str = ""
    observed: dict[str, Observed] = field(default_factory=dict)

    @classmethod
    def start(cls, model: ModelProto, tensors: Sequence[str], *, histograms: bool) -> "ObservationState":
        return cls(hashlib.sha256(onnx_bytes(model)).hexdigest(), tuple(tensors), histograms)

    def note(self, batch: Batch) -> None:
        """Count a picture that was seen; float32 (N, 3, H, W)."""
        link = hashlib.sha256(f"{self.digest} {batch.shape}".encode())
        link.update(np.ascontiguousarray(batch).data)
        self.pictures, self.digest = self.pictures + 1, link.hexdigest()

    def resumed(self, path: Path, batches: Iterable[Batch]) -> "ObservationState":
        """The state in the file, after checking that it goes with this run, which has seen nothing yet.

        batches: the pictures from the first on; as many are taken as the state has seen.
        Raises CalibrationError, naming the field, if the state is of another run, or if the file is damaged.
        """
        saved = _read(path)
        for name in ("model", "tensors", "histograms"):
            _check(path, name, getattr(saved, name), getattr(self, name))
        for batch in islice(batches, saved.pictures):
            self.note(batch)
        _check(path, "pictures", saved.digest, self.digest)
        return saved

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        facts = {name: getattr(self, name) for name in ("model", "tensors", "histograms", "pictures", "digest")}
        seen = [self.observed[name] for name in self.tensors]
        histograms = [one.histogram for one in seen if one.histogram is not None]
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                facts=np.array(json.dumps({"schema": SCHEMA, **facts})),
                ranges=np.array([(one.range.lowest, one.range.highest) for one in seen]),
                counts=np.array([histogram.counts for histogram in histograms]),
                tops=np.array([histogram.top for histogram in histograms]),
            )


def _read(path: Path) -> ObservationState:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            facts = json.loads(str(arrays["facts"]))
            _check(path, "schema", facts.pop("schema"), SCHEMA)
            state = ObservationState(**{**facts, "tensors": tuple(facts["tensors"])})
            state.observed = dict(zip(state.tensors, _observed(arrays, state.histograms), strict=True))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CalibrationError(f"{path} is damaged or no saved observation; delete it to start again") from error
    return state


def _observed(arrays: "np.lib.npyio.NpzFile", histograms: bool) -> list[Observed]:
    ranges = [Range(*map(float, pair)) for pair in arrays["ranges"]]
    if not histograms:
        return [Observed(seen) for seen in ranges]
    return [
        Observed(seen, Histogram(counts, float(top)))
        for seen, counts, top in zip(ranges, arrays["counts"], arrays["tops"], strict=True)
    ]


def _check(path: Path, name: str, found: object, expected: object) -> None:
    if found != expected:
        raise CalibrationError(
            f"{path} was saved by another observation: its '{name}' is {_short(found)}, "
            f"expected {_short(expected)}; delete it to start again"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:16]}..."
