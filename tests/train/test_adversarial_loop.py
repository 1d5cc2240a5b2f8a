"""The one loop with a discriminator: what is minimised, and that a killed run goes on as if it had not been.

Run as a script with DATA, a folder of pairs, and RUN it trains and kills itself.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from unblur.train.adversarial import DiscriminatorTrainer, generator_loss
from unblur.train.data import CropDataset, HoldOut, TrainingData, open_training_data
from unblur.train.loop import Length, Schedule, train
from unblur.train.losses import ContentLoss
from unblur.train.networks import DeblurringNetwork, build_network
from unblur.train.pool import CropPool
from unblur.train.recipe import Adversarial, AdversarialKind, BlurMix, Recipe
from unblur.train.run_folder import Report

ITERATIONS, KILLED_AT = 12, 7
RECIPE = Recipe(
    crop=32,
    batch=2,
    learning_rate=5e-3,
    adversarial=Adversarial("wgan-gp", weight=0.01, steps=2),
    mix=BlurMix(real=1, shake=0, frames=0, lens=0),
)


def open_pairs(folder: Path) -> TrainingData:
    return open_training_data([folder], hold_out=HoldOut(1))


def networks(dropout: float = 0.1) -> tuple[DeblurringNetwork, nn.Module]:
    torch.manual_seed(0)
    patch_gan = nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=2), nn.LeakyReLU(0.2), nn.Dropout2d(dropout), nn.Conv2d(8, 1, 4, stride=2)
    )
    return build_network("lprn-n", width="8,8", blocks="1,1,1", steps=2), patch_gan


def run(data: TrainingData, folder: Path, on_report: Callable[[Report], None]) -> None:
    network, discriminator = networks()
    train(
        network, RECIPE, data, Length(iterations=ITERATIONS), folder, discriminator=discriminator, resume=True,
        workers=0, threads=1, schedule=Schedule(report_every=1, checkpoint_s=0), on_report=on_report,
    )  # fmt: skip


def test_a_killed_run_resumes_to_the_state_of_an_unbroken_one(pairs_folder: Path, tmp_path: Path) -> None:
    """Weights, averages and moments of both; the gradient penalty and dropout draw random numbers in every step."""
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(
        [sys.executable, __file__, pairs_folder, broken], env={**os.environ, **threads}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    data = open_pairs(pairs_folder)
    reports: list[Report] = []
    run(data, broken, reports.append)
    assert [report.iteration for report in reports] == list(range(KILLED_AT, ITERATIONS + 1))
    run(data, whole, lambda report: None)
    state = load_file(whole / "state.safetensors")
    groups = {name.partition(".")[0] for name in state}
    assert groups == {"network", "ema", "optimizer", "discriminator", "discriminator_optimizer"}
    for file in ("state.safetensors", "lprn-n.safetensors"):
        expected, resumed = (load_file(folder / file) for folder in (whole, broken))
        unequal = {name for name, tensor in expected.items() if not torch.equal(tensor, resumed[name])}
        assert unequal == set()


@pytest.mark.parametrize("kind", get_args(AdversarialKind))
def test_the_generator_minimises_content_and_adversarial_loss(
    kind: AdversarialKind, pairs_folder: Path, tmp_path: Path
) -> None:
    data = open_pairs(pairs_folder)
    settings = Adversarial(kind, weight=0.3)
    still = replace(RECIPE, adversarial=settings, learning_rate=0.0, final_learning_rate=0.0)
    network, discriminator = networks(dropout=0.0)
    reports: list[Report] = []
    train(
        network, still, data, Length(iterations=1), tmp_path / "run",
        discriminator=discriminator, workers=0, threads=1, on_report=reports.append,
    )  # fmt: skip
    blurred, sharp = CropPool(CropDataset(data, still), still, still.batch).batch(1)
    outputs = network.restorations(blurred)
    content = ContentLoss(still.content, still.over_outputs)(outputs, network.targets(sharp, outputs))
    expected = content + 0.3 * generator_loss(kind, discriminator(outputs[-1]))
    assert reports[0].loss == pytest.approx(expected.item(), rel=1e-4)
    assert (tmp_path / "run" / "curve.png").exists()  # minimax losses are below zero


def test_the_discriminator_learns_to_tell_them_apart() -> None:
    _, discriminator = networks()
    settings = Adversarial("vanilla", weight=1.0, steps=3, rate_ratio=2.0)
    trainer = DiscriminatorTrainer(discriminator, settings, RECIPE, Accelerator(cpu=True))
    generator = torch.Generator().manual_seed(0)
    sharp, restored = (torch.rand((4, 3, 32, 32), generator=generator) * scale for scale in (1.0, 0.3))
    before = trainer.loss_of(restored)
    for _ in range(10):
        trainer.learn(sharp, restored, generator_rate=2e-3)
    assert trainer.loss_of(restored) > before + 0.2
    _, moments = trainer.state()
    assert moments["0.step"] == 30


def test_the_generators_loss_leaves_the_discriminator_alone() -> None:
    _, discriminator = networks()
    trainer = DiscriminatorTrainer(discriminator, Adversarial("vanilla", weight=1.0), RECIPE, Accelerator(cpu=True))
    restored = torch.rand((2, 3, 32, 32), requires_grad=True)
    trainer.loss_of(restored).backward()
    assert restored.grad is not None
    assert all(parameter.requires_grad and parameter.grad is None for parameter in discriminator.parameters())


def test_an_adversarial_recipe_needs_a_discriminator(pairs_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="an adversarial recipe needs a discriminator"):
        train(networks()[0], RECIPE, open_pairs(pairs_folder), Length(iterations=1), tmp_path / "run")


def kill_9(report: Report) -> None:
    """Between the log line of an iteration and its checkpoint."""
    if report.iteration == KILLED_AT:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    run(open_pairs(Path(sys.argv[1])), Path(sys.argv[2]), kill_9)
