"""Frozen dataclasses <-> JSON, strictly: no field may be missing, unknown or of another type.

Fields may be bool, int, float, str, a Literal, `X | None`, `tuple[X, ...]`, `Mapping[str, X]`, a dataclass, a
ModelSpec, or `object` for any JSON. JSON has no infinite numbers and no NaN; they are written as the strings "inf",
"-inf" and "nan".
"""

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from unblur.runtime.spec import ModelSpec

T = TypeVar("T")

_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def to_json(value: object) -> object:
    """A dataclass, or what it is made of, as dicts, lists and scalars that `json.dumps` takes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def from_json(kind: type[T], raw: object, where: str) -> T:
    """Build a `kind` from parsed JSON.

    where: what is read, for messages. Raises ValueError that names the first field at fault, e.g.
    "x.json: files.fp32.onnx.bytes is '12', expected int".
    """
    value: T = _read(kind, raw, f"{where}: ", "")
    return value


def _read(kind: Any, raw: Any, where: str, path: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is ModelSpec:
        return ModelSpec.from_dict(raw, where=f"{where}{path}")
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, raw, where, path)
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if raw is None else _read(inner, raw, where, path)
    if origin is tuple:
        items = _expect(list, raw, where, path)
        return tuple(_read(arguments[0], item, where, f"{path}[{i}]") for i, item in enumerate(items))
    if origin is not None and origin is not Literal:
        items = _expect(dict, raw, where, path)
        return {key: _read(arguments[1], item, where, _join(path, key)) for key, item in items.items()}
    return _read_scalar(kind, raw, where, path)


def _read_dataclass(kind: Any, raw: Any, where: str, path: str) -> Any:
    fields = _expect(dict, raw, where, path)
    hints = get_type_hints(kind)
    for name in sorted(hints.keys() ^ fields.keys()):
        problem = "is missing" if name in hints else "is not a field of this version"
        raise ValueError(f"{where}{_join(path, name)} {problem}")
    return kind(**{name: _read(hint, fields[name], where, _join(path, name)) for name, hint in hints.items()})


def _read_scalar(kind: Any, raw: Any, where: str, path: str) -> Any:
    if kind is object:
        return raw
    if get_origin(kind) is Literal:
        if raw not in get_args(kind):
            raise ValueError(f"{where}{path} is {raw!r}, expected one of {', '.join(map(repr, get_args(kind)))}")
        return raw
    if kind is float:
        if isinstance(raw, str) and raw in _NOT_FINITE:
            return _NOT_FINITE[raw]
        if type(raw) is int:
            return float(raw)
    return _expect(kind, raw, where, path)


def _expect(kind: type, raw: Any, where: str, path: str) -> Any:
    if type(raw) is not kind:  # not isinstance: True is an int
        raise ValueError(f"{where}{path or 'the document'} is {raw!r}, expected {kind.__name__}")
    return raw


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
