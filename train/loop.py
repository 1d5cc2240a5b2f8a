"""The training loop, readable from top to bottom; with a discriminator it trains that too.

Runs on a CPU, on one GPU, or on many through `accelerate launch` or torchrun; in bf16 where that is fast, see
`unblur.train.compute`. Everything random in a step is a function of (seed, iteration): a resumed run goes on as if
it had never stopped, without a saved random state.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn

from unblur.runtime.errors import BadInput, UnblurError
from unblur.runtime.frames import Frame, Padding, batch_from_frame, frame_from_batch
from unblur.runtime.metrics import MIN_SSIM_SIDE, psnr_db, ssim
from unblur.train.adversarial import DiscriminatorTrainer
from unblur.train.checkpoint import (
    TrainingState,
    flat_optimizer_state,
    restore_optimizer_state,
    save_checkpoint,
    save_state,
)
from unblur.train.compute import (
    fastest_threads,
    has_fast_bf16,
    in_float32,
    make_accelerator,
    spare_workers,
    thread_count,
)
from unblur.train.data import CropDataset, PairOfFrames, TrainingData, validation_frames
from unblur.train.losses import ContentLoss, SupervisedNetwork
from unblur.train.networks import DeblurringNetwork
from unblur.train.pool import CropPool, Share
from unblur.train.recipe import Decay, Recipe
from unblur.train.run_folder import CURVE_FILE, LOG_FILE, STATE_FILE, Log, Report, draw_curve, open_run

_WARMUP_FROM = 0.05  # of the peak
EMA_EVERY = 4  # iterations
_DECAYS: Mapping[Decay, Callable[[float], float]] = {
    "cosine": lambda phase: (1 + math.cos(math.pi * phase)) / 2,
    "power": lambda phase: (1 - phase) ** 0.3,
    "step": lambda phase: float(phase < 1 / 3),
    "linear": lambda phase: min(1.0, 2 * (1 - phase)),
}


def learning_rate_at(share_done: float, recipe: Recipe) -> float:
    """The generator's learning rate when `share_done` of the run lies behind."""
    if share_done < recipe.warmup_share:
        return recipe.learning_rate * (_WARMUP_FROM + (1 - _WARMUP_FROM) * share_done / recipe.warmup_share)
    cooldown_from = 1 - recipe.cooldown_share
    if share_done > cooldown_from:
        return recipe.final_learning_rate * (1 - share_done) / recipe.cooldown_share
    phase = (share_done - recipe.warmup_share) / (cooldown_from - recipe.warmup_share)
    above_final = _DECAYS[recipe.decay](phase) * (recipe.learning_rate - recipe.final_learning_rate)
    return recipe.final_learning_rate + above_final


class EmaNetwork:
    """Exponential moving average of a network's weights; the decay ramps up so that early weights are forgotten.

    network: a copy with the averaged weights, in eval mode. Its buffers (statistics of batch norm, vectors of
    spectral norm) are those of the last step.
    """

    def __init__(self, network: DeblurringNetwork, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: DeblurringNetwork, iteration: int) -> None:
        """Move the averages towards the weights, as `EMA_EVERY` steps would after `iteration` steps."""
        decay = min(self._decay, (1 + iteration) / (10 + iteration)) ** EMA_EVERY
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - decay)
        for kept, current in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(current)

    @torch.no_grad()
    def validate(self, frames: Sequence[PairOfFrames]) -> tuple[float, float | None]:
        """Mean PSNR in dB and mean SSIM over pairs of (blurred, sharp); None if all are too small for SSIM."""
        pairs = [(self._restore(blurred), sharp) for blurred, sharp in frames]
        similarities = [ssim(*pair) for pair in pairs if min(pair[1].shape[:2]) >= MIN_SSIM_SIDE]
        mean_psnr_db = float(np.mean([psnr_db(*pair) for pair in pairs]))
        return mean_psnr_db, float(np.mean(similarities)) if similarities else None

    def _restore(self, blurred: Frame) -> Frame:
        padding = Padding.to_multiple(blurred.shape[:2], self.network.spec.multiple_of)
        device = next(self.network.parameters()).device
        output = self.network(torch.from_numpy(batch_from_frame(blurred, padding)).to(device))
        return frame_from_batch(output.float().cpu().numpy(), padding)


_ENDLESS = 10**9  # iterations of a run that is bounded by time
VALIDATION_CROP = 512


