"""A checkpoint -> an fp32 ONNX graph with dynamic batch, height and width.

The recursion is unrolled; every step refers to the same initialisers, so the weights are stored once however many
steps there are.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from onnx import ModelProto, ValueInfoProto
from torch.export import Dim

from unblur.calibration.onnx_file import describe, strip_provenance
from unblur.export.naming import name_layers
from unblur.train.checkpoint import load_network
from unblur.train.networks import DeblurringNetwork

OPSET = 20
INPUT = "blurred"
OUTPUT = "restored"
_AXES = ("batch", None, "height", "width")
_EXAMPLE_MULTIPLES = (2, 3, 4)  # batch, height, width: all different and above 1, so that none is taken as fixed


def onnx_from_checkpoint(path: Path, *, steps: int | None = None) -> ModelProto:
    """Export the network of a checkpoint. steps: run the same weights for another number of recursion steps.

    Raises BadInput or SpecMismatch for a checkpoint that cannot be used.
    """
    return onnx_from_network(load_network(path, steps=steps))


def onnx_from_network(network: DeblurringNetwork) -> ModelProto:
    """Export a network in eval mode; the spec goes into the metadata."""
    multiple = network.spec.multiple_of
    batch, rows, columns = _EXAMPLE_MULTIPLES
    example = next(network.parameters()).new_zeros((batch, 3, rows * multiple, columns * multiple))
    with _quiet():
        program = torch.onnx.export(
            network.folded(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: Dim("batch"), 2: multiple * Dim("rows"), 3: multiple * Dim("columns")},),
            verbose=False,
        )
    if program is None:
        raise TypeError("torch.onnx.export gave no program although no file was asked for")
    model: ModelProto = program.model_proto
    name_layers(model.graph, network)
    strip_provenance(model)
    for value in (*model.graph.input, *model.graph.output):
        _name_axes(value)
    describe(model, network.spec, "fp32")
    return model


def _name_axes(value: ValueInfoProto) -> None:
    """Call the dynamic axes batch, height and width, where the exporter writes "16*rows"."""
    for dimension, name in zip(value.type.tensor_type.shape.dim, _AXES, strict=True):
        if name is not None:
            dimension.dim_param = name


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says about its own internals; its errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
