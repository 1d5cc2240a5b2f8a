"""Parity: the numbers are right, every kind of failure is found, and a pass is not given away."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unblur.runtime.errors import BadInput
from unblur.runtime.metrics import psnr_db, ssim
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.quality.pairs import Pair
from unblur.runtime.quality.parity import Hop, compare, measure
from unblur.runtime.runner import Runner

Fake = Callable[..., Runner]


def identity(batch: np.ndarray) -> np.ndarray:
    return batch


def brighter(batch: np.ndarray) -> np.ndarray:
    """A restoration that differs from its input by 30 dB."""
    return np.asarray(batch + np.float32(10**-1.5), np.float32)


def test_a_uniform_error_has_the_psnr_of_its_size(fake_runner: Fake, frame: np.ndarray) -> None:
    hop = compare(fake_runner(identity), fake_runner(lambda batch: batch + np.float32(0.01)), [frame])
    assert hop.psnr_db == pytest.approx(40, abs=0.01)
    assert hop.max_levels == 3  # 2.55 levels, rounded
    assert (hop.name, hop.frames, hop.threshold_db) == ("fp32 -> fp32", 1, 90)
    assert not hop.passed
    assert hop.reason == "40.0 dB from its reference, expected at least 90 dB"


def test_equal_runners_pass(fake_runner: Fake, frame: np.ndarray) -> None:
    hop = compare(fake_runner(brighter), fake_runner(brighter), [frame], name="torch -> fp32")
    assert (hop.psnr_db, hop.ssim, hop.max_levels) == (math.inf, 1, 0)
    assert (hop.name, hop.passed, hop.reason) == ("torch -> fp32", True, "")
    assert hop.delta_db is None


def test_the_worst_frame_decides(fake_runner: Fake, frame: np.ndarray) -> None:
    shift = iter([np.float32(0), np.float32(0.01)])
    hop = compare(fake_runner(identity), fake_runner(lambda batch: batch + next(shift)), [frame, frame])
    assert hop.psnr_db == pytest.approx(40, abs=0.01)
    assert hop.frames == 2


@pytest.mark.parametrize(
    ("function", "defect"),
    [
        (lambda batch: batch * np.float32(np.nan), "not finite"),
        (lambda batch: batch + np.float32(np.inf), "not finite"),
        (lambda batch: batch * 0, "black"),
        (lambda batch: batch * 0 + np.float32(0.5), "constant"),
    ],
)
def test_defects_are_found(
    fake_runner: Fake, frame: np.ndarray, function: Callable[..., np.ndarray], defect: str
) -> None:
    hop = compare(fake_runner(identity), fake_runner(function, precision="int8"), [frame, frame])
    counts = {"not finite": hop.not_finite, "black": hop.black, "constant": hop.constant}
    assert counts == {name: 2 * (name == defect) for name in counts}
    assert not hop.passed
    assert hop.reason == f"2 frames with a defect, the first is {defect}"


def test_a_black_input_may_stay_black(fake_runner: Fake) -> None:
    black = np.zeros((32, 32, 3), np.uint8)
    hop = compare(fake_runner(identity), fake_runner(identity), [black])
    assert (hop.black, hop.passed) == (0, None)


def test_nan_before_and_after_does_not_pass(fake_runner: Fake, frame: np.ndarray) -> None:
    broken = fake_runner(lambda batch: batch * np.float32(np.nan))
    assert not compare(broken, broken, [frame]).passed
    assert not compare(broken, fake_runner(identity), [frame]).passed


@pytest.fixture
def pair(tmp_path: Path, frame: np.ndarray) -> Pair:
    """Sharp, and the same with noise of about 5 levels."""
    noise = np.random.default_rng(3).normal(0, 5, frame.shape)
    blurred = np.clip(frame + noise, 0, 255).astype(np.uint8)
    for name, picture in (("sharp", frame), ("blurred", blurred)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    return Pair("a", tmp_path / "blurred.png", tmp_path / "sharp.png")


def int8_hop(fake_runner: Fake, pair: Pair, noise_levels: float) -> Hop:
    """Against a restoration that is 40 dB from the truth."""
    sharp = np.asarray(Image.open(pair.sharp), np.float32).transpose(2, 0, 1)[None] / 255
    rng = np.random.default_rng(4)
    restored = np.asarray(sharp + rng.normal(0, 0.01, sharp.shape), np.float32)
    rounded = np.asarray(restored + rng.normal(0, noise_levels / 255, sharp.shape), np.float32)
    return compare(
        fake_runner(lambda batch: restored), fake_runner(lambda batch: rounded, precision="int8"), [pair]
    )


def test_ground_truth_is_measured_on_both_sides(fake_runner: Fake, pair: Pair, frame: np.ndarray) -> None:
    blurred = np.asarray(Image.open(pair.blurred))
    result = measure([fake_runner(brighter), fake_runner(brighter, precision="fp16")], [pair])
    assert result.blurred_db == psnr_db(blurred, frame)
    restored = np.rint(np.clip(blurred + 255 * 10**-1.5, 0, 255)).astype(np.uint8)
    assert [quality.db for quality in result.qualities] == [psnr_db(restored, frame)] * 2
    assert result.qualities[1].ssim == ssim(restored, frame)
    (hop,) = result.hops
    assert (hop.delta_db, hop.earlier_ssim, hop.passed) == (0, hop.later_ssim, True)


def test_int8_may_lose_a_tenth_of_a_decibel(fake_runner: Fake, pair: Pair) -> None:
    hop = int8_hop(fake_runner, pair, noise_levels=0.2)
    assert hop.delta_db is not None
    assert -0.1 < hop.delta_db < 0
    assert hop.passed
    hop = int8_hop(fake_runner, pair, noise_levels=1)
    assert hop.psnr_db > hop.threshold_db
    assert not hop.passed
    assert re.fullmatch(r"loses 0\.\d\d dB against ground truth, at most 0\.1 dB are allowed", hop.reason)


def test_the_floor_holds_even_if_the_truth_gains(fake_runner: Fake, pair: Pair, frame: np.ndarray) -> None:
    truth = frame.transpose(2, 0, 1)[None] / np.float32(255)
    washed = fake_runner(lambda batch: batch * np.float32(0.9))
    hop = compare(washed, fake_runner(lambda batch: truth, precision="int8"), [pair])
    assert hop.delta_db is not None
    assert hop.delta_db > 3
    assert not hop.passed


def test_real_precisions_pass_in_one_walk(make_onnx: Callable[..., Path], frame: np.ndarray) -> None:
    paths = [make_onnx(precision=precision) for precision in ("fp32", "fp16", "int8")]
    runners = [OnnxRunner(path, graph_optimization=False) for path in paths]
    seen: list[int] = []
    result = measure(runners, [frame, frame[:50, :70]], lambda: seen.append(1))
    assert len(seen) == 2
    assert [hop.name for hop in result.hops] == ["fp32 -> fp16", "fp16 -> int8"]
    assert result.passed
    assert result.blurred_db is None
    assert 55 < result.hops[0].psnr_db < 110
    assert 35 < result.hops[1].psnr_db < 60


def test_a_runner_that_reuses_its_buffer_is_read_in_time(tiny_onnx: Path, frame: np.ndarray) -> None:
    with OnnxRunner(tiny_onnx) as runner:
        hop = compare(runner, runner, [frame, frame[::-1].copy()])
    assert hop.psnr_db == math.inf


def test_one_form_alone_still_has_a_quality(fake_runner: Fake, pair: Pair) -> None:
    result = measure([fake_runner(identity)], [pair])
    assert result.hops == ()
    assert result.qualities[0].db == result.blurred_db


def test_unusable_frames(fake_runner: Fake) -> None:
    with pytest.raises(BadInput, match="no frames to compare on"):
        measure([fake_runner(identity)], [])
    with pytest.raises(BadInput, match="10 x 40 pixels is too small to compare on; expected at least 11 x 11"):
        measure([fake_runner(identity)], [np.zeros((10, 40, 3), np.uint8)])
