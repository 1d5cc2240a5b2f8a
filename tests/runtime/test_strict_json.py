"""Dataclasses survive JSON, and what does not fit is named by its path."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest

from unblur.runtime.strict_json import from_json, to_json


@dataclass(frozen=True)
class Inner:
    level: Literal["low", "high"]
    share: float


@dataclass(frozen=True)
class Outer:
    count: int
    note: str | None
    inner: tuple[Inner, ...]
    by_name: Mapping[str, Inner]


VALUE = Outer(3, None, (Inner("low", math.inf), Inner("high", 0.5)), {"a": Inner("low", 2.0)})


def test_round_trip_through_text() -> None:
    text = json.dumps(to_json(VALUE), allow_nan=False)
    assert from_json(Outer, json.loads(text), "x.json") == VALUE


def test_nan_survives() -> None:
    raw = json.loads(json.dumps(to_json(Inner("low", math.nan)), allow_nan=False))
    assert math.isnan(from_json(Inner, raw, "x").share)


def test_a_whole_number_is_a_float() -> None:
    share = from_json(Inner, {"level": "low", "share": 2}, "x").share
    assert isinstance(share, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": True}, "x.json: count is True, expected int"),
        ({"count": 1.0}, "x.json: count is 1.0, expected int"),
        ({"inner": {}}, "x.json: inner is {}, expected list"),
        ({"inner": [3]}, r"x.json: inner\[0\] is 3, expected dict"),
        ({"inner": [{"level": "mid", "share": 1}]}, r"inner\[0\].level is 'mid', expected one of 'low', 'high'"),
        ({"by_name": {"a": {"level": "low"}}}, "x.json: by_name.a.share is missing"),
        ({"by_name": {"a": {"level": "low", "share": "1"}}}, "by_name.a.share is '1', expected float"),
        ({"extra": 1}, "x.json: extra is not a field of this version"),
    ],
)
def test_the_field_at_fault_is_named(change: dict[str, object], message: str) -> None:
    raw = to_json(VALUE)
    assert isinstance(raw, dict)
    with pytest.raises(ValueError, match=message):
        from_json(Outer, raw | change, "x.json")


def test_the_document_itself() -> None:
    with pytest.raises(ValueError, match=r"x.json: the document is \[\], expected dict"):
        from_json(Outer, [], "x.json")
