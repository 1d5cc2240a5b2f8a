"""Write a file or a folder so that it is there whole or not at all; make the folder they go into."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unblur.runtime.errors import BadInput

_LONGEST_SECRET = 4096  # characters


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any error.

    The temporary name keeps the suffix, because writers choose their format by it. The bytes are flushed to the
    disk before the rename, so a power cut leaves the old file or the new one. OSError (disk full, not
    writable) becomes BadInput with the path.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        require_parent(path)
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; swap it in on success, remove it on any error.

    An existing folder at `path` is replaced as a whole: it is moved aside first and deleted last.
    """
    require_parent(path)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
    aside = temporary.with_suffix(".old")
    try:
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                _flush(file)
        temporary.chmod(0o755)
        if path.exists():
            path.replace(aside)
        temporary.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if aside.exists() and not path.exists():
            aside.replace(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it unless they are there; BadInput with the path if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot make the folder {path}: {error.strerror}; choose another") from error


def require_parent(path: Path) -> None:
    """Raise BadInput if the folder that `path` goes into is not there; to be asked before long work."""
    if not path.parent.is_dir():
        raise BadInput(f"cannot write {path}: the folder {path.parent} does not exist; create it first")


def exists(path: Path) -> bool:
    """False also for a name that no file can have: too long, or with a NUL."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def read_secret(path: Path) -> str:
    """The first line of a file that holds a password or a token; BadInput if it cannot be read or is empty."""
    try:
        with path.open(encoding="utf-8") as file:
            secret = file.readline(_LONGEST_SECRET).strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise BadInput(f"cannot read {path}: {reason}") from error
    if not secret:
        raise BadInput(f"{path} is empty, expected a password or a token in its first line")
    return secret


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
