"""How training uses the machine: bf16 where it is fast, the number of threads measured, float32 at the end.

bf16 convolutions run several times faster than float32 on GPUs and on CPUs with AMX or AVX512-BF16. More threads
are not always faster: cores may share what they compute with, and a second one then costs more than it brings.
"""

import logging
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor, nn

_TRIALS = 3
_TRIAL_S = 1.0
_log = logging.getLogger(__name__)


def make_accelerator() -> Accelerator:
    """On a GPU if there is one."""
    has_gpu = torch.cuda.is_available()
    torch.backends.cudnn.benchmark = has_gpu
    return Accelerator(cpu=not has_gpu)


def has_fast_bf16(device_type: str) -> bool:
    """Whether the processor multiplies bf16 in hardware: GPUs do, of CPUs those with AMX or AVX512-BF16."""
    if device_type != "cpu":
        return True
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def fastest_threads(step: Callable[[], object]) -> int:
    """The number of threads with which `step` is fastest, measured for a few seconds; it is set from then on.

    Tried are 1, 2, 4 ... up to those torch has now (OMP_NUM_THREADS bounds them).
    """
    most: int = torch.get_num_threads()
    candidates = sorted({min(2**power, most) for power in range(most.bit_length() + 1)})
    if len(candidates) == 1:
        return most
    step()
    times_s = {threads: _median_s(step, threads) for threads in candidates}
    fastest: int = min(candidates, key=lambda threads: times_s[threads])
    torch.set_num_threads(fastest)
    listed = ", ".join(f"{threads}: {1e3 * time_s:.0f} ms" for threads, time_s in times_s.items())
    _log.info("a step takes by threads %s; training with %d", listed, fastest)
    return fastest


def _median_s(step: Callable[[], object], threads: int) -> float:
    torch.set_num_threads(threads)
    times_s: list[float] = []
    while len(times_s) < _TRIALS and sum(times_s) < _TRIAL_S:
        began_s = time.perf_counter()
        step()
        times_s.append(time.perf_counter() - began_s)
    return statistics.median(times_s)


def spare_workers(threads: int) -> int:
    """Processes that prepare crops beside a training on so many threads: the other cores, at least one."""
    return max(1, (os.cpu_count() or 1) - threads)


@contextmanager
def thread_count(threads: int | None) -> Iterator[None]:
    """Run with so many threads of torch, None for those it has, and restore what it had before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def in_float32(layers: Sequence[nn.Module], device_type: str) -> Iterator[None]:
    """Let these layers compute in float32 although autocast is on around them."""
    for layer in layers:
        layer.forward = _without_autocast(layer.forward, device_type)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _without_autocast(forward: Callable[[Tensor], Tensor], device_type: str) -> Callable[[Tensor], Tensor]:
    def compute(features: Tensor) -> Tensor:
        with torch.autocast(device_type, enabled=False):
            return forward(features.float())

    return compute
