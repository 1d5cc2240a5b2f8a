from collections.abc import Iterator

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from onnxruntime import InferenceSession

from unblur.calibration.observe import Range, observe_minmax
from unblur.calibration.onnx_file import onnx_bytes
from unblur.runtime.errors import CalibrationError
from unblur.runtime.frames import Batch


def _batches() -> list[Batch]:
    rng = np.random.default_rng(2)
    return [rng.random((1, 3, *size), np.float32) for size in ((16, 24), (32, 8))]


def test_ranges_are_those_of_the_tensors_over_all_batches(fp32: ModelProto) -> None:
    batches = _batches()
    ranges = observe_minmax(fp32, ["features1", "body2", "blurred"], batches)
    exposed = ModelProto()
    exposed.CopyFrom(fp32)
    del exposed.graph.output[:]
    for name in ("features1", "body2"):
        exposed.graph.output.add(name=name).type.tensor_type.elem_type = 1
    session = InferenceSession(onnx_bytes(exposed), providers=["CPUExecutionProvider"])
    for index, name in enumerate(("features1", "body2")):
        values = np.concatenate([session.run(None, {"blurred": batch})[index].ravel() for batch in batches])
        assert ranges[name].lowest == pytest.approx(values.min(), abs=1e-6)
        assert ranges[name].highest == pytest.approx(values.max(), abs=1e-6)
    images = np.concatenate([batch.ravel() for batch in batches])
    assert ranges["blurred"] == Range(float(images.min()), float(images.max()))


def test_one_batch_is_held_at_a_time_and_progress_counts(fp32: ModelProto) -> None:
    seen: list[str] = []

    def batches() -> Iterator[Batch]:
        for number, batch in enumerate(_batches()):
            seen.append(f"read {number}")
            yield batch

    observe_minmax(fp32, ["features1"], batches(), progress=lambda: seen.append("done"))
    assert seen == ["read 0", "done", "read 1", "done"]


def test_no_pictures_is_an_error(fp32: ModelProto) -> None:
    with pytest.raises(CalibrationError, match="no calibration pictures were given"):
        observe_minmax(fp32, ["features1"], [])


def test_damaged_weights_are_named_by_the_tensor_they_spoil(fp32: ModelProto) -> None:
    model = ModelProto()
    model.CopyFrom(fp32)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "embed.b")
    bias.CopyFrom(numpy_helper.from_array(np.full(8, np.inf, np.float32), "embed.b"))
    with pytest.raises(CalibrationError, match="'features1' is not finite on calibration picture 1"):
        observe_minmax(model, ["features1"], _batches())