@dataclass(frozen=True)
class Length:
    """How long to train: by `iterations`, or by `minutes` of wall time summed over resumed parts."""

    iterations: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.iterations is None) == (self.minutes is None):
            raise ValueError("give either iterations or minutes")

    @property
    def most_iterations(self) -> int:
        """An upper bound of the iterations."""
        return self.iterations or _ENDLESS

    def share_done(self, iteration: int, elapsed_s: float) -> float:
        """How much of the run lies behind, 0 to 1."""
        if self.minutes is not None:
            return min(1.0, elapsed_s / (60 * self.minutes))
        return min(1.0, iteration / (self.iterations or 1))


@dataclass(frozen=True)
class Schedule:
    """How often to do what beside training. Intervals in iterations, `checkpoint_s` in seconds."""

    report_every: int = 20
    validate_every: int = 500
    checkpoint_s: float = 60.0


def train(
    network: DeblurringNetwork,
    recipe: Recipe,
    data: TrainingData,
    length: Length,
    run: Path,
    *,
    discriminator: nn.Module | None = None,
    perceptual: nn.Module | None = None,
    resume: bool = False,
    workers: int | None = None,
    threads: int | None = None,
    schedule: Schedule = Schedule(),
    on_report: Callable[[Report], None] = lambda report: None,
) -> Path:
    """Train `network` and return the path of the averaged weights.

    run: the folder of the run, see `run_folder`, made if missing. resume: go on from its last whole checkpoint.
    discriminator: of an adversarial recipe. perceptual: the loss behind a perceptual term, see `perceptual`.
    threads: of torch on a CPU; measured if None, a resumed run keeps those it has. workers: processes that prepare
    crops; by default the cores that are left. on_report: called with every line of the log, on the main process.
    Raises BadInput for a crop that does not fit the network, ValueError if the recipe needs a discriminator or a
    perceptual loss that is None, UnblurError naming the iteration if loss or gradient is not finite; the last
    checkpoint is kept.
    """
    _check_crop(recipe.crop, network)
    state = open_run(run, network.spec, recipe, resume=resume)
    with thread_count(state.threads if state else threads):
        accelerator = make_accelerator()
        bf16 = has_fast_bf16(accelerator.device.type)
        content = ContentLoss(recipe.content, recipe.over_outputs, perceptual)
        network.train().to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if threads is None and state is None:
            _choose_threads(SupervisedNetwork(copy.deepcopy(network), content, bf16=bf16), recipe, accelerator)
        start = state.iteration if state else 0
        pool = CropPool(
            CropDataset(data, recipe),
            recipe,
            length.most_iterations * recipe.batch,
            start=start,
            workers=spare_workers(torch.get_num_threads()) if workers is None else workers,
            device=accelerator.device,
            share=Share(accelerator.process_index, accelerator.num_processes),
        )
        ema = EmaNetwork(network, recipe.ema_decay)
        with in_float32(network.image_layers, accelerator.device.type):
            supervised = SupervisedNetwork(network, content, bf16=bf16)
            trainer = _discriminator_trainer(discriminator, recipe, accelerator, state)
            frames = validation_frames(data, VALIDATION_CROP)
            log = Log(run, on_report) if accelerator.is_main_process else None
            _loop(supervised, ema, recipe, pool, length, run, accelerator, trainer, frames, log, schedule, state)

    weights_path = run / f"{network.spec.preset}.safetensors"
    if log:
        seen = dict.fromkeys((*network.training_data, *data.names))  # a tuned network has seen others before
        save_checkpoint(weights_path, ema.network, recipe, tuple(seen))
        draw_curve(run / LOG_FILE, run / CURVE_FILE)
    accelerator.wait_for_everyone()
    return weights_path


