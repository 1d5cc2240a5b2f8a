import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_profile import bare_profile

from unblur.export.report.measure import read_bundles, with_quality
from unblur.runtime.errors import BadInput, BundleError, UnblurError
from unblur.runtime.model.bundle import MANIFEST, BundleManifest, seal_bundle
from unblur.runtime.model.open_model import shipped_presets
from unblur.runtime.profile.document import write_profile
from unblur.runtime.quality.pairs import find_pairs

PROFILE = replace(bare_profile(), model="lprn-n", preset="lprn-n")


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    """The shipped lprn-n under another name."""
    return Path(shutil.copytree(shipped_presets()["lprn-n"], tmp_path / "twin.unblur"))


def written(folder: Path, model: str, steps: int = 3) -> Path:
    path = folder / f"{model}-{steps}.json"
    write_profile(path, replace(PROFILE, model=model, steps=steps))
    return path


def test_a_profile_goes_to_the_bundle_of_its_preset_fewest_steps_first(tmp_path: Path) -> None:
    files = [written(tmp_path, "elsewhere.unblur", 4), written(tmp_path, "lprn-n", 1)]
    small, large = read_bundles(["lprn-n", "lprn-s"], files)
    assert [profile.steps for profile in small.profiles] == [1, 4]
    assert large.profiles == ()
    assert (small.name, small.judged) == ("lprn-n", small.report.judged)
    assert small.judged is not None  # what ships was measured against ground truth


def test_of_two_bundles_of_a_preset_the_name_decides(twin: Path, tmp_path: Path) -> None:
    first, second = read_bundles(["lprn-n", str(twin)], [written(tmp_path, "twin.unblur")])
    assert (len(first.profiles), len(second.profiles)) == (0, 1)
    message = (
        r"third\.unblur-3\.json is a profile of 'third\.unblur' \(lprn-n\), which fits none, or more than one, of"
    )
    with pytest.raises(BadInput, match=message):
        read_bundles(["lprn-n", str(twin)], [written(tmp_path, "third.unblur")])


def test_what_cannot_be_put_on_a_page_is_refused(twin: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"two bundles have the same name \(twin, twin\); rename one of them"):
        read_bundles([str(twin), str(twin)], [])
    with pytest.raises(BadInput, match=r"x\.engine is an engine; a report is made of bundles and \.onnx files"):
        read_bundles([str(twin / "x.engine")], [])
    assert read_bundles([str(twin / "fp32.onnx")], [])[0].report.int8 is None
    with pytest.raises(
        BadInput, match="fits none, or more than one, of lprn-s; name the bundle it was made of, or leave it out"
    ):
        read_bundles(["lprn-s"], [written(tmp_path, "lprn-n")])


def test_a_bundle_older_than_its_report_is_told_to_be_deployed_again(twin: Path) -> None:
    manifest = BundleManifest.from_json((twin / MANIFEST).read_bytes(), where="x")
    (twin / "report.json").unlink()
    seal_bundle(twin, manifest)
    with pytest.raises(BundleError, match=r"has no report\.json, an older unblur made it; deploy the bundle again"):
        read_bundles([str(twin)], [])


def test_a_report_that_was_edited_is_refused(twin: Path) -> None:
    (twin / "report.json").write_text("{}")
    with pytest.raises(UnblurError, match=r"report\.json has 2 bytes, expected"):
        read_bundles([str(twin)], [])


def test_what_was_profiled_is_judged_on_pairs(stepped_bundle: Path, pairs_folder: Path) -> None:
    (measured,) = read_bundles([str(stepped_bundle)], [])
    measured = replace(measured, profiles=(replace(PROFILE, steps=1), replace(PROFILE, steps=4, precision="int8")))
    judged = with_quality(measured, find_pairs(pairs_folder))
    assert judged.judged is not None
    assert [(each.precision, each.steps) for each in judged.judged.qualities] == [("int8", 4), ("fp32", 1)]
    assert judged.judged.frames == 2
    assert judged.db(measured.profiles[1]) == judged.judged.qualities[0].db
    assert judged.db(PROFILE) is None
