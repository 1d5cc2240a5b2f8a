"""The training loop, readable from top to bottom.

Runs on a CPU, on one GPU (bf16), or on many through `accelerate launch` or torchrun. A run is a folder:

    state.safetensors   everything `resume` needs; replaced whole every `checkpoint_s` seconds
    PRESET.safetensors  the averaged weights, at the end: what export and deploy take
    log.jsonl           a line per report: iteration, loss, learning rate, images/s, and PSNR/SSIM when validated
    curve.png           loss and PSNR over the run
"""

import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import broadcast
from torch import Tensor
from torch.utils.data import DataLoader

from unblur.runtime.atomic import atomic_file
from unblur.runtime.errors import BadInput, SpecMismatch, UnblurError
from unblur.runtime.frames import Frame, Padding, batch_from_frame, frame_from_batch
from unblur.runtime.metrics import psnr_db, ssim
from unblur.runtime.spec import ModelSpec
from unblur.train.checkpoint import (
    TrainingState,
    flat_optimizer_state,
    load_state,
    restore_optimizer_state,
    save_network,
    save_state,
)
from unblur.train.curve import draw_curve
from unblur.train.data import CropDataset, PairOfFrames, TrainingData, validation_frames
from unblur.train.losses import SupervisedNetwork
from unblur.train.networks import DeblurringNetwork
from unblur.train.recipe import Recipe

_ENDLESS = 10**9  # iterations of a run that is bounded by time
_VALIDATION_CROP = 512
STATE_FILE = "state.safetensors"
LOG_FILE = "log.jsonl"
CURVE_FILE = "curve.png"


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


@dataclass(frozen=True)
class Report:
    """One line of the log. psnr_db, ssim: of the averaged weights on the validation frames, if just measured."""

    iteration: int
    share_done: float
    loss: float
    learning_rate: float
    images_per_s: float
    elapsed_s: float
    psnr_db: float | None = None
    ssim: float | None = None


def train(
    network: DeblurringNetwork,
    recipe: Recipe,
    data: TrainingData,
    length: Length,
    run: Path,
    *,
    resume: bool = False,
    workers: int = 1,
    schedule: Schedule = Schedule(),
    on_report: Callable[[Report], None] = lambda report: None,
) -> Path:
    """Train `network` and return the path of the averaged weights.

    run: the folder of the run, made if missing. resume: go on from its last whole checkpoint.
    workers: processes that prepare samples. on_report: called with every line of the log, on the main process.
    Raises UnblurError naming the iteration if the loss is not finite; the last checkpoint is kept.
    """
    accelerator = _accelerator()
    state = _open_run(run, network.spec, recipe, resume=resume)
    start, spent_s = (state.iteration, state.elapsed_s) if state else (0, 0.0)
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    if state:
        network.load_state_dict(dict(state.network))
        restore_optimizer_state(optimizer, state.optimizer)
    loader = _loader(CropDataset(data, recipe, length.most_iterations * recipe.batch), recipe, start, workers)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    supervised, optimizer, loader = accelerator.prepare(
        SupervisedNetwork(network, recipe.fft_weight), optimizer, loader
    )
    average = AveragedWeights(network, recipe.ema_decay, state.ema if state else None)
    validate = _Validator(network, average, validation_frames(data, recipe, _VALIDATION_CROP))
    log = _Log(run, on_report) if accelerator.is_main_process else None
    clock = _Clock(spent_s, accelerator)
    reported, checkpointed_s = (start, spent_s), spent_s

    for iteration, (blurred, sharp) in enumerate(loader, start=start + 1):
        share_done = length.share_done(iteration - 1, clock.elapsed_s())
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(share_done, recipe)
        optimizer.zero_grad()
        loss = supervised(blurred.contiguous(memory_format=torch.channels_last), sharp)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(supervised.parameters(), recipe.gradient_clip)
        loss_value = float(accelerator.reduce(loss.detach(), "mean"))
        _check_finite(loss_value, iteration, run)
        optimizer.step()
        average.update(network, iteration)

        elapsed_s = clock.elapsed_s()
        is_last = length.share_done(iteration, elapsed_s) >= 1
        if log and (is_last or iteration % schedule.report_every == 0):
            speed = (iteration - reported[0]) * recipe.batch / (elapsed_s - reported[1])
            measured = validate() if is_last or iteration % schedule.validate_every == 0 else (None, None)
            rate = learning_rate_at(share_done, recipe)
            log.write(Report(iteration, share_done, loss_value, rate, speed, elapsed_s, *measured))
            reported = (iteration, clock.elapsed_s(agreed=False))
        if log and (is_last or elapsed_s - checkpointed_s >= schedule.checkpoint_s):
            moments = flat_optimizer_state(optimizer)
            weights = network.state_dict()
            spec = network.spec
            save_state(
                run / STATE_FILE,
                TrainingState(weights, average.weights, moments, spec, recipe, iteration, elapsed_s),
            )
            checkpointed_s = elapsed_s
        if is_last:
            break

    weights_path = run / f"{network.spec.preset}.safetensors"
    if log:
        network.load_state_dict(average.weights)
        save_network(weights_path, network, recipe, data.names)
        draw_curve(run / LOG_FILE, run / CURVE_FILE)
    accelerator.wait_for_everyone()
    return weights_path


