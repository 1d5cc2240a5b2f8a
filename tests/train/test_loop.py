"""The loop: it learns, it stops on NaN, it resumes to the same weights, two processes equal one."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.fakes.small_networks import NARROW_U
from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput, SpecMismatch, UnblurError
from unblur.runtime.images import write_image
from unblur.train.data import HoldOut, TrainingData, open_training_data
from unblur.train.loop import Length, Schedule, train
from unblur.train.networks import build_network
from unblur.train.networks.lprn import LPRN
from unblur.train.recipe import BlurMix, Recipe
from unblur.train.run_folder import Report

RECIPE = Recipe(crop=32, batch=2, learning_rate=5e-3, mix=BlurMix(real=1, shake=0, frames=0, lens=0))


@pytest.fixture
def data(pairs_folder: Path) -> TrainingData:
    return open_training_data([pairs_folder], hold_out=HoldOut(1))


def network(seed: int = 0):
    torch.manual_seed(seed)
    return build_network("lprn-n", **NARROW_U, steps=2)


def run(data: TrainingData, folder: Path, iterations: int, **options) -> list[Report]:
    reports: list[Report] = []
    recipe = options.pop("recipe", RECIPE)
    schedule = Schedule(report_every=1, checkpoint_s=0)
    train(
        network(), recipe, data, Length(iterations=iterations), folder,
        workers=0, threads=1, schedule=schedule, on_report=reports.append, **options,
    )  # fmt: skip
    return reports


def test_it_learns(data: TrainingData, tmp_path: Path) -> None:
    recipe = replace(RECIPE, crop=48, learning_rate=2e-3)
    still = replace(recipe, learning_rate=0.0, final_learning_rate=0.0)
    before = run(data, tmp_path / "still", 1, recipe=still)
    after = run(data, tmp_path / "run", 150, recipe=recipe)
    assert after[-1].psnr_db > before[-1].psnr_db + 0.3


def test_a_run_leaves_weights_log_and_curve(data: TrainingData, tmp_path: Path) -> None:
    run(data, tmp_path / "run", 3)
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3]
    with Image.open(tmp_path / "run" / "curve.png") as curve:
        assert curve.size == (960, 540)
    assert (tmp_path / "run" / "lprn-n.safetensors").exists()


def test_a_run_bounded_by_time_ends(data: TrainingData, tmp_path: Path) -> None:
    started = time.monotonic()
    train(network(), RECIPE, data, Length(minutes=0.02), tmp_path / "run", workers=0, threads=1)
    assert 1 < time.monotonic() - started < 20


def test_a_stopped_run_resumes_to_the_weights_of_an_unbroken_one(data: TrainingData, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(report: Report) -> None:
        if report.iteration == 5:
            raise Stopped

    run(data, tmp_path / "whole", 8)
    schedule = Schedule(report_every=1, checkpoint_s=0)
    with pytest.raises(Stopped):
        train(
            network(), RECIPE, data, Length(iterations=8), tmp_path / "broken",
            workers=0, threads=1, schedule=schedule, on_report=stop,
        )  # fmt: skip
    run(data, tmp_path / "broken", 8, resume=True)
    whole = load_file(tmp_path / "whole" / "lprn-n.safetensors")
    resumed = load_file(tmp_path / "broken" / "lprn-n.safetensors")
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    log = [json.loads(line) for line in (tmp_path / "broken" / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in log] == list(range(1, 9))


def test_two_nodes_get_the_loss_of_one_process(pairs_folder: Path, tmp_path: Path) -> None:
    """Started as docs/training.md says. Each sample is drawn by one of them, or the loss would differ.

    Both networks are shared by the processes, each with its own optimiser.
    """
    arguments = [
        "train", "msr-gan", "--data", str(pairs_folder), "--hold-out", "1", "--crop", "32", "--batch", "2",
        "--set", "width=8", "--set", "blocks=1", "--set", "msrbs=1",
        "--iterations", "5", "--learning-rate", "0.001", "--workers", "0", "--threads", "1",
    ]  # fmt: skip
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", port]
    nodes = [
        subprocess.Popen(
            [*torchrun, "--node-rank", rank, "-m", "unblur.runtime.cli.main", *arguments, "-o", tmp_path / "two"],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
        )
        for rank in "01"
    ]  # fmt: skip
    app([*arguments, "-o", str(tmp_path / "one")], standalone_mode=False)
    for node in nodes:
        _, errors = node.communicate(timeout=240)
        assert node.returncode == 0, errors
    losses = {
        name: json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1])["loss"]
        for name in ("one", "two")
    }
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-4)
    weights = {name: load_file(tmp_path / name / "msr-gan.safetensors") for name in ("one", "two")}
    for name, tensor in weights["one"].items():
        # Adam blows the rounding of a vanishing gradient up to a whole step, so a few elements differ
        assert (weights["two"][name] - tensor).norm() <= 0.02 * tensor.norm() + 1e-6, name


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(data: TrainingData, tmp_path: Path) -> None:
    exploding = replace(RECIPE, learning_rate=1e18, gradient_clip=1e30, warmup_share=0.0)
    with pytest.raises(UnblurError, match=r"the loss is (nan|inf) at iteration \d+; the last good checkpoint"):
        run(data, tmp_path / "run", 30, recipe=exploding)
    state = load_file(tmp_path / "run" / "state.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


class Cusp(LPRN):
    """Its loss is finite and the gradient is not: the slope of a square root at zero."""

    def restorations(self, blurred: Tensor) -> list[Tensor]:
        return [image + (0 * self.head.weight.sum()).sqrt() for image in super().restorations(blurred)]


def test_a_gradient_that_is_not_finite_stops_before_the_step(data: TrainingData, tmp_path: Path) -> None:
    cusp = Cusp(width=8, blocks=1, steps=1, grid=4)
    with pytest.raises(UnblurError, match="the norm of the gradient is nan at iteration 1; the last good"):
        train(cusp, RECIPE, data, Length(iterations=3), tmp_path / "run", workers=0, threads=1)
    assert all(torch.isfinite(parameter).all() for parameter in cusp.parameters())


def test_pictures_of_any_size_are_padded(tmp_path: Path) -> None:
    """Down to one pixel, in training and in validation."""
    rng = np.random.default_rng(0)
    for side in ("blur", "sharp"):
        (tmp_path / side).mkdir()
        for size in (1, 7):
            noise = rng.integers(256, size=(size, 2 * size, 3), dtype=np.uint8)
            write_image(tmp_path / side / f"{size}.png", noise)
    tiny = open_training_data([tmp_path], hold_out=HoldOut(1))
    (report,) = run(tiny, tmp_path / "run", 1)
    assert report.psnr_db is not None
    assert report.ssim is None  # takes 11 pixels


def test_a_second_run_in_one_folder_is_refused(data: TrainingData, tmp_path: Path) -> None:
    run(data, tmp_path / "run", 1)
    with pytest.raises(BadInput, match="holds a run already"):
        run(data, tmp_path / "run", 1)


def test_resuming_as_another_preset_or_with_another_recipe_is_refused(data: TrainingData, tmp_path: Path) -> None:
    run(data, tmp_path / "run", 1)
    with pytest.raises(SpecMismatch, match="was trained with another network; resume with the options of its"):
        train(build_network("srn", width=8), RECIPE, data, Length(iterations=2), tmp_path / "run", resume=True)
    with pytest.raises(SpecMismatch, match="was trained with another recipe"):
        run(data, tmp_path / "run", 2, resume=True, recipe=replace(RECIPE, seed=9))


def test_a_length_is_iterations_or_minutes() -> None:
    with pytest.raises(ValueError, match="either iterations or minutes"):
        Length()


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_with_a_new_log(
    data: TrainingData, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text('{"iteration": 1, "loss": 1.0}\n{"iterat')
    run(data, tmp_path / "run", 2, resume=True)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in log] == [1, 2]
