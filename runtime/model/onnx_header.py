"""What an ONNX file is made of, read without the onnx package: operators, types of the weights, external data.

An ONNX file is one protobuf message; only the fields asked for are decoded, and weights are skipped.
Field numbers: onnx.proto3 (ModelProto.graph 7; GraphProto.node 1, initializer 5; NodeProto.op_type 4, attribute 5;
AttributeProto.t 5, g 6, tensors 10, graphs 11; TensorProto.data_type 2, raw_data 9, external_data 13;
StringStringEntryProto.key 1, value 2).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FLOAT, _FLOAT16 = 1, 10  # TensorProto.DataType

Fields = Iterator[tuple[int, int, memoryview]]


@dataclass(frozen=True)
class OnnxHeader:
    """operators: types of the nodes. half: whether most float weights are float16. external: files of weights."""

    operators: frozenset[str]
    half: bool
    external: tuple[str, ...]


def read_header(path: Path) -> OnnxHeader:
    """ValueError if the file is not a protobuf message."""
    found = _Found()
    for number, _, graph in _fields(memoryview(path.read_bytes())):
        if number == 7:
            found.read_graph(graph)
    half = found.weights.get(_FLOAT16, 0) > found.weights.get(_FLOAT, 0)
    return OnnxHeader(frozenset(found.operators), half, tuple(found.external))


@dataclass
class _Found:
    """In a graph and in those that its nodes hold. weights: type -> elements. external: in order, as keys."""

    operators: set[str] = field(default_factory=set)
    weights: dict[int, int] = field(default_factory=dict)
    external: dict[str, None] = field(default_factory=dict)

    def read_graph(self, graph: memoryview) -> None:
        for number, _, item in _fields(graph):
            if number == 1:
                self._read_node(item)
            elif number == 5:
                self._read_tensor(item)

    def _read_node(self, node: memoryview) -> None:
        for number, _, item in _fields(node):
            if number == 4:
                self.operators.add(str(item, "utf-8"))
            elif number == 5:
                self._read_attribute(item)

    def _read_attribute(self, attribute: memoryview) -> None:
        for number, _, item in _fields(attribute):
            if number in (5, 10):
                self._read_tensor(item)
            elif number in (6, 11):
                self.read_graph(item)

    def _read_tensor(self, tensor: memoryview) -> None:
        data_type, elements, locations = _tensor(tensor)
        self.weights[data_type] = self.weights.get(data_type, 0) + elements
        self.external.update(dict.fromkeys(locations))


def missing_data(path: Path) -> str | None:
    """The first file of external data that an ONNX file names and that is not beside it."""
    try:
        header = read_header(path)
    except ValueError:  # who opens it says what is wrong
        return None
    return next((name for name in header.external if not (path.parent / name).is_file()), None)


def _tensor(data: memoryview) -> tuple[int, int, list[str]]:
    """(data type, elements, files of external data)"""
    data_type, elements, locations = 0, 1, []
    for number, integer, value in _fields(data):
        if number == 2:
            data_type = integer
        elif number == 1 and len(value) == 0:
            elements *= integer
        elif number == 1:  # packed
            for _, side in _varints(value):
                elements *= side
        elif number == 13:
            entry = {field: str(text, "utf-8") for field, _, text in _fields(value)}
            if entry.get(1) == "location":
                locations.append(entry.get(2, ""))
    return data_type, elements, locations


def _fields(data: memoryview) -> Fields:
    """(field number, the value of a varint, the bytes of anything else) for each field of a message."""
    position = 0
    while position < len(data):
        position, tag = _varint(data, position)
        kind, integer, value = tag & 7, 0, data[:0]
        if kind == _VARINT:
            position, integer = _varint(data, position)
        elif kind == _BYTES:
            position, length = _varint(data, position)
            value, position = data[position : position + length], position + length
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {position}")
        if position > len(data):
            raise ValueError("it ends within a field")
        yield tag >> 3, integer, value


def _varints(data: memoryview) -> Iterator[tuple[int, int]]:
    position = 0
    while position < len(data):
        position, value = _varint(data, position)
        yield position, value


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """(the position behind it, its value)"""
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return position, value
    raise ValueError("it ends within a number")