def _loop(
    supervised: SupervisedNetwork,
    ema: EmaNetwork,
    recipe: Recipe,
    pool: CropPool,
    length: Length,
    run: Path,
    accelerator: Accelerator,
    trainer: DiscriminatorTrainer | None,
    frames: Sequence[PairOfFrames],
    log: Log | None,
    schedule: Schedule,
    state: TrainingState | None,
) -> None:
    network = supervised.network
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    if state:
        network.load_state_dict(dict(state.network))
        ema.network.load_state_dict(dict(state.ema))
        restore_optimizer_state(optimizer, state.optimizer)
    prepared, optimizer = accelerator.prepare(supervised, optimizer)
    parameters = list(network.parameters())
    limit = math.inf if recipe.gradient_clip is None else recipe.gradient_clip
    start, spent_s = (state.iteration, state.elapsed_s) if state else (0, 0.0)
    clock = _Clock(spent_s, accelerator)
    reported, checkpointed_s = (start, spent_s), spent_s

    for iteration in range(start + 1, length.most_iterations + 1):
        blurred, sharp = pool.batch(iteration)
        share_done = length.share_done(iteration - 1, clock.elapsed_s())
        rate = learning_rate_at(share_done, recipe)
        _seed(recipe.seed, iteration, accelerator.process_index)
        loss, restored = prepared(blurred, sharp, iteration)
        if trainer:
            trainer.learn(sharp, restored.detach(), rate)
            loss = loss + trainer.loss_of(restored)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        accelerator.backward(loss)
        gradient = nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
        loss_value = float(accelerator.reduce(loss.detach(), "mean"))
        _check_finite(loss_value, float(gradient), iteration, run)
        optimizer.step()

        elapsed_s = clock.elapsed_s()
        is_last = length.share_done(iteration, elapsed_s) >= 1
        if is_last or iteration % EMA_EVERY == 0:
            ema.update(network, iteration)
        if log and (is_last or iteration % schedule.report_every == 0):
            speed = (iteration - reported[0]) * recipe.batch / (elapsed_s - reported[1])
            is_validated = is_last or iteration % schedule.validate_every == 0
            measured = ema.validate(frames) if is_validated else (None, None)
            log.write(Report(iteration, share_done, loss_value, rate, speed, elapsed_s, *measured))
            reported = (iteration, clock.elapsed_s(agreed=False))
        if log and (is_last or elapsed_s - checkpointed_s >= schedule.checkpoint_s):
            save_state(
                run / STATE_FILE,
                TrainingState(
                    network.state_dict(),
                    ema.network.state_dict(),
                    flat_optimizer_state(optimizer),
                    *(trainer.state() if trainer else ({}, {})),
                    spec=network.spec,
                    recipe=recipe,
                    iteration=iteration,
                    elapsed_s=elapsed_s,
                    threads=torch.get_num_threads(),
                ),
            )
            checkpointed_s = elapsed_s
        if is_last:
            break


def _choose_threads(supervised: SupervisedNetwork, recipe: Recipe, accelerator: Accelerator) -> None:
    """On a CPU: measure forward and backward on noise, and set the fastest number of threads."""
    if accelerator.device.type != "cpu" or accelerator.num_processes > 1:
        return
    noise = torch.rand((recipe.batch, 3, recipe.crop, recipe.crop)).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        loss, _ = supervised(noise, noise.flip(2))
        loss.backward()

    fastest_threads(step)


def _discriminator_trainer(
    discriminator: nn.Module | None, recipe: Recipe, accelerator: Accelerator, state: TrainingState | None
) -> DiscriminatorTrainer | None:
    if recipe.adversarial is None:
        return None
    if discriminator is None:
        raise ValueError("an adversarial recipe needs a discriminator")
    trainer = DiscriminatorTrainer(discriminator, recipe.adversarial, recipe, accelerator)
    if state:
        trainer.restore(state.discriminator, state.discriminator_optimizer)
    return trainer


def _seed(seed: int, iteration: int, process: int) -> None:
    """Make what torch draws in this step (points of the gradient penalty, dropout) a function of the arguments."""
    mixed = np.random.SeedSequence([seed, iteration, process])
    torch.manual_seed(int(mixed.generate_state(1)[0]))


def _check_crop(crop: int, network: DeblurringNetwork) -> None:
    multiple = network.spec.multiple_of
    if crop % multiple:
        near = sorted({max(crop // multiple, 1) * multiple, (crop // multiple + 1) * multiple})
        raise BadInput(
            f"the training crop is {crop} pixels, expected a multiple of {multiple} for {network.spec.preset}; "
            f"--crop {' or '.join(map(str, near))} would do"
        )


class _Clock:
    """Seconds of training so far; all processes read the main one's, so that they stop at the same step."""

    def __init__(self, spent_s: float, accelerator: Accelerator) -> None:
        self._started_s = time.monotonic() - spent_s
        self._accelerator = accelerator

    def elapsed_s(self, *, agreed: bool = True) -> float:
        elapsed_s = time.monotonic() - self._started_s
        if not agreed or self._accelerator.num_processes == 1:
            return elapsed_s
        shared = torch.tensor([elapsed_s], dtype=torch.float64, device=self._accelerator.device)
        return float(broadcast(shared))


def _check_finite(loss: float, gradient: float, iteration: int, run: Path) -> None:
    """Before the step: a gradient that is not finite would spoil the weights under a loss that still is."""
    for name, value in (("loss", loss), ("norm of the gradient", gradient)):
        if not math.isfinite(value):
            raise UnblurError(
                f"the {name} is {value} at iteration {iteration}; the last good checkpoint is kept in {run}; "
                "lower --learning-rate"
            )
