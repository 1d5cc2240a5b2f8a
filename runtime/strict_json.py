"""Frozen dataclasses <-> JSON, strictly: no field may be missing, unknown or of another type.

Fields may be bool, int, float, str, a union of those, a Literal, `X | None`, `tuple[X, ...]`, `tuple[X, Y]`,
`Mapping[str, X]`, a dataclass, or `object` for any JSON. A dataclass with `to_dict()` is written by it, and one
with a class method `from_dict(raw, where=...)` is read by it where it is nested. JSON has no infinite numbers or
NaN: they are written as the strings "inf", "-inf" and "nan".
"""

import dataclasses
import json
import math
import sys
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def to_json(value: object) -> object:
    """A dataclass, or what it is made of, as dicts, lists and scalars that `json.dumps` takes."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def parse_json(text: str | bytes) -> Any:
    """What `json.loads` gives; ValueError also for a document that is nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_document(kind: type[T], text: str | bytes, where: str, *, schema: int) -> T:
    """Parse a JSON text, check its field "schema" and build a `kind`, which need not have that field.

    where: the file, for messages. Raises ValueError, e.g. "x.json has schema 2, this version of unblur reads 1".
    """
    try:
        raw = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({error})") from error
    check_schema(raw, where, schema)
    if "schema" not in get_type_hints(kind):
        del raw["schema"]
    return from_json(kind, raw, where)


def check_schema(raw: object, where: str, schema: int) -> None:
    """Raise ValueError unless `raw` is a JSON object of that schema."""
    found = raw.get("schema") if isinstance(raw, dict) else None
    if found != schema:
        raise ValueError(f"{where} has schema {found!r}, this version of unblur reads {schema}")


def from_json(kind: type[T], raw: object, where: str) -> T:
    """Build a `kind` from parsed JSON.

    where: the file, for messages. Raises ValueError that names the first field at fault, e.g.
    "x.json: files.fp32.onnx.bytes is '12', expected int".
    """
    read = _read_dataclass if dataclasses.is_dataclass(kind) else _read
    value: T = read(kind, raw, f"{where}: ", "")
    return value


def _read(kind: Any, raw: Any, where: str, path: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if hasattr(kind, "from_dict"):
        return kind.from_dict(raw, where=f"{where}{path}")
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, raw, where, path)
    if origin in (Union, types.UnionType):
        return _read_union(arguments, raw, where, path)
    if origin is tuple:
        return _read_tuple(arguments, raw, where, path)
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
    values = {name: _read(hint, fields[name], where, _join(path, name)) for name, hint in hints.items()}
    try:
        return kind(**values)
    except ValueError as error:  # of its __post_init__
        raise ValueError(f"{where}{path + ': ' if path else ''}{error}") from error


def _read_union(kinds: tuple[Any, ...], raw: Any, where: str, path: str) -> Any:
    """`X | None`, or scalars told apart by their type."""
    if type(raw) in kinds:
        return raw
    inner = [kind for kind in kinds if kind is not type(None)]
    if len(inner) == 1:
        return _read(inner[0], raw, where, path)
    raise ValueError(f"{where}{path} is {raw!r}, expected {' or '.join(kind.__name__ for kind in kinds)}")


def _read_tuple(kinds: tuple[Any, ...], raw: Any, where: str, path: str) -> tuple[Any, ...]:
    items = _expect(list, raw, where, path)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(items)
    if len(items) != len(kinds):
        raise ValueError(f"{where}{path} has {len(items)} items, expected {len(kinds)}")
    return tuple(
        _read(kind, item, where, f"{path}[{i}]") for i, (kind, item) in enumerate(zip(kinds, items, strict=True))
    )


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
        if type(raw) is int and abs(raw) <= sys.float_info.max:
            return float(raw)
    return _expect(kind, raw, where, path)


def _expect(kind: type, raw: Any, where: str, path: str) -> Any:
    if type(raw) is not kind:  # not isinstance: True is an int
        raise ValueError(f"{where}{path or 'the document'} is {raw!r}, expected {kind.__name__}")
    return raw


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
