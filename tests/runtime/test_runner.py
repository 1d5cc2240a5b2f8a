"""`open_runner` turns what a user typed into a checked runner, or says what is wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from unblur.runtime.errors import BadInput, BundleError, SpecMismatch
from unblur.runtime.model import open_model as runner_module
from unblur.runtime.model.bundle import MANIFEST, BundleManifest, seal_bundle
from unblur.runtime.model.open_model import find_model, open_runner, shipped_presets
from unblur.runtime.runner import RunnerOptions


@pytest.fixture
def shipped(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of shipped bundles, holding `tiny`."""
    monkeypatch.setattr(runner_module, "_SHIPPED", tiny_bundle.parent)
    return tiny_bundle


def test_an_onnx_file(tiny_onnx: Path) -> None:
    with open_runner(tiny_onnx) as runner:
        assert runner.precision == "fp32"


def test_a_bundle_gives_fp32_at_full_steps(tiny_bundle: Path) -> None:
    with open_runner(str(tiny_bundle)) as runner:
        assert (runner.precision, runner.spec.steps) == ("fp32", 2)


def test_a_bundle_gives_the_variant_asked_for(tiny_bundle: Path) -> None:
    with open_runner(tiny_bundle, RunnerOptions(precision="int8", threads=1, graph_optimization=False)) as runner:
        assert (runner.precision, runner.spec.steps) == ("int8", 2)
    with open_runner(tiny_bundle, RunnerOptions(steps=1)) as runner:
        assert (runner.precision, runner.spec.steps) == ("fp32", 1)


def test_a_shipped_name(shipped: Path) -> None:
    assert shipped_presets() == {"tiny": shipped}
    assert find_model("tiny") == shipped
    with open_runner("tiny") as runner:
        assert runner.spec.preset == "tiny"


def test_a_typing_error_gets_a_suggestion(shipped: Path) -> None:
    with pytest.raises(
        BadInput, match=r"no model 'tinny'; did you mean 'tiny'\? A bundle folder or an \.onnx file"
    ):
        open_runner("tinny")
    with pytest.raises(
        BadInput, match=r"no model 'xyz'; shipped: tiny\. A bundle folder or an \.onnx file works too"
    ):
        open_runner("xyz")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    checkpoint = tmp_path / "x.safetensors"
    checkpoint.touch()
    with pytest.raises(BadInput, match=r"cannot be run as it is; expected a bundle folder, an \.onnx or an"):
        open_runner(checkpoint)


def test_a_variant_that_is_not_there(tiny_bundle: Path, tiny_onnx: Path) -> None:
    with pytest.raises(SpecMismatch, match="no int8 variant at 1 steps; it has fp32 at 2"):
        open_runner(tiny_bundle, RunnerOptions(precision="int8", steps=1))
    with pytest.raises(SpecMismatch, match="is fp32, asked for int8"):
        open_runner(tiny_onnx, RunnerOptions(precision="int8"))
    with pytest.raises(SpecMismatch, match="runs 2 steps, asked for 6; export it again with --steps 6"):
        open_runner(tiny_onnx, RunnerOptions(steps=6))


def test_a_damaged_bundle_is_refused_before_it_is_opened(tiny_bundle: Path) -> None:
    file = tiny_bundle / "int8.onnx"  # not even the variant that would run
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"int8\.onnx is altered"):
        open_runner(tiny_bundle)


def test_a_bundle_whose_manifest_mislabels_a_variant(tiny_bundle: Path, make_onnx: Callable[..., Path]) -> None:
    shutil.copy(make_onnx(precision="fp16"), tiny_bundle / "fp32.onnx")
    manifest = BundleManifest.from_json((tiny_bundle / MANIFEST).read_text(), where="test")
    seal_bundle(tiny_bundle, manifest)
    with pytest.raises(SpecMismatch, match=r"fp32\.onnx is fp16, asked for fp32"):
        open_runner(tiny_bundle, RunnerOptions("fp32"))