def learning_rate_at(share_done: float, recipe: Recipe) -> float:
    """Linear warm-up over `warmup_share` of the run, then half a cosine down to the final rate."""
    if share_done < recipe.warmup_share:
        return recipe.learning_rate * (0.05 + 0.95 * share_done / recipe.warmup_share)
    phase = (share_done - recipe.warmup_share) / (1 - recipe.warmup_share)
    half_range = (recipe.learning_rate - recipe.final_learning_rate) / 2
    return recipe.final_learning_rate + half_range * (1 + math.cos(math.pi * phase))


class AveragedWeights:
    """Exponential moving average of a network's weights; the decay ramps up so that early weights are forgotten."""

    def __init__(self, network: DeblurringNetwork, decay: float, weights: Mapping[str, Tensor] | None) -> None:
        current = network.state_dict()
        self._decay = decay
        self.weights = {
            name: (weights[name] if weights else tensor).detach().clone().to(tensor.device)
            for name, tensor in current.items()
        }

    @torch.no_grad()
    def update(self, network: DeblurringNetwork, iteration: int) -> None:
        decay = min(self._decay, (1 + iteration) / (10 + iteration))
        current = network.state_dict()
        torch._foreach_lerp_(list(self.weights.values()), [current[name] for name in self.weights], 1 - decay)


class _Validator:
    """Mean PSNR and SSIM of the averaged weights over fixed frames."""

    def __init__(
        self, network: DeblurringNetwork, average: AveragedWeights, frames: Sequence[PairOfFrames]
    ) -> None:
        self._shadow = copy.deepcopy(network).eval()
        self._average = average
        self._frames = frames

    @torch.no_grad()
    def __call__(self) -> tuple[float, float]:
        self._shadow.load_state_dict(self._average.weights)
        restored = [self._restore(blurred) for blurred, _ in self._frames]
        sharp = [sharp for _, sharp in self._frames]
        return (
            float(np.mean([psnr_db(a, b) for a, b in zip(restored, sharp, strict=True)])),
            float(np.mean([ssim(a, b) for a, b in zip(restored, sharp, strict=True)])),
        )

    def _restore(self, blurred: Frame) -> Frame:
        padding = Padding.to_multiple(blurred.shape[:2], self._shadow.spec.multiple_of)
        device = next(self._shadow.parameters()).device
        output = self._shadow(torch.from_numpy(batch_from_frame(blurred, padding)).to(device))
        return frame_from_batch(output.float().cpu().numpy(), padding)


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


class _Log:
    """Appends reports to log.jsonl and hands them on."""

    def __init__(self, run: Path, on_report: Callable[[Report], None]) -> None:
        self._path = run / LOG_FILE
        self._on_report = on_report

    def write(self, report: Report) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(report)) + "\n")
        self._on_report(report)


def _accelerator() -> Accelerator:
    has_gpu = torch.cuda.is_available()
    return Accelerator(
        cpu=not has_gpu,
        mixed_precision="bf16" if has_gpu else "no",
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )


def _loader(dataset: CropDataset, recipe: Recipe, start: int, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Samples in order from iteration `start`: the order is random because each sample is."""
    return DataLoader(
        dataset,
        batch_size=recipe.batch,
        sampler=range(start * recipe.batch, len(dataset)),
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
    )


def _open_run(run: Path, spec: ModelSpec, recipe: Recipe, *, resume: bool) -> TrainingState | None:
    """Make the folder, or read the state to resume from and forget log lines written after it."""
    run.mkdir(parents=True, exist_ok=True)
    path = run / STATE_FILE
    if not resume:
        if path.exists():
            raise BadInput(f"{run} holds a run already; --resume it or choose another folder")
        return None
    if not path.exists():
        return None  # killed before its first checkpoint: begin again
    state = load_state(path)
    if state.spec != spec or state.recipe != recipe:
        what = "network" if state.spec != spec else "recipe"
        raise SpecMismatch(f"{path} was trained with another {what}; resume with the options of its start")
    _forget_after(run / LOG_FILE, state.iteration)
    return state


def _forget_after(log: Path, iteration: int) -> None:
    lines = log.read_text().splitlines() if log.exists() else []
    whole = [line for line in lines if line.endswith("}")]
    kept = [line for line in whole if json.loads(line)["iteration"] <= iteration]
    with atomic_file(log) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))


def _check_finite(loss: float, iteration: int, run: Path) -> None:
    if not math.isfinite(loss):
        raise UnblurError(
            f"the loss is {loss} at iteration {iteration}; the last good checkpoint is kept in {run}; "
            "lower --learning-rate"
        )
