"""The estimate against arithmetic done by hand, against what must hold of any device, and against a clock."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from unblur.calibration.onnx_file import describe
from unblur.export.estimate.assessment import assess
from unblur.export.estimate.devices import DEVICES, PeakRange, find_device, peaks_of
from unblur.export.estimate.estimate import Span, estimate
from unblur.export.estimate.graph import Kind, Network, Operation, network_at
from unblur.export.estimate.machine import find_machine
from unblur.export.estimate.method import ONNX_RUNTIME, TENSORRT, Method, Reach
from unblur.export.estimate.model import graph_of
from unblur.runtime.errors import BadInput, CalibrationError
from unblur.runtime.onnx_runner import OnnxRunner
from unblur.runtime.profile.roofline import Peaks, measure_peaks
from unblur.runtime.runner import Precision, find_model
from unblur.runtime.spec import ModelSpec

KINDS: tuple[Kind, ...] = ("convolution", "grouped", "transposed", "product", "elementwise", "movement")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
PEAKS = Peaks({"fp32": 1.0, "fp16": 2.0, "int8": 4.0}, 1.0, "made up")  # GFLOP/s, GB/s
BOTH = PeakRange(PEAKS, PEAKS)


ALL_OF_IT = Reach(
    arithmetic=dict.fromkeys(KINDS, 1.0),
    units=dict.fromkeys(PRECISIONS, 1.0),
    bandwidth=dict.fromkeys(KINDS, 1.0),
    tile=dict.fromkeys(PRECISIONS, (1, 1)),
    call_us=0,
    int8_bytes=1,
    fuses=False,
)


def method(**changes: Any) -> Method:
    """All of the peaks, nothing for a call and no tiles, but for the changes."""
    reach = replace(ALL_OF_IT, **changes)
    return Method("made up", slow=reach, fast=reach, basis="none")


def chain(flops: int = 0, elements: int = 1000) -> Network:
    """A convolution of 10 to 20 channels with 500 weights, and the activation behind it."""
    conv = Operation("step1/body/Conv", "Conv", "convolution", ("image",), ("a",), 500, flops, (10, 20))
    relu = Operation("step1/body/Relu", "Relu", "elementwise", ("a",), ("restored",), 0, elements)
    spec = ModelSpec("lprn", "lprn-s", 1, 1, 0, "none")
    return Network(spec, (1, 1), (conv, relu), dict.fromkeys(("image", "a", "restored"), elements), 500)


def ms_of(
    network: Network, using: Method, precision: Precision = "fp32", int8: frozenset[str] = frozenset()
) -> float:
    span = estimate(network, using, BOTH, precision, int8).ms
    assert span.low == span.high
    return span.low


def test_bytes_over_bandwidth_where_memory_bounds() -> None:
    moved = 4 * (1000 + 1000 + 500) + 4 * (1000 + 1000)
    assert ms_of(chain(), method()) == pytest.approx(moved / 1e6)
    half = dict.fromkeys(KINDS, 0.5)
    assert ms_of(chain(), method(bandwidth=half)) == pytest.approx(2 * moved / 1e6)


def test_operations_over_arithmetic_where_that_bounds() -> None:
    relu_ms = 4 * 2000 / 1e6
    assert ms_of(chain(flops=10**6), method()) == pytest.approx(1 + relu_ms)
    assert ms_of(chain(flops=10**6), method(arithmetic=dict.fromkeys(KINDS, 0.8))) == pytest.approx(1.25 + relu_ms)


def test_channels_fill_up_tiles() -> None:
    tiled = method(tile=dict.fromkeys(PRECISIONS, (8, 32)))
    assert ms_of(chain(flops=10**6), tiled) == pytest.approx(16 / 10 * 32 / 20 + 4 * 2000 / 1e6)


def test_every_kernel_costs_a_call() -> None:
    assert ms_of(chain(), method(call_us=50.0)) == pytest.approx(2 * 0.05 + 18000 / 1e6)
    fused = method(call_us=50.0, fuses=True)
    assert ms_of(chain(), fused) == pytest.approx(0.05 + 4 * 2500 / 1e6)


def test_int8_is_for_what_is_quantised() -> None:
    work = 10**7
    fp16 = ms_of(chain(work), method(), "fp16")
    assert fp16 == pytest.approx(5 + 2 * 2000 / 1e6)
    assert ms_of(chain(work), method(), "int8") == fp16
    quantised = frozenset({"step1/body/Conv"})
    assert ms_of(chain(work), method(), "int8", quantised) == pytest.approx(2.5 + 2 * 2000 / 1e6)
    memory_bound = ms_of(chain(), method(int8_bytes=2), "int8", quantised)
    assert memory_bound == pytest.approx((2 * 2000 + 500 + 2 * 2000) / 1e6)


def test_parts_and_bounds_are_shares_of_the_whole() -> None:
    found = estimate(chain(flops=10**6), method(call_us=50.0), BOTH, "fp32")
    (part,) = found.parts
    assert (part.stage, part.kernels, part.bound) == ("body", 2, "compute")
    assert part.ms == found.ms
    assert part.share == pytest.approx(1)
    whole = 1 + 0.008 + 0.1
    expected = {"compute": 1 / whole, "memory": 0.008 / whole, "overhead": 0.1 / whole}
    assert found.bounds == pytest.approx(expected)


def test_memory_is_weights_and_what_lives_at_once() -> None:
    assert estimate(chain(), method(), BOTH, "fp32").memory_mib == pytest.approx((500 + 2000) * 4 / 2**20)
    assert estimate(chain(), method(), BOTH, "int8").memory_mib == pytest.approx((500 + 2000 * 2) / 2**20)


def test_the_middle_is_as_far_from_both_ends() -> None:
    span = Span(2, 8)
    assert span.middle / span.low == span.high / span.middle == 2


@pytest.fixture(scope="module")
def network_720p(fp32: ModelProto) -> Network:
    return network_at(fp32, (720, 1280))


@pytest.mark.parametrize("name", DEVICES)
def test_the_ends_are_apart_and_above_the_roof(name: str, network_720p: Network) -> None:
    device = find_device(name)
    peaks = peaks_of(device, device.mode())
    for precision in device.architecture.rates:
        found = estimate(network_720p, TENSORRT, peaks, precision)
        assert 1.2 < found.ms.high / found.ms.low < 6
        best = peaks.fast.gflops["fp16" if precision == "int8" else precision]
        assert found.ms.low > network_720p.flops / best / 1e6
        assert sum(found.bounds.values()) == pytest.approx(1)
        assert sum(part.share for part in found.parts) == pytest.approx(1)
        assert sum(part.ms.low for part in found.parts) == pytest.approx(found.ms.low)


def test_a_faster_device_is_estimated_faster(network_720p: Network) -> None:
    names = ("nano", "orin-nano", "orin-nano-super", "agx-orin", "rtx-4090")
    devices = [find_device(name) for name in names]
    spans = [estimate(network_720p, TENSORRT, peaks_of(device, device.mode()), "fp16").ms for device in devices]
    assert [span.low for span in spans] == sorted((span.low for span in spans), reverse=True)
    assert [span.high for span in spans] == sorted((span.high for span in spans), reverse=True)


def test_all_precisions_but_those_that_are_not_there(fp32: ModelProto) -> None:
    assessment = assess(fp32, find_machine("nano"), (64, 96))
    assert [found.precision for found in assessment.estimates] == ["fp32", "fp16"]
    with pytest.raises(BadInput, match="Jetson Nano does not compute in int8; it has fp32, fp16"):
        assess(fp32, find_machine("nano"), (64, 96), "int8")


def test_a_network_without_int8_says_so() -> None:
    machine = find_machine("orin-nano")
    assessment = assess(one_convolution(), machine, (64, 96))
    assert [found.precision for found in assessment.estimates] == ["fp32", "fp16"]
    assert any(note.startswith("no INT8: nothing to quantise") for note in assessment.notes)
    with pytest.raises(CalibrationError, match="nothing to quantise"):
        assess(one_convolution(), machine, (64, 96), "int8")


def one_convolution() -> ModelProto:
    """From image to image, so it stays in float."""
    image, restored = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "height", "width"])
        for name in ("image", "restored")
    )
    weights = numpy_helper.from_array(np.zeros((3, 3, 1, 1), np.float32), "weights")
    node = helper.make_node("Conv", ["image", "weights"], ["restored"], "only/Conv")
    graph = helper.make_graph([node], "one", [image], [restored], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    describe(model, ModelSpec("lprn", "lprn-s", 1, 1, 0, "none"), "fp32")
    return model


@pytest.mark.realtime
def test_one_core_is_estimated_within_a_factor_of_one_and_a_half() -> None:
    """`python -m benchmarks.estimate` asks the same of every preset and all cores."""
    peaks = measure_peaks(threads=1)
    network = network_at(graph_of("lprn-n"), (192, 320))
    found = estimate(network, ONNX_RUNTIME, PeakRange(peaks, peaks), "fp32")
    image = np.random.default_rng(0).random((1, 3, 192, 320), np.float32)
    with OnnxRunner(find_model("lprn-n") / "fp32.onnx", threads=1) as runner:
        runner.infer(image)
        measured_ms = min(cpu_ms(lambda: runner.infer(image)) for _ in range(10))
    assert 1 / 1.5 < found.ms.middle / measured_ms < 1.5


def cpu_ms(work: Callable[[], object]) -> float:
    """Of this thread alone: what else runs here does not count."""
    began = time.thread_time()
    work()
    return (time.thread_time() - began) * 1e3
