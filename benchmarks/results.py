"""Runs of the benchmarks, stored: one JSON file each, with the machine, the versions and the commit.

path = store(run, folder)
before = last_like(outcome, run.machine, stored_runs(folder, print))
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from unblur.runtime.files import atomic_file, make_folder
from unblur.runtime.strict_json import parse_document, to_json

SCHEMA = 1


@dataclass(frozen=True)
class Outcome:
    """What became of one benchmark.

    options: it was called with; only outcomes of the same, which say how large and how long, can be compared.
    failure: why there are no figures; "" if there are.
    """

    benchmark: str
    options: tuple[str, ...]
    seconds: float
    figures: tuple[Figure, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Run:
    """One call of `python -m benchmarks`. created: UTC, ISO 8601.

    environment: see `unblur.runtime.machine.facts`."""

    created: str
    machine: str
    environment: Mapping[str, object]
    outcomes: tuple[Outcome, ...] = ()
    schema: int = SCHEMA

    @property
    def commit(self) -> str:
        """The first letters of the commit, "-dirty" behind it if files differed; "unknown" without a checkout."""
        commit, dirty, _ = str(self.environment.get("commit") or "unknown").partition("-dirty")
        return f"{commit[:8]}{dirty}"


def machine_kind(environment: Mapping[str, Any]) -> str:
    """What must be equal for times to be compared: the model of CPU, its threads, the GPU, the board."""
    cpu, gpu = environment["cpu"], environment["gpu"]
    parts = [f"{cpu['model']}, {cpu['threads']} threads", gpu and gpu["name"], environment["board"]]
    return ", ".join(part for part in parts if part)


def store(run: Run, folder: Path) -> Path:
    """Write a run, over what was written of it before; BadInput if that cannot be."""
    make_folder(folder)
    path = folder / f"{run.created.replace(':', '-')}-{run.commit}.json"
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(to_json(run), indent=1) + "\n")
    return path


def stored_runs(folder: Path, warn: Callable[[str], object]) -> list[Run]:
    """Those in a folder, the newest first. One that cannot be read is told to `warn` in a line and left out."""
    runs = []
    for path in sorted(folder.glob("*.json")):
        try:
            runs.append(read_run(path))
        except (OSError, ValueError) as error:
            warn(f"{path.name} is left out of the comparison: {error}; remove it")
    return sorted(runs, key=lambda run: run.created, reverse=True)


def read_run(path: Path) -> Run:
    """ValueError for a file that `store` has not written, or one of another schema."""
    return parse_document(Run, path.read_bytes(), "it", schema=SCHEMA)


def last_like(outcome: Outcome, machine: str, runs: Iterable[Run]) -> tuple[Run, Outcome] | None:
    """The first of `runs` in which that benchmark was measured with the same options on such a machine."""
    for run in runs:
        for before in run.outcomes:
            same = (before.benchmark, before.options) == (outcome.benchmark, outcome.options)
            if same and run.machine == machine and not before.failure:
                return run, before
    return None
