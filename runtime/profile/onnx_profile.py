"""What ONNX Runtime's own profiler saw while a model ran: the time, operator, types and shapes of every node."""

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from unblur.runtime.onnx_runner import OnnxRunner

_SEED = 5
_NODE = "_kernel_time"  # how the events end that are of a node
_RUN = "model_run"
_TYPES = {"float": "float32", "double": "float64"}  # ONNX's names of types where numpy has others


@dataclass(frozen=True)
class Tensor:
    """kind: type of its elements, as numpy names it."""

    kind: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * np.dtype(self.kind).itemsize

    def __str__(self) -> str:
        return f"{self.kind}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Node:
    """A node as it ran. ms: median over the runs. inputs: weights too, which an optimiser may have padded."""

    name: str
    operator: str
    ms: float
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class OnnxProfile:
    """nodes: in the order in which they ran. between_ms: median of what a run took beyond its nodes."""

    nodes: tuple[Node, ...]
    between_ms: float


def profile_runs(
    path: Path,
    batch_shape: tuple[int, int, int, int],
    *,
    runs: int,
    warm_up: int = 0,
    threads: int | None = None,
    graph_optimization: bool = True,
) -> OnnxProfile:
    """Run a model on random images and tell where its time went.

    warm_up: runs before those that count. threads, graph_optimization: see OnnxRunner. Raises what OnnxRunner
    raises, ValueError for fewer than one run or a shape that the model does not take.
    """
    if runs < 1:
        raise ValueError(f"runs is {runs}, expected at least 1")
    batch = np.random.default_rng(_SEED).random(batch_shape, np.float32)
    with tempfile.TemporaryDirectory(prefix="unblur-") as folder:
        with OnnxRunner(
            path, threads=threads, graph_optimization=graph_optimization, profile_to=Path(folder)
        ) as runner:
            for _ in range(warm_up + runs):
                runner.infer(batch)
        (file,) = Path(folder).iterdir()
        counted = list(_runs(json.loads(file.read_text())))[warm_up:]
    return OnnxProfile(
        nodes=tuple(_node(same) for same in zip(*(events for events, _ in counted), strict=True)),
        between_ms=median(between_ms for _, between_ms in counted),
    )


def _runs(events: Sequence[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], float]]:
    """The events of the nodes of each run, and the ms that it took beyond them."""
    nodes: list[dict[str, Any]] = []
    for event in events:
        if event["name"].endswith(_NODE):
            nodes.append(event)
        elif event["name"] == _RUN:
            yield nodes, (event["dur"] - sum(node["dur"] for node in nodes)) / 1e3
            nodes = []


def _node(events: Sequence[dict[str, Any]]) -> Node:
    """events: of one node, one a run; nodes run in the same order every time."""
    first = events[0]
    return Node(
        name=first["name"].removesuffix(_NODE),
        operator=first["args"]["op_name"],
        ms=median(event["dur"] for event in events) / 1e3,
        inputs=_tensors(first["args"]["input_type_shape"]),
        outputs=_tensors(first["args"]["output_type_shape"]),
    )


def _tensors(raw: Sequence[dict[str, list[int]]]) -> tuple[Tensor, ...]:
    return tuple(Tensor(_TYPES.get(kind, kind), tuple(shape)) for entry in raw for kind, shape in entry.items())
