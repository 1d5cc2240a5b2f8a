"""Attack everything that reads what comes from outside, for a while: `make fuzz SECONDS=600`.

    python -m tests.fuzz --seconds 60

Each target runs in a process of its own, so that a crash of a library is a finding and not the end. What is found
is made as small as possible, written to tests/fuzz/corpus and replayed by the tests from then on.
"""

import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))  # as pytest does

import typer
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.contract import BrokenContract
from tests.fuzz.targets import TARGETS, Place

CORPUS = Path(__file__).parent / "corpus"
_CURRENT, _TRIED = "current", "tried"
_KNOWN = {_CURRENT, _TRIED, ".ses"}  # the last is written by ONNX Runtime
_OF_TORCH = "torchinductor"
_HANGS_AFTER_S = 120.0
_MEMORY = 12 << 30  # bytes of addresses; more is asked for by a file that lies about its size
_SETTINGS = settings(
    max_examples=200,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
    report_multiple_bugs=False,
)


def main(
    seconds: Annotated[float, typer.Option(help="For all targets together.")] = 60,
    first_seed: Annotated[int | None, typer.Option("--seed", help="Repeats a run; default another.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Attack this target alone; repeatable.")] = None,
    worker: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Attack each target in turn; exit with 1 if one broke the contract."""
    names = only or list(TARGETS)
    number = time.time_ns() % 10**6 if first_seed is None else first_seed
    if worker:
        _attack(names[0], seconds, number)
        return
    print(f"seed {number}, {seconds / len(names) * _processes():.0f} s a target")
    found = [finding for finding in _run_all(names, seconds, number) if finding]
    raise typer.Exit(1 if found else 0)


def _processes() -> int:
    return os.cpu_count() or 1


@dataclass
class _Worker:
    """The process that attacks one target, in a folder of its own."""

    name: str
    folder: Path
    process: "subprocess.Popen[str]"

    @classmethod
    def start(cls, name: str, folder: Path, seconds: float, number: int) -> "_Worker":
        folder.mkdir()
        (folder / "tmp").mkdir()
        command = [sys.executable, "-m", "tests.fuzz", "--worker", "--only", name]
        command += ["--seconds", str(seconds), "--seed", str(number)]
        place = {"TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        log = (folder / "log").open("w")
        process = subprocess.Popen(command, env={**os.environ, **place}, stdout=log, stderr=log, text=True)
        return cls(name, folder, process)

    @property
    def ended(self) -> bool:
        """Ends one that hangs."""
        current = self.folder / "tmp" / _CURRENT
        if current.exists() and time.time() - current.stat().st_mtime > _HANGS_AFTER_S:
            self.process.kill()
            self.process.wait()
        return self.process.poll() is not None

    def finding(self) -> str | None:
        """What was found, with the input saved; None if nothing was."""
        tried = self.folder / "tmp" / _TRIED
        count = tried.stat().st_size if tried.exists() else 0
        code = self.process.returncode
        print(f"{self.name:12} {count:7} inputs  {'ok' if code == 0 else 'FOUND'}", flush=True)
        if code == 0:
            return None
        current = self.folder / "tmp" / _CURRENT
        data = current.read_bytes() if current.exists() else b""
        saved = CORPUS / self.name / sha256(data).hexdigest()[:12]
        saved.parent.mkdir(parents=True, exist_ok=True)
        saved.write_bytes(data)
        log = (self.folder / "log").read_text().partition("Falsifying example")[0]
        how = f"ended by signal {-code}" if code < 0 else log[-2000:]
        print(f"{saved}: {how}", flush=True)
        return how


def _run_all(names: list[str], seconds: float, number: int) -> list[str | None]:
    waiting, running, found = list(names), list[_Worker](), list[str | None]()
    with tempfile.TemporaryDirectory(prefix="unblur-fuzz-") as root:
        while waiting or running:
            while waiting and len(running) < _processes():
                name = waiting.pop(0)
                budget = seconds / len(names) * _processes()
                running.append(_Worker.start(name, Path(root) / name, budget, number))
            time.sleep(0.2)
            found += [worker.finding() for worker in running if worker.ended]
            running = [worker for worker in running if worker.process.returncode is None]
    return found


class _Attack:
    """On one target, in this process: what was saved first, then new inputs until the time is over."""

    def __init__(self, name: str, seconds: float) -> None:
        self._tmp = Path(tempfile.gettempdir())
        (folder := self._tmp.parent / "place").mkdir()
        self._place = Place(folder)
        self._target, self._saved = TARGETS[name], sorted((CORPUS / name).glob("*"))
        self._seeds = self._target.seeds(self._place)
        self._ends_s = time.monotonic() + seconds
        self._tried = (self._tmp / _TRIED).open("wb", buffering=0)

    def run(self, number: int) -> None:
        """Raises what was found, of the smallest input that finds it; number: of the first seed."""
        for saved in self._saved:
            self._one(saved.read_bytes())
        while time.monotonic() < self._ends_s:
            self._look(number)
            number += 1
        names = {path.name for path in self._tmp.iterdir()} - _KNOWN
        left = sorted(name for name in names if not name.startswith(_OF_TORCH))
        if left:
            raise BrokenContract(f"left behind among the temporary files: {left[:5]}")

    def _look(self, number: int) -> None:
        @seed(number)
        @_SETTINGS
        @given(self._target.strategy(self._seeds))
        def attack(data: bytes) -> None:
            self._one(data)

        attack()

    def _one(self, data: bytes) -> None:
        if time.monotonic() > self._ends_s:
            return  # Hypothesis takes an error for a finding, and what comes and goes for a worse one
        (self._tmp / _CURRENT).write_bytes(data)
        try:
            self._target.attack(self._place, data)
        except BaseException:
            self._ends_s = math.inf  # to make it small takes as long as it takes
            raise
        self._tried.write(b".")


def _attack(name: str, seconds: float, number: int) -> None:
    """Body of a worker; exits with 1 at a finding."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _Attack(name, seconds).run(number)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
