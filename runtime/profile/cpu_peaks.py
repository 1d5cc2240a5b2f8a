"""What this CPU can do at most: products of matrices and copies of memory, each as fast as they ever ran.

    OPENBLAS_NUM_THREADS=1 python -m unblur.runtime.profile.cpu_peaks 1

prints it as JSON. It is a program, and `measure_peaks` runs it as one, because a BLAS takes its number of threads
from the environment when it is loaded, not later.
"""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from unblur.runtime.profile.inputs import last_level_cache

SIDES = (384, 768, 1536)
"""Of square matrices, float32: the largest do not fit into a cache, the smallest do not keep many cores busy."""

_CACHES_COPIED = 4
_SECONDS = 0.25


def gflops() -> float:
    """The fastest product of two float32 matrices, with as many threads as numpy's BLAS has."""
    return max(_product(side) for side in SIDES)


def gbytes_per_s(threads: int) -> float:
    """The fastest copy between arrays that no cache holds, each thread a part; bytes read and bytes written."""
    source = np.ones(_CACHES_COPIED * last_level_cache(), np.uint8)
    target = np.empty_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        seconds = _fastest(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))
    return 2 * source.nbytes / seconds / 1e9


def _product(side: int) -> float:
    left, right = np.random.default_rng(side).random((2, side, side), np.float32)
    result = np.empty_like(left)
    return 2 * side**3 / _fastest(lambda: np.matmul(left, right, out=result)) / 1e9


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls, after one that warms up."""
    work()
    times: list[float] = []
    while len(times) < 2 or sum(times) < _SECONDS:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"gflops": gflops(), "gbytes_per_s": gbytes_per_s(int(sys.argv[1]))}))
