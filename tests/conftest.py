"""For every test: one thread of arithmetic, so that small networks are not slowed by their own barriers, and one
fixed choice of the variant that runs, so that none is timed; tests/runtime/test_choose_variant.py times them.
"""

import os
from collections.abc import Callable

import pytest

from unblur.runtime.model import open_model
from unblur.runtime.model.bundle import Bundle
from unblur.runtime.model.choose_variant import Choice, TimedCandidate, candidates_of

os.environ.setdefault("OMP_NUM_THREADS", "1")


FIXED_MS = {
    **{("int8", "tensorrt"): 1.0, ("fp16", "tensorrt"): 2.0, ("fp32", "tensorrt"): 3.0},
    **{("fp32", "cpu"): 10.0, ("fp16", "cpu"): 15.0, ("int8", "cpu"): 20.0},
}


def fixed_choice(bundle: Bundle, open_candidate: Callable[..., object], *, threads: int | None = None) -> Choice:
    """As if every candidate had been timed."""
    timed = (each for each in candidates_of(bundle) if each in FIXED_MS)
    return Choice("", (360, 640), tuple(TimedCandidate(*each, FIXED_MS[each]) for each in timed))


@pytest.fixture(autouse=True)
def fixed_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_model, "choose_variant", fixed_choice)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is written into the user's cache, by processes of the tests either."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
