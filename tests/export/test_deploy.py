import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from unblur.calibration.images import find_sample
from unblur.calibration.onnx_model import OnnxModel, read_onnx
from unblur.export import source_model as room
from unblur.export.deployment import Deployment, DeployPlan, RejectedBundle, deploy
from unblur.export.report.bundle_page import bundle_page
from unblur.export.report.data import read_report
from unblur.export.source_model import find_source
from unblur.runtime.errors import BadInput, CalibrationError
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.model.golden import check_golden
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.quality.pairs import find_pairs
from unblur.train.networks import DeblurringNetwork, count_parameters

EPOCH = "1790000000"


@pytest.fixture(scope="module")
def plan(checkpoint: Path, calibration_folder: Path, pairs_folder: Path) -> DeployPlan:
    source = find_source(str(checkpoint))
    return DeployPlan(source, find_sample(calibration_folder), tuple(find_pairs(pairs_folder)))


@pytest.fixture(scope="module")
def deployment(
    plan: DeployPlan, exports: dict[int, OnnxModel], tmp_path_factory: pytest.TempPathFactory
) -> Deployment:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        patch.setattr(room, "onnx_from_network", lambda network: exports[network.steps])
        return deploy(plan, tmp_path_factory.mktemp("deployed") / "small.unblur")


def test_the_bundle_is_whole_and_its_golden_vectors_hold(deployment: Deployment) -> None:
    bundle = read_bundle(deployment.bundle)
    assert bundle.manifest == deployment.manifest
    assert [(item.precision, item.steps) for item in bundle.manifest.variants] == [
        ("fp32", 2),
        ("fp16", 2),
        ("int8", 2),
        ("fp32", 1),
        ("fp16", 1),
        ("int8", 1),
    ]
    for variant in bundle.manifest.variants:
        with OnnxRunner(bundle.path / variant.file, graph_optimization=False) as runner:
            assert check_golden(bundle, variant, runner).psnr_db == float("inf")
    assert set(bundle.manifest.files) == {
        *("fp32.onnx", "fp16.onnx", "int8.onnx", "fp32-1.onnx", "fp16-1.onnx", "int8-1.onnx"),
        *("calibration.json", "calibration.cache", "report.html", "report.json"),
        *(f"golden/{name}.npy" for name in ("input", "fp32-2", "fp16-2", "int8-2")),
        *(f"golden/{name}.npy" for name in ("input-small", "fp32-1", "fp16-1", "int8-1")),
    }


def test_every_hop_is_in_the_ledger_and_passes(deployment: Deployment) -> None:
    hops = deployment.ledger.hops
    assert [(hop.name, hop.steps) for hop in hops] == [
        ("torch -> fp32", 2),
        ("fp32 -> fp16", 2),
        ("fp16 -> int8", 2),
        ("torch -> fp32", 1),
        ("fp32 -> fp16", 1),
        ("fp16 -> int8", 1),
    ]
    assert deployment.ledger.passed
    assert hops == deployment.manifest.ledger
    assert all(hop.frames == 2 and hop.later_db is not None for hop in hops)
    for to_fp32, to_fp16, to_int8 in (hops[:3], hops[3:]):
        assert to_fp32.psnr_db >= 90
        assert to_fp16.psnr_db >= 55
        assert 35 <= to_int8.psnr_db < 75


def test_int8_is_the_q_dq_form_of_fp32_with_the_rest_in_fp16(deployment: Deployment) -> None:
    int8 = read_onnx(deployment.bundle / "int8.onnx")
    assert int8.precision == "int8"
    types = {tensor.name: numpy_helper.to_array(tensor).dtype for tensor in int8.graph.initializer}
    assert types["body.0.first.weight_quantized"] == np.int8
    assert types["body.0.first.weight_scale"] == np.float16
    assert types["reconstruct.weight_quantized"] == np.int8  # the budget allows it
    assert types["channel.squeeze.weight"] == np.float16
    assert int8.spec == deployment.manifest.spec


def test_int8_at_fewer_steps_is_the_beginning_of_that_at_all(deployment: Deployment) -> None:
    whole, first = (read_onnx(deployment.bundle / file) for file in ("int8.onnx", "int8-1.onnx"))
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
    fewer = {tensor.name: numpy_helper.to_array(tensor) for tensor in first.graph.initializer}
    shared = [name for name in fewer if name.endswith(("_scale", "_quantized"))]
    assert len(shared) > 10
    for name in shared:
        np.testing.assert_array_equal(fewer[name], known[name], name)
    assert first.spec.steps == 1


def test_the_calibration_table_is_bound_to_the_fp32_model(deployment: Deployment) -> None:
    table = json.loads((deployment.bundle / "calibration.json").read_text())
    assert table["model_sha256"] == deployment.manifest.files["fp32.onnx"].sha256
    assert deployment.manifest.calibration_id == deployment.manifest.files["calibration.json"].sha256
    assert list(table["images"]) == ["0.png", "1.png", "2.png"]


def test_the_manifest_says_what_built_it(deployment: Deployment) -> None:
    assert deployment.manifest.spec.training_data == ("made up",)
    assert set(deployment.manifest.versions) == {"unblur", "onnx", "onnxruntime", "torch"}
    assert deployment.manifest.created == "2026-09-21T14:13:20Z"


def test_the_report_shows_the_pairs(deployment: Deployment) -> None:
    page = (deployment.bundle / "report.html").read_text()
    assert page.count("<img ") == 3 * 2
    assert page.index("Gain in PSNR") < page.index("In INT8")
    assert "All 6 parity checks pass on 2 frames" in page


