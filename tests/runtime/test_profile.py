"""The document of a profile: JSON and back, and as its published schema says."""

import json
import math
from pathlib import Path

import jsonschema
import pytest
from made_up_profile import bare_profile, full_profile

from unblur.runtime.errors import BadInput
from unblur.runtime.profile.document import Profile, read_profile, write_profile

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/profile_schema.json").read_text())


@pytest.fixture(scope="module")
def profile() -> Profile:
    """One with every section in it."""
    return full_profile()


def test_it_survives_a_file(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    write_profile(path, profile)
    assert read_profile(path) == profile


def test_it_is_as_the_schema_says(profile: Profile) -> None:
    jsonschema.validate(json.loads(json.dumps(profile.to_json(), allow_nan=False)), SCHEMA)


def test_what_was_not_asked_for_is_null_and_allowed_to_be() -> None:
    document = bare_profile().to_json()
    optional = "threads timing sustained sweeps layers roofline int8_advice against telemetry"
    assert [name for name, value in document.items() if value is None] == optional.split()
    jsonschema.validate(document, SCHEMA)


def test_the_schema_names_every_field_and_no_other(profile: Profile) -> None:
    assert set(SCHEMA["properties"]) == set(profile.to_json()) == set(SCHEMA["required"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 1}, "has schema 1, this version of unblur reads 2; make the file"),
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
    with pytest.raises(BadInput, match=f"^{path} is not a profile .*; make one with `unblur profile -o`$"):
        read_profile(path)


def test_few_samples_leave_the_upper_end_of_a_high_percentile_open() -> None:
    low, high = bare_profile().intervals_ms["p999"]
    assert high is None
    assert low is not None
    assert math.isfinite(low)
