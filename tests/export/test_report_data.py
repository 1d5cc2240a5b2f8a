import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from made_up_report import HOP, LEDGER, POOR_INT8, REPORT, WITHOUT_TRUTH

from unblur.export.report.data import BundleReport, read_report
from unblur.runtime.errors import BundleError, UnblurError
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.model.open_model import shipped_presets

DEFECT = replace(REPORT, ledger=replace(LEDGER, hops=(replace(HOP, psnr_db=float("-inf"), passed=False),)))


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    published = json.loads((Path(__file__).parents[2] / "docs" / "report_schema.json").read_text())
    Draft202012Validator.check_schema(published)
    return Draft202012Validator(published)


@pytest.mark.parametrize(
    "report", [REPORT, replace(REPORT, int8=POOR_INT8), replace(REPORT, ledger=WITHOUT_TRUTH), DEFECT]
)
def test_what_is_written_is_read_again_and_keeps_to_the_schema(
    report: BundleReport, schema: Draft202012Validator
) -> None:
    text = report.to_json()
    assert BundleReport.from_json(text, where="x") == report
    assert BundleReport.from_json(text, where="x").to_json() == text
    schema.validate(json.loads(text))


@pytest.mark.parametrize("preset", shipped_presets())
def test_shipped_reports_keep_to_the_schema(preset: str, schema: Draft202012Validator) -> None:
    bundle = read_bundle(shipped_presets()[preset])
    report = read_report(bundle)
    assert report.spec == bundle.spec
    assert report.ledger.hops == bundle.manifest.ledger
    schema.validate(json.loads(report.to_json()))
    assert bundle.manifest.files["report.html"].bytes < 400_000


def test_the_schema_knows_no_field_that_is_not_written(schema: Draft202012Validator) -> None:
    for change in ({"extra": 1}, {"schema": 1}, {"created": None}):
        assert not schema.is_valid({**json.loads(REPORT.to_json()), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 3}, "x has schema 3, this version of unblur reads 2; deploy the bundle again"),
        ({"models": "none"}, "x: models is 'none', expected list; deploy the bundle again"),
        ({"spec": {}}, "model spec has schema None"),
    ],
)
def test_another_schema_or_a_wrong_field_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnblurError, match=message):
        BundleReport.from_json(json.dumps({**json.loads(REPORT.to_json()), **change}), where="x")


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(BundleError, match="deploy the bundle again"):
        BundleReport.from_json("{", where="x")
