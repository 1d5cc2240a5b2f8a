"""A variant that does not compute what its reference does is refused on every path: ledger, golden vectors, engine
check when a model is opened, `unblur verify`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from engine_workshop import Workshop
from tiny_network import Defect, TinyNetwork

from tests.runtime.conftest import make_bundle
from unblur.runtime.errors import EngineMismatch
from unblur.runtime.frames import Frame
from unblur.runtime.model.bundle import Bundle, read_bundle, seal_bundle
from unblur.runtime.model.golden import check_golden, golden_frame
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.model.open_model import open_runner
from unblur.runtime.quality.parity import compare
from unblur.runtime.quality.tolerances import TOLERANCES, Tolerance, judge
from unblur.runtime.quality.verify import check_engines, verify
from unblur.runtime.runner import RunnerOptions
from unblur.runtime.spec import Precision

SCALE = 2.0
"""Of the residual: the second of the two steps matters."""

defects = pytest.mark.parametrize("defect", [None, *get_args(Defect)])
precisions = pytest.mark.parametrize("precision", ["fp16", "int8"])


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """As that of all tests, but its steps differ more."""
    return make_bundle(tmp_path / "tiny.unblur", SCALE)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture
def candidate(tmp_path: Path) -> Callable[[Precision, Defect | None], Path]:
    def make(precision: Precision, defect: Defect | None) -> Path:
        return TinyNetwork(precision, scale=SCALE, defect=defect).write(tmp_path / "candidate.onnx")

    return make


Candidate = Callable[[Precision, Defect | None], Path]


@defects
@precisions
def test_the_ledger_refuses_it(
    bundle: Bundle, candidate: Candidate, precision: Precision, defect: Defect | None, frame: Frame
) -> None:
    with (
        OnnxRunner(bundle.path / "fp32.onnx") as reference,
        OnnxRunner(candidate(precision, defect), graph_optimization=False) as runner,
    ):
        hop = compare(reference, runner, [frame, golden_frame()])
    assert hop.passed is (defect is None), hop.reason


@defects
def test_golden_vectors_refuse_it(bundle: Bundle, candidate: Candidate, defect: Defect | None) -> None:
    with OnnxRunner(candidate("int8", defect), graph_optimization=False) as runner:
        result = check_golden(bundle, bundle.variant("int8"), runner)
    assert result.passed is (defect is None), result.reason


@defects
@precisions
def test_an_engine_with_it_is_neither_opened_nor_verified(
    workshop: Workshop, candidate: Candidate, precision: Precision, defect: Defect | None
) -> None:
    workshop.build_variant(precision, onnx=str(candidate(precision, defect)))
    path = workshop.folder.parent
    (found,) = check_engines(read_bundle(path))
    assert found.passed is (defect is None), found.reason
    options = RunnerOptions(precision, device="tensorrt")
    if defect is None:
        with open_runner(path, options) as runner:
            assert "TensorRT" in runner.device
    else:
        with pytest.raises(EngineMismatch, match=f"against {precision}.onnx: .* expected at least"):
            open_runner(path, options)


@defects
def test_verify_refuses_it(bundle: Bundle, candidate: Candidate, defect: Defect | None) -> None:
    (bundle.path / "int8.onnx").write_bytes(candidate("int8", defect).read_bytes())
    seal_bundle(bundle.path, bundle.manifest)
    assert verify(bundle.path).integrity is (defect is None)


@pytest.mark.parametrize(
    "wrong", [{"noise": 0.05}, {"stale": True}, {"gain": 0.9}, {"bias": 0.02}, {"gain": float("nan")}], ids=str
)
def test_an_engine_that_runs_badly_is_neither_opened_nor_verified(
    workshop: Workshop, wrong: dict[str, float | bool]
) -> None:
    """From the right ONNX file. A stale engine shows another frame."""
    workshop.build_variant("int8", **wrong)
    path = workshop.folder.parent
    (found,) = check_engines(read_bundle(path))
    assert found.verdict == "failed"
    with pytest.raises(EngineMismatch, match=r"against int8\.onnx: "):
        open_runner(path, RunnerOptions("int8", device="tensorrt"))


def test_a_network_that_changes_nothing_proves_nothing(tmp_path: Path) -> None:
    """An engine of it that returns its input would be right, and so would any copy."""
    result = verify(make_bundle(tmp_path / "idle.unblur", scale=0))
    assert (result.integrity, result.passed) == (None, False)
    assert {golden.passed for golden in result.golden} == {None}
    assert all(hop.passed is None and hop.reason.startswith("void: ") for hop in result.ledgers[0].hops)


INT8 = Tolerance(floor_db=35, margin_db=12, ceiling_db=60)


@pytest.mark.parametrize(
    ("psnr_db", "change_db", "passed", "reason"),
    [
        ([50.0], [30.0], True, ""),
        ([34.0], [20.0], False, "34.0 dB from its reference, expected at least 35 dB"),
        (
            [41.0],
            [40.0],
            False,
            "41.0 dB from its reference, expected at least 52.0 dB: 12 dB more than the 40.0 dB of the unchanged",
        ),
        ([55.0], [50.0], None, "void: the network hardly changes its input (50.0 dB), so a wrong variant could"),
        ([70.0], [50.0], True, ""),
        ([np.inf], [np.inf], None, "void: the network hardly changes its input (inf dB)"),
        ([np.nan], [30.0], False, "nan dB from its reference, expected at least 35 dB"),
        ([np.nan, 50.0], [30.0, 30.0], False, "nan dB"),
        ([55.0, 50.0], [50.0, 30.0], True, ""),  # one frame that cannot decide, and one that can
        ([50.0, 41.0], [30.0, 40.0], False, "41.0 dB from its reference, expected at least 52.0 dB"),
        ([34.0, 50.0], [50.0, 30.0], False, "34.0 dB from its reference, expected at least 35 dB"),
    ],
)
def test_the_rule(psnr_db: list[float], change_db: list[float], passed: bool | None, reason: str) -> None:
    found = judge(INT8, psnr_db, change_db)
    assert found.passed is passed
    assert found.reason.startswith(reason)
    assert bool(found.reason) is (passed is not True)


def test_every_check_has_every_precision() -> None:
    for tolerances in TOLERANCES.values():
        assert tolerances.keys() == set(get_args(Precision))
        assert all(each.floor_db < each.ceiling_db for each in tolerances.values())
