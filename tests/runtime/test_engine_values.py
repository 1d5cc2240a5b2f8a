"""What an engine is given and what is made of its output follow the spec, on the GPU as in ONNX Runtime."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_workshop import SMALL, SPEC, Workshop
from fake_cuda import ADA, ORIN
from numpy.typing import NDArray

from unblur.runtime.errors import DeviceError
from unblur.runtime.frames import Padding, batch_from_frame, frame_from_batch
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.tensorrt.engine_file import Profile


@pytest.fixture(params=[ADA, ORIN], ids=["discrete", "integrated"])
def workshop(request: pytest.FixtureRequest, tmp_path: Path) -> Workshop:
    return Workshop(tmp_path, request.param)


FOREIGN = {
    "signed": {"value_range": (-1.0, 1.0)},
    "BGR": {"value_range": (0.0, 255.0), "colour": "BGR", "mean": (103.5, 116.3, 123.7), "std": (57.4,) * 3},
    "residual": {"output": "residual"},
}


@pytest.mark.parametrize("fields", FOREIGN.values(), ids=FOREIGN)
def test_the_engine_is_given_what_its_spec_says(
    workshop: Workshop, frame: NDArray[np.uint8], fields: dict[str, Any]
) -> None:
    """The engine halves what it is given and adds a quarter; here the same in float64 from the definition."""
    spec = replace(SPEC, **fields)
    padding = Padding.to_multiple((frame.shape[0], frame.shape[1]), SPEC.multiple_of)
    batch, out = batch_from_frame(frame, padding), np.empty_like(frame)
    low, high = spec.value_range
    order = slice(None, None, -1 if spec.colour == "BGR" else 1)
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (spec.mean, spec.std))
    given = 0.5 * (batch[0, order].astype(np.float64) * (high - low) + low - mean) / std + 0.25
    expected = ((given * std + mean - low) / (high - low))[order]
    if spec.output == "residual":
        expected = batch[0] + given
    with workshop.open(workshop.build(spec=spec)) as runner:
        for _ in range(3):
            np.testing.assert_allclose(runner.infer(batch)[0], expected, atol=1e-5)
            np.testing.assert_allclose(runner.timed_infer(batch)[0][0], expected, atol=1e-5)
        runner.infer_frame(frame, out)
    restored = frame_from_batch(expected[None].astype(np.float32), padding)
    assert np.abs(out.astype(int) - restored).max() <= 1


def test_a_network_that_gives_nan_is_reported_and_goes_on(workshop: Workshop, frame: NDArray[np.uint8]) -> None:
    out = np.empty_like(frame)
    with workshop.open(workshop.build(bias=float("nan"))) as runner:
        for _ in range(3):
            with pytest.raises(DeviceError, match=r"'tiny' gave NaN or infinity; try --precision fp32"):
                runner.infer_frame(frame, out)
            assert np.isnan(runner.infer(np.zeros(SMALL, np.float32))).all()


def test_an_engine_of_one_size_restores_larger_and_smaller_images(workshop: Workshop) -> None:
    only = Profile(SMALL, SMALL, SMALL)
    spec = replace(SPEC, multiple_of=1, receptive_field=3, fixed_hw=SMALL[2:])
    with workshop.open(workshop.build(only, spec=spec)) as runner:
        for size_hw in ((70, 100), (20, 30), SMALL[2:]):
            image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
            restored = Deblurrer(runner)(image)
            np.testing.assert_allclose(restored, 0.5 * image + 0.25 * 255, atol=0.6)
            batch = batch_from_frame(image, Padding(size_hw, size_hw))
            np.testing.assert_allclose(runner.infer(batch), 0.5 * batch + 0.25, atol=1e-6)