def test_the_report_is_there_as_data(deployment: Deployment, network: DeblurringNetwork) -> None:
    report = read_report(read_bundle(deployment.bundle))
    assert report.ledger == deployment.ledger
    assert report.parameters == count_parameters(network)
    assert report.gflop_720p > 0.1
    assert {(model.precision, model.steps) for model in report.models} == {
        (variant.precision, variant.steps) for variant in deployment.manifest.variants
    }
    assert report.int8.calibration_id == deployment.manifest.calibration_id
    assert bundle_page(report) == (deployment.bundle / "report.html").read_text()


@pytest.mark.usefixtures("quick_export")
def test_a_repeat_gives_the_same_bytes_in_place_of_the_old_bundle(
    plan: DeployPlan, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    stages: list[str] = []
    counted: list[str] = []

    def stage(name: str, total: int) -> Callable[[], object]:
        stages.append(f"{name} {total}")
        return lambda: counted.append(name)

    again = deploy(plan, deployment.bundle, stage)
    assert again.manifest == deployment.manifest
    assert stages == ["exporting 4", "observing 3", "judging 5", "judging 5", "measuring 4"]
    done = [f"{name} {counted.count(name)}" for name in dict.fromkeys(counted)]
    assert done == ["exporting 4", "observing 3", "judging 1", "measuring 4"]  # no search: all layers at once fit
    assert [path.name for path in deployment.bundle.parent.iterdir()] == ["small.unblur"]


@pytest.mark.usefixtures("quick_export")
def test_without_pairs_quality_is_measured_on_synthetic_blur(plan: DeployPlan, tmp_path: Path) -> None:
    result = deploy(replace(plan, steps=(), pairs=(), keep_failed=True), tmp_path / "made.unblur")
    assert [hop.name for hop in result.ledger.hops] == ["torch -> fp32", "fp32 -> fp16", "fp16 -> int8"]
    assert result.ledger.frames == 3
    assert all(hop.delta_db is not None for hop in result.ledger.hops)
    assert len(result.manifest.variants) == 3
    report = read_report(read_bundle(result.bundle))
    assert report.truth == "synthetic blur"
    assert [image.after_db - image.before_db for image in report.images] == sorted(
        image.after_db - image.before_db for image in report.images
    )


@pytest.mark.usefixtures("quick_export")
def test_the_latency_is_that_of_this_machine(plan: DeployPlan, tmp_path: Path) -> None:
    result = deploy(replace(plan, steps=()), tmp_path / "timed.unblur")
    assert result.manifest.created == ""
    latency = read_report(read_bundle(result.bundle)).latency
    assert [each.precision for each in latency] == ["fp32", "fp16", "int8"]
    assert all(each.median_ms > 0 and each.size_hw == (720, 1280) for each in latency)


def _with_bias(model: OnnxModel, name: str, value: float) -> OnnxModel:
    copy = OnnxModel.of(model.copied())
    bias = next(tensor for tensor in copy.graph.initializer if tensor.name == name)
    bias.CopyFrom(numpy_helper.from_array(np.full(bias.dims, value, np.float32), name))
    return copy


@pytest.fixture
def broken(fp32: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that loses a bias: the first hop of the ledger must fail."""
    model = _with_bias(fp32, "reconstruct.bias", 0.0)
    monkeypatch.setattr(room, "onnx_from_network", lambda network: model)


@pytest.mark.usefixtures("broken")
def test_a_failed_ledger_writes_nothing(plan: DeployPlan, tmp_path: Path) -> None:
    with pytest.raises(
        RejectedBundle, match=r"fails at 'torch -> fp32' \(2 steps\): .* no bundle was written"
    ) as caught:
        deploy(replace(plan, steps=()), tmp_path / "bad.unblur")
    assert caught.value.exit_code == 1
    assert not caught.value.ledger.passed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("broken")
def test_a_failed_bundle_can_be_kept(plan: DeployPlan, tmp_path: Path) -> None:
    kept = deploy(replace(plan, steps=(), keep_failed=True), tmp_path / "bad.unblur")
    assert not read_bundle(kept.bundle).manifest.ledger[0].passed
    assert "1 of 3 parity checks fail" in (kept.bundle / "report.html").read_text()


def test_a_name_without_the_suffix_is_refused(plan: DeployPlan, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"its name ends in \.unblur"):
        deploy(plan, tmp_path / "small")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_bundle_is_never_replaced(plan: DeployPlan, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "precious.unblur"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="is there already and is not a bundle"):
        deploy(plan, out)
    assert (out if kind == "file" else out / "thesis.txt").read_text() == "mine"


def test_a_missing_folder_is_told_before_the_work(plan: DeployPlan, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"the folder .* does not exist"):
        deploy(plan, tmp_path / "nowhere" / "small.unblur")


def test_more_steps_than_the_network_has_are_refused(plan: DeployPlan, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"at the steps \[1, 7\]; this network has 1 to 2"):
        deploy(replace(plan, steps=(1, 7)), tmp_path / "small.unblur")


@pytest.mark.usefixtures("quick_export")
def test_a_damaged_calibration_picture_leaves_nothing(plan: DeployPlan, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "half.png").write_bytes(plan.sample.paths[0].read_bytes()[:999])
    (tmp_path / "pictures" / "whole.png").write_bytes(plan.sample.paths[1].read_bytes())
    with pytest.raises(BadInput, match=r"half\.png is damaged"):
        deploy(replace(plan, sample=find_sample(tmp_path / "pictures"), steps=()), tmp_path / "small.unblur")
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_weights_that_diverged_are_told(
    plan: DeployPlan, tmp_path: Path, fp32: OnnxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverged = _with_bias(fp32, "embed.bias", float("nan"))
    monkeypatch.setattr(room, "onnx_from_network", lambda network: diverged)
    with pytest.raises(CalibrationError, match="is not finite on calibration picture 1"):
        deploy(replace(plan, steps=()), tmp_path / "small.unblur")
