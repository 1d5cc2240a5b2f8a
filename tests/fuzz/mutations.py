"""How an attack is made of a good file: bytes are changed, cut out, doubled; values of a JSON document replaced."""

import copy
import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_WORDS = [struct.pack(order + size, number) for number in _NUMBERS for order in "<>" for size in "IQ"]
_TEXTS = b"\x00|\n|\x1b[31m|[red]|../|\xff\xfe|nan|-1|1e400".split(b"|")

_payloads = st.one_of(st.sampled_from([*_WORDS, *_TEXTS, b"[" * 4000]), st.binary(min_size=1, max_size=16))
_positions = st.floats(0, 1)
_edits = st.one_of(
    st.tuples(st.just("replace"), _positions, _payloads),
    st.tuples(st.just("insert"), _positions, _payloads),
    st.tuples(st.just("delete"), _positions, st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("double"), _positions, st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("truncate"), _positions, st.just(b"")),
)


def mutated(seeds: Sequence[bytes]) -> SearchStrategy[bytes]:
    """Files that were good ones before up to eight edits."""
    return st.builds(_edited, st.sampled_from(seeds), st.lists(_edits, min_size=1, max_size=8))


def _edited(data: bytes, edits: Sequence[tuple[str, float, bytes]]) -> bytes:
    for kind, position, payload in edits:
        at = round(position * len(data))
        end = at + len(payload)
        data = {
            "replace": data[:at] + payload + data[end:],
            "insert": data[:at] + payload + data[at:],
            "delete": data[:at] + data[end:],
            "double": data[:end] + data[at:],
            "truncate": data[:at],
        }[kind]
    return data


_TEXT_VALUES = ("", "\x00", "[red]\n\x1b[31m", "../up", "/etc/passwd", "n" * 300, "\ud800")
_NUMBER_VALUES = (True, -1, 0, 1, 10**9, 10**400, 0.5, -1e308, 1e308, float("inf"), float("nan"))
_VALUES: list[Any] = [*_TEXT_VALUES, *_NUMBER_VALUES, None, [], {}, [0], {"": 0}, {"schema": 1}]


@st.composite
def mutated_json(draw: DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Documents in which up to three values were replaced, removed or added; some with nesting beyond measure."""
    tree = {"root": copy.deepcopy(json.loads(draw(st.sampled_from(seeds))))}
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(_places(tree))))
        change = draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "remove" and holder is not tree:
            del holder[key]
        elif change == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(["", "schema", "new", "__class__"]))] = copy.deepcopy(
                draw(st.sampled_from(_VALUES))
            )
        else:
            holder[key] = copy.deepcopy(draw(st.sampled_from(_VALUES)))
    text = json.dumps(tree["root"])
    nested = draw(st.integers(0, 49)) == 0
    return (text.replace("0", "[" * 20_000, 1) if nested else text).encode()


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a document, as its holder and its key or index there."""
    if isinstance(tree, (dict, list)):
        for key, value in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)):
            yield tree, key
            yield from _places(value)
