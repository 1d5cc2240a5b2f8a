import json
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from made_up_profile import bare_profile
from referencing import Registry, Resource
from typer.testing import CliRunner, Result

from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput
from unblur.runtime.profile.document import write_profile

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    """Of what --json prints; it refers to that of a profile."""
    files = ("report_schema.json", "profile_schema.json")
    resources = [(name, Resource.from_contents(json.loads((DOCS / name).read_text()))) for name in files]
    return Draft202012Validator(
        {"$ref": "report_schema.json#/$defs/side_by_side"}, registry=Registry().with_resources(resources)
    )


def unblur(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_profiles_that_are_given_are_shown_and_nothing_is_measured(
    tmp_path: Path, schema: Draft202012Validator
) -> None:
    write_profile(tmp_path / "p.json", replace(bare_profile(), model="lprn-n", preset="lprn-n", steps=4))
    page = tmp_path / "report.html"
    result = unblur(
        *("report", "lprn-n", "lprn-s", "--profile", tmp_path / "p.json", "--no-profile", "-o", page, "--json")
    )
    assert result.exit_code == 0, result.exception
    document = json.loads(result.stdout)
    schema.validate(document)
    assert document["output"] == str(page)
    assert [(bundle["name"], len(bundle["profiles"])) for bundle in document["bundles"]] == [
        ("lprn-n", 1),
        ("lprn-s", 0),
    ]
    assert page.read_text().count("<article>") == 2


def test_a_bundle_without_a_profile_is_measured_now(
    stepped_bundle: Path, tmp_path: Path, pairs_folder: Path, schema: Draft202012Validator
) -> None:
    page = tmp_path / "report.html"
    measured = ("--seconds", "0.01", "--size", "32x48", "--pairs", pairs_folder)
    result = unblur("report", stepped_bundle, *measured, "-o", page, "--json")
    assert result.exit_code == 0, result.exception
    document = json.loads(result.stdout)
    schema.validate(document)
    (bundle,) = document["bundles"]
    assert [profile["steps"] for profile in bundle["profiles"]] == [1, 2, 3, 4]
    assert [profile["layers"] is None for profile in bundle["profiles"]] == [True, True, True, False]
    assert [(each["precision"], each["steps"]) for each in bundle["judged"]["qualities"]] == [
        ("fp32", steps) for steps in (4, 3, 2, 1)
    ]
    assert "PSNR against milliseconds per frame, of stepped fp32" in page.read_text()


def test_what_is_wrong_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = unblur("report", "lprn-n", "--profile", tmp_path / "none.json", "-o", page)
    assert isinstance(result.exception, BadInput)
    assert "none.json is not a profile" in str(result.exception)
    result = unblur("report", "lprn-n", "-o", tmp_path / "nowhere" / "report.html")
    assert "the folder" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
