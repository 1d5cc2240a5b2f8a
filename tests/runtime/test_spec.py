"""The model spec survives JSON, and a spec that is not one is refused by field."""

import json
from dataclasses import replace
from typing import Any

import pytest

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.spec import ModelSpec, SpecOverrides, parse_numbers, parse_value_range

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
        ({"schema": 99}, "x: the model spec has schema 99, this version of unblur reads 2; export the model again"),
        ({"steps": "6"}, "x: the model spec: steps is '6', expected int"),
        ({"steps": True}, "x: the model spec: steps is True, expected int"),
        ({"steps": 0}, "model spec: steps is 0, expected 1 to 1000"),
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


def test_a_spec_of_schema_1_is_read() -> None:
    """And written, where it says all there is, so that files of our own networks stay as they are."""
    raw = json.loads(SPEC.to_json())
    assert raw["schema"] == 1
    assert raw.keys().isdisjoint({"mean", "std", "output", "scale", "input_name", "output_name", "fixed_hw"})
    assert ModelSpec.from_dict(raw, where="x") == SPEC


@pytest.mark.parametrize(
    "change", [{"scale": 2}, {"colour": "BGR"}, {"fixed_hw": (64, 96)}, {"mean": (0.5, 0.5, 0.5)}]
)
def test_a_spec_of_a_network_from_elsewhere_survives(change: dict[str, Any]) -> None:
    spec = replace(SPEC, **change)
    assert json.loads(spec.to_json())["schema"] == 2
    assert ModelSpec.from_json(spec.to_json(), where="x") == spec


def test_what_a_user_states_goes_before_what_was_found() -> None:
    stated = SpecOverrides(value_range=(-1.0, 1.0), mean=(0.5,), std=(0.2, 0.3, 0.4), colour="BGR", scale=2)
    spec = stated.apply(SPEC)
    assert (spec.value_range, spec.mean, spec.std) == ((-1.0, 1.0), (0.5, 0.5, 0.5), (0.2, 0.3, 0.4))
    assert (spec.colour, spec.scale, spec.multiple_of) == ("BGR", 2, SPEC.multiple_of)
    assert SpecOverrides().apply(SPEC) == SPEC


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (SpecOverrides(value_range=(1.0, 0.0)), "value_range is 1,0, expected LOW,HIGH, LOW below HIGH"),
        (SpecOverrides(std=(0.0,)), r"std \(0.0, 0.0, 0.0\); expected numbers, and std above 0"),
        (SpecOverrides(mean=(0.1, 0.2)), "mean has 2 numbers, expected 1 or 3"),
        (SpecOverrides(scale=0), "scale is 0, expected 1 to 64"),
    ],
)
def test_what_cannot_be_is_refused(stated: SpecOverrides, message: str) -> None:
    with pytest.raises(SpecMismatch, match=message):
        stated.apply(SPEC)


def test_numbers_as_people_write_them() -> None:
    assert parse_value_range("-1, 1") == (-1.0, 1.0)
    assert parse_numbers("0.485,0.456,0.406", "--mean") == (0.485, 0.456, 0.406)
    with pytest.raises(BadInput, match=r"--mean is '0.4;0.5', expected numbers with commas between them"):
        parse_numbers("0.4;0.5", "--mean")
    for text in ("1,0", "1", "0,1,2", "nan,1", "0,inf"):
        with pytest.raises(BadInput, match=f"--value-range is '{text}', expected black,white such as 0,1 or -1,1"):
            parse_value_range(text)
