"""Golden vectors: the same computation passes on this machine, another one does not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unblur.runtime.errors import BundleError, SpecMismatch
from unblur.runtime.model.bundle import Bundle, read_bundle, seal_bundle
from unblur.runtime.model.golden import GoldenResult, check_golden, golden_frame, make_golden, read_golden_frame
from unblur.runtime.model.onnx_runner import OnnxRunner


def check(bundle: Bundle, onnx: Path | None = None, index: int = 0) -> GoldenResult:
    variant = bundle.manifest.variants[index]
    with OnnxRunner(onnx or bundle.path / variant.file, graph_optimization=False) as runner:
        return check_golden(bundle, variant, runner)


@pytest.mark.parametrize("index", range(4))
def test_each_variant_passes_where_it_was_built(tiny_bundle: Path, index: int) -> None:
    result = check(read_bundle(tiny_bundle), index=index)
    assert result.passed
    assert result.reason == ""
    assert result.max_levels < 0.01


def test_a_network_that_differs_a_little_fails(tiny_bundle: Path, make_onnx: Callable[..., Path]) -> None:
    result = check(read_bundle(tiny_bundle), make_onnx(scale=1.01))
    assert not result.passed
    assert 20 < result.psnr_db < 90
    assert result.reason.endswith("dB from its reference, expected at least 90 dB")


def test_a_network_that_gives_nan_fails(tiny_bundle: Path, make_onnx: Callable[..., Path]) -> None:
    result = check(read_bundle(tiny_bundle), make_onnx(scale=float("nan")))
    assert not result.passed
    assert result.reason == "the output holds NaN or infinity"


def test_a_bundle_without_golden_vectors(tiny_bundle: Path) -> None:
    seal_bundle(tiny_bundle, replace(read_bundle(tiny_bundle).manifest, golden=()))
    with pytest.raises(SpecMismatch, match="no golden vectors for fp32 at 2 steps; deploy it again"):
        check(read_bundle(tiny_bundle))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("input", np.zeros((16, 16, 3)), "input.npy is float64, expected uint8"),
        ("input", np.zeros((16, 16), np.uint8), "input.npy: a frame has the shape"),
        ("fp32-2", np.zeros((1, 3, 8, 8), np.float32), r"fp32-2.npy has the shape \(1, 3, 8, 8\), expected"),
    ],
)
def test_vectors_of_another_shape(tiny_bundle: Path, name: str, array: np.ndarray, message: str) -> None:
    manifest = read_bundle(tiny_bundle).manifest
    np.save(tiny_bundle / f"golden/{name}.npy", array)
    seal_bundle(tiny_bundle, manifest)
    with pytest.raises(BundleError, match=message):
        check(read_bundle(tiny_bundle))


def test_vectors_that_would_unpickle_are_refused(tiny_bundle: Path) -> None:
    manifest = read_bundle(tiny_bundle).manifest
    np.save(tiny_bundle / "golden/input.npy", np.array([{"a": 1}], object), allow_pickle=True)
    seal_bundle(tiny_bundle, manifest)
    with pytest.raises(BundleError, match=r"input\.npy is not an array: .*pickle"):
        check(read_bundle(tiny_bundle))


def test_small_vectors_lie_beside_the_others_and_pass(tiny_bundle: Path) -> None:
    manifest = read_bundle(tiny_bundle).manifest
    with OnnxRunner(tiny_bundle / "fp32-1.onnx", graph_optimization=False) as runner:
        small = make_golden(tiny_bundle, runner, small=True)
    seal_bundle(tiny_bundle, replace(manifest, golden=(*manifest.golden[:3], small)))
    bundle = read_bundle(tiny_bundle)
    assert read_golden_frame(bundle, small).shape == (48, 64, 3)
    assert [check(bundle, index=index).passed for index in (0, 3)] == [True, True]


def test_the_golden_frame_never_changes() -> None:
    frame = golden_frame()
    assert frame.shape == (96, 160, 3)
    assert (int(frame.sum()), int(frame[0, 0, 0]), int(frame[-1, -1, -1])) == (6180587, 71, 216)
