"""A report on a bundle that was never made, with every part that a report can have."""

from dataclasses import replace

from unblur.calibration.coverage import Coverage, FeatureCoverage
from unblur.calibration.ranges import Drift
from unblur.calibration.search import LayerCost, Sensitivity
from unblur.export.report.data import BundleReport, CropComparison, Int8Report, ModelFile, VariantLatency
from unblur.runtime.quality.parity import Hop, Ledger, Quality
from unblur.runtime.spec import ModelSpec

SPEC = ModelSpec("lprn", "lprn-x", 3, 16, 0, "global", {"width": 8}, training_data=("<b>GoPro</b>",))
PIXEL = "data:image/webp;base64,UklGRg=="
HOP = Hop(
    name="fp16 -> int8",
    precision="int8",
    steps=3,
    frames=2,
    psnr_db=48.2,
    ssim=0.999,
    max_levels=3,
    earlier_db=27.0,
    later_db=26.99996,
    earlier_ssim=0.9,
    later_ssim=0.9,
    delta_db=-0.00004,
    not_finite=0,
    black=0,
    constant=0,
    threshold_db=35.0,
    passed=True,
    reason="",
)
EQUAL = replace(HOP, name="torch -> fp32", precision="fp32", psnr_db=float("inf"))
LEDGER = Ledger(2, 25.5, (Quality("fp32", 3, 27.0, 0.9), Quality("int8", 3, 26.9, 0.9)), (EQUAL, HOP))
WITHOUT_TRUTH = Ledger(2, None, (Quality("fp32", 3, None, None),), (HOP,))
INT8 = Int8Report(
    calibration_id="0" * 64,
    method="minmax",
    images=4,
    tensors=7,
    macs_share=0.98,
    deltas_db=(-0.02, -0.05),
    budget_db=0.1,
    kept={"head.weight": "gates attention"},
    excluded=(),
    sensitivity=None,
    drift=(),
    coverage=None,
)
_QUARTILES = (1.0, 2.0, 3.0, 4.0, 5.0)
POOR_INT8 = replace(
    INT8,
    macs_share=0.4,
    sensitivity=Sensitivity((LayerCost("body.weight", 0.5, 0.3, 0.2, int8=False),), {"relu": 12.34}),
    drift=(Drift("body.weight", ("relu", "relu_1"), (2.0, 5.0), (1.0, 2.5)),),
    coverage=Coverage(9, 4, (FeatureCoverage("brightness", _QUARTILES, _QUARTILES, 0.9),), 0.1, 0.2, "a.png"),
)
REPORT = BundleReport(
    spec=SPEC,
    parameters=75_067,
    gflop_720p=29.3,
    models=(ModelFile("fp32", 3, 300_000), ModelFile("fp16", 3, 160_000), ModelFile("fp16", 1, 150_000)),
    ledger=LEDGER,
    int8=INT8,
    truth="synthetic blur",
    images=(
        CropComparison("a & b", (480, 720), 19.2, 18.9, PIXEL, PIXEL, PIXEL),
        CropComparison("c", (480, 720), 19.2, 21.2, PIXEL, PIXEL, PIXEL),
    ),
    latency=(VariantLatency("fp32", 3, "cpu (onnxruntime 1.31.1)", (720, 1280), 81.5, 5),),
    versions={"unblur": "0.1.0"},
    created="",
)
