"""The model spec survives JSON, and a spec that is not one is refused by field."""

import json

import pytest

from unblur.runtime.errors import SpecMismatch
from unblur.runtime.spec import ModelSpec

SPEC = ModelSpec(
    "lprn",
    "lprn-s",
    steps=6,
    multiple_of=16,
    receptive_field=604,
    pooling="local",
    options={"width": 48, "attention": "both"},
    training_data=("GOPRO_Large",),
)


def test_round_trip() -> None:
    assert ModelSpec.from_json(SPEC.to_json(), where="x") == SPEC
    assert "\n" not in SPEC.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "x: the model spec has schema 99, this version of unblur reads 1; export the model again"),
        ({"steps": "6"}, "x: the model spec: steps is '6', expected int"),
        ({"steps": True}, "x: the model spec: steps is True, expected int"),
        ({"steps": 0}, "model spec: steps is 0, expected at least 1"),
        ({"pooling": "median"}, "model spec: pooling is 'median', expected one of 'none', 'global', 'local'"),
        ({"surprise": 1}, "x: the model spec: surprise is not a field"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(SpecMismatch, match=message):
        ModelSpec.from_dict(json.loads(SPEC.to_json()) | change, where="x")


def test_a_missing_field_is_named() -> None:
    raw = json.loads(SPEC.to_json())
    del raw["licence"]
    with pytest.raises(SpecMismatch, match="x: the model spec: licence is missing"):
        ModelSpec.from_dict(raw, where="x")


def test_what_is_no_spec_at_all() -> None:
    with pytest.raises(SpecMismatch, match="x: the model spec is not JSON"):
        ModelSpec.from_json("{", where="x")
    with pytest.raises(SpecMismatch, match="x: the model spec has schema None"):
        ModelSpec.from_json("[]", where="x")
