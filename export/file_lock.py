"""A lock between processes: one works, the others wait. It ends with the process that holds it."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unblur.runtime.errors import BadInput


@contextmanager
def exclusive(path: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the lock file `path`, which stays behind empty; `waiting` is called once if another process has it.

    Removing the file would let a process lock a name that is gone while the next one locks a new file.
    Raises BadInput if the file cannot be made.
    """
    try:
        file = path.open("ab")
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
