"""Our ONNX files: what is read is checked to be ours, what is written has the same bytes every time."""

from graphlib import TopologicalSorter
from pathlib import Path

from google.protobuf.message import DecodeError, Message
from onnx import GraphProto, ModelProto

from unblur.runtime.atomic import atomic_file
from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.runner import Precision
from unblur.runtime.spec import PRECISION_KEY, SPEC_KEY, ModelSpec

PRODUCER = "unblur"


def read_onnx(path: Path) -> ModelProto:
    """Parse an ONNX file that unblur wrote, weights included.

    Raises BadInput if it is missing, empty or no ONNX, SpecMismatch if it does not carry a model spec.
    """
    if not path.is_file():
        raise BadInput(f"{path} does not exist; expected an .onnx file from `unblur export`")
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise BadInput(f"{path} is damaged or not an ONNX file: {error}") from error
    if not model.graph.node:
        raise BadInput(f"{path} is empty or not an ONNX file: it holds no nodes")
    spec_of(model, where=str(path))
    return model


def check_onnx_name(path: Path) -> None:
    """BadInput unless a model written to `path` will be recognised by its suffix."""
    if path.suffix != ".onnx":
        raise BadInput(f"cannot write a model to {path}; its name ends in .onnx")


def write_onnx(path: Path, model: ModelProto) -> None:
    """Write `model`, whole or not at all; equal models give equal bytes."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(onnx_bytes(model))


def onnx_bytes(model: ModelProto) -> bytes:
    """The file contents of `model`; equal models give equal bytes."""
    contents: bytes = model.SerializeToString(deterministic=True)
    return contents


def spec_of(model: ModelProto, *, where: str = "the ONNX model") -> ModelSpec:
    """The model spec in the metadata; SpecMismatch, naming `where`, if there is none."""
    text = _metadata(model).get(SPEC_KEY)
    if text is None:
        raise SpecMismatch(
            f"{where} carries no model spec ({SPEC_KEY}); export the network with `unblur export`, "
            "a foreign ONNX does not say how it wants to be fed"
        )
    return ModelSpec.from_json(text, where=where)


def precision_of(model: ModelProto) -> str:
    """What `unblur.precision` says: "fp32", "fp16" or "int8"; "unknown" if it is absent."""
    return _metadata(model).get(PRECISION_KEY, "unknown")


def describe(model: ModelProto, spec: ModelSpec, precision: Precision) -> None:
    """Replace the metadata and the producer of `model` by ours."""
    del model.metadata_props[:]
    for key, value in sorted({SPEC_KEY: spec.to_json(), PRECISION_KEY: precision}.items()):
        model.metadata_props.add(key=key, value=value)
    model.producer_name = PRODUCER
    for field in ("producer_version", "domain", "model_version", "doc_string"):
        model.ClearField(field)


def strip_provenance(message: Message) -> None:
    """Remove notes of the tools that built the graph: stack traces with file paths, documentation strings, inferred
    shapes.

    None of them changes what is computed, and with them one network would give other bytes on another machine.
    """
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string", "value_info"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for child in value if field.is_repeated else [value]:
                strip_provenance(child)


def sort_nodes(graph: GraphProto) -> None:
    """Put every node after the nodes it reads from, as ONNX demands; editors append their new nodes at the end."""
    producer = {output: index for index, node in enumerate(graph.node) for output in node.output}
    reads = {
        index: [producer[name] for name in node.input if name in producer] for index, node in enumerate(graph.node)
    }
    nodes = [graph.node[index] for index in TopologicalSorter(reads).static_order()]
    del graph.node[:]
    graph.node.extend(nodes)


def _metadata(model: ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}
