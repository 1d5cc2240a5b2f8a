"""The bundles that ship in the runtime are what `deploy` makes of the weights that ship in train."""

from pathlib import Path
from typing import get_args

import pytest

from docs.calibration_images import write_crops
from unblur.calibration import Settings
from unblur.calibration.images import find_sample
from unblur.export.deployment import DeployPlan, deploy
from unblur.export.fp16 import fp16_from_fp32
from unblur.export.onnx_from_network import onnx_from_network, simplify
from unblur.export.source_model import find_source
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.model.golden import golden_frame
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.model.open_model import shipped_presets
from unblur.runtime.quality.parity import compare
from unblur.runtime.spec import Precision
from unblur.train.checkpoint import load_checkpoint, shipped_checkpoint

SHIPPED = ("lprn-n", "lprn-s")


def test_the_two_small_presets_ship_as_bundles() -> None:
    assert set(shipped_presets()) == set(SHIPPED)


def test_weights_stay_small() -> None:
    weights = [shipped_checkpoint(preset) for preset in SHIPPED]
    assert sum(path.stat().st_size for path in weights) < 12e6


@pytest.mark.parametrize("preset", SHIPPED)
def test_float_models_equal_the_weights_to_the_byte(preset: str) -> None:
    network = load_checkpoint(shipped_checkpoint(preset))
    bundle = read_bundle(shipped_presets()[preset])
    assert bundle.spec == network.spec
    counts = {variant.steps for variant in bundle.manifest.variants}
    for steps in counts:
        fp32 = simplify(onnx_from_network(network.at_steps(steps))).model
        assert fp32.data == (bundle.path / bundle.variant("fp32", steps).file).read_bytes()
        fp16 = fp16_from_fp32(fp32)
        assert fp16.data == (bundle.path / bundle.variant("fp16", steps).file).read_bytes()
    assert counts == {1, 2, 3, network.steps} & set(range(1, network.steps + 1))


@pytest.mark.parametrize("preset", SHIPPED)
def test_every_number_of_steps_comes_in_every_precision(preset: str) -> None:
    bundle = read_bundle(shipped_presets()[preset])
    for steps in {variant.steps for variant in bundle.manifest.variants}:
        for precision in get_args(Precision):
            assert bundle.golden(bundle.variant(precision, steps)) is not None
    assert sum(entry.bytes for entry in bundle.manifest.files.values()) < 19e6


def test_deploying_again_gives_the_shipped_bundle(tmp_path: Path) -> None:
    """As `make bundles`, but for the pairs that quality is measured on."""
    assert write_crops(tmp_path / "images") >= 64
    sample = find_sample(tmp_path / "images", synthetic_blur=True)
    plan = DeployPlan(find_source("lprn-n"), sample, int8=Settings("auto", budget_db=0.6))
    again = deploy(plan, tmp_path / "lprn-n.unblur")
    shipped = read_bundle(shipped_presets()["lprn-n"])
    assert set(again.manifest.files) == set(shipped.manifest.files)
    assert again.manifest.variants == shipped.manifest.variants
    for file in ("fp32.onnx", "fp16.onnx"):
        assert (again.bundle / file).read_bytes() == (shipped.path / file).read_bytes(), file
    # ranges may differ in their last digit between processors, so INT8 is compared by what it computes
    with OnnxRunner(shipped.path / "int8.onnx") as reference, OnnxRunner(again.bundle / "int8.onnx") as made:
        assert compare(reference, made, [golden_frame()]).psnr_db > 60
