"""Kernel timings that TensorRT has measured on this device, kept for the next build: minutes become seconds.

One file per flavour, version and architecture, in `$XDG_CACHE_HOME/unblur/timings` (~/.cache). Builds that run at
the same time each add what they measured.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unblur.runtime.errors import BadInput
from unblur.runtime.files import atomic_file
from unblur.runtime.tensorrt.engine_file import EngineIdentity


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


@dataclass(frozen=True)
class TimingCache:
    """The file of one device. Its bytes are TensorRT's, which refuses those of another device itself."""

    path: Path

    def read(self) -> bytes:
        """What is stored; empty before the first build."""
        return self.path.read_bytes() if self.path.is_file() else b""

    def update(self, merged: Callable[[bytes], bytes]) -> None:
        """Replace what is stored by `merged` of it, while no other process does."""
        with exclusive(self.path.with_suffix(".lock")):
            data = merged(self.read())
            with atomic_file(self.path) as temporary:
                temporary.write_bytes(data)


def timing_cache(identity: EngineIdentity) -> TimingCache:
    """The cache that an engine's build may use; BadInput if its folder cannot be made."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(home) if home else Path.home() / ".cache") / "unblur" / "timings"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot make {folder} for kernel timings: {error.strerror}; see XDG_CACHE_HOME") from error
    return TimingCache(folder / f"{identity.flavour}-{identity.version}-sm{identity.sm}.timings")
