"""What every command owes to every input: an exit code of 0, 1 or 2, never a traceback; with 2 one line that says
why, nothing on stdout, and nothing left behind.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from unblur.runtime.cli.main import main

_CODES = (0, 1, 2)
_LOGGED = re.compile("unblur: .* (runs on|has no model spec)")  # which model, before it turned out what is wrong


class BrokenContract(AssertionError):
    """Says what was done, and which part of the contract it broke."""


@dataclass(frozen=True)
class Outcome:
    """Of one command. left: what is in the folder of its outputs afterwards."""

    arguments: tuple[str, ...]
    code: int | str
    stdout: str
    stderr: str
    left: tuple[str, ...]

    def check(self) -> "Outcome":
        """Raises BrokenContract; gives the outcome, so that a test can go on with it."""
        if self.code not in _CODES or "Traceback (most recent call last)" in self.stderr:
            raise self._broken(f"exit code {self.code}")
        if self.code == 2:
            *before, line, end = ("", *self.stderr.split("\n"))
            if end or not line.startswith("unblur: ") or not all(map(_LOGGED.match, before[1:])):
                raise self._broken("stderr is not one line")
            if not line.isprintable():
                raise self._broken("stderr holds what controls a terminal")
            if self.stdout or self.left:
                raise self._broken(f"it printed {self.stdout!r:.80} and left {self.left}")
        return self

    def _broken(self, what: str) -> BrokenContract:
        return BrokenContract(f"unblur {' '.join(self.arguments)}: {what}\n{self.stderr[-3000:]}")


def call(*arguments: object, out: Path) -> Outcome:
    """`unblur ARGUMENTS` in this process, with all that it and its libraries write to the standard streams.

    out: the folder that its outputs go to.
    """
    words = tuple(map(str, arguments))
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        with _redirected(1, stdout), _redirected(2, stderr):
            code = _run(words)
        texts = (_contents(stdout), _contents(stderr))
    return Outcome(words, code, *texts, tuple(sorted(path.name for path in out.iterdir())))


def _run(words: tuple[str, ...]) -> int | str:
    argv, sys.argv = sys.argv, ["unblur", *words]
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    except BaseException as error:  # noqa: BLE001 - whatever a shell would show as a traceback
        return f"{type(error).__name__}: {error}"
    finally:
        sys.argv = argv
    return 0


@contextmanager
def _redirected(number: int, file: IO[bytes]) -> Iterator[None]:
    """Both the file of the system and Python's."""
    name, kept = ("stdout", "stderr")[number - 1], os.dup(number)
    before = getattr(sys, name)
    before.flush()
    os.dup2(file.fileno(), number)
    stream = open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    setattr(sys, name, stream)
    try:
        yield
    finally:
        try:
            stream.close()
        finally:
            setattr(sys, name, before)
            os.dup2(kept, number)
            os.close(kept)


def _contents(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
