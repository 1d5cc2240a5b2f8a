"""The document of a profile: JSON and back, and as its published schema says."""

import dataclasses
import json
import math
from pathlib import Path

import jsonschema
import pytest
from costed_runner import nanoseconds, scripted
from timed_runner import HandClock

from unblur.runtime.errors import BadInput
from unblur.runtime.layers import Layer
from unblur.runtime.profile import (
    Against,
    Percentiles,
    Placement,
    Point,
    Profile,
    Roofline,
    SizeSweep,
    Sweeps,
    read_profile,
    write_profile,
)
from unblur.runtime.profile_loop import Control
from unblur.runtime.profile_runner import Plan, profile_runner
from unblur.runtime.roofline import Peaks
from unblur.runtime.runner import Parts

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/profile_schema.json").read_text())


def bare_profile() -> Profile:
    clock = HandClock()
    runner = scripted(clock, (10 + index % 7 for index in range(100_000)))
    plan = Plan((16, 24), seconds=2, sustained=True)
    return profile_runner(runner, plan, control=Control(clock=nanoseconds(clock)))


@pytest.fixture(scope="module")
def profile() -> Profile:
    """One with every section in it."""
    bare = bare_profile()
    intervals = bare.intervals_ms
    points = (Point("16x24", 384, 10, bare.latency_ms, intervals, 90.0),)
    layer = Layer("step1/head/Conv", "Conv", "head", 1, 0.5, 10, 20, "int8", ("int8[1,3,4,4]",), ("int8[1,8,4,4]",))
    return dataclasses.replace(
        bare,
        parts_ms=Parts(0.1, 0.0, 9.9, 0.0),
        sweeps=Sweeps(sizes=SizeSweep(points, 1.0, (0.9, 1.1), 1.05), batches=points, streams=points),
        layers=(layer,),
        roofline=Roofline(
            Peaks({"fp32": 100.0}, 20.0, "measured here"), (Placement("step1/head/Conv", 0.5, "memory", 0.3),)
        ),
        against=Against(
            "b.onnx", "int8", 2, "cpu", 20, Percentiles(1, 2, 3, 4, 1), intervals, 0.5, (0.4, 0.6), "faster"
        ),
    )


def test_it_survives_a_file(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    write_profile(path, profile)
    assert read_profile(path) == profile


def test_it_is_as_the_schema_says(profile: Profile) -> None:
    jsonschema.validate(json.loads(json.dumps(profile.to_json(), allow_nan=False)), SCHEMA)


def test_what_was_not_asked_for_is_null_and_allowed_to_be() -> None:
    document = bare_profile().to_json()
    assert [name for name, value in document.items() if value is None] == [
        *("threads", "parts_ms", "sweeps", "layers", "roofline", "int8_advice", "against"),
    ]
    jsonschema.validate(document, SCHEMA)


def test_the_schema_names_every_field_and_no_other(profile: Profile) -> None:
    assert set(SCHEMA["properties"]) == set(profile.to_json()) == set(SCHEMA["required"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "profile schema 2, this version reads 1; profile again"),
        ({"samples": "10"}, "samples is '10', expected int; make the file with `unblur profile -o`"),
        ({"latency_ms": None}, "latency_ms is None, expected dict; make the file with"),
    ],
)
def test_another_document_is_refused(
    profile: Profile, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile.to_json() | change))
    with pytest.raises(BadInput, match=message) as refused:
        read_profile(path)
    assert str(path) in str(refused.value)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text("p50 10")
    with pytest.raises(BadInput, match=f"^{path} is no profile .*; make one with `unblur profile -o`$"):
        read_profile(path)


def test_few_samples_leave_the_upper_end_of_a_high_percentile_open() -> None:
    low, high = bare_profile().intervals_ms["p999"]
    assert high is None
    assert low is not None
    assert math.isfinite(low)
