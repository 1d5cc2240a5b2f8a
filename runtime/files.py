"""Write a file or a folder so that it is there whole or not at all; make the folder they go into."""

import ctypes
import os
import re
import secrets
import shutil
import socket
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import gettempdir

from unblur.runtime.errors import BadInput

_LONGEST_SECRET = 4096  # characters
_LONGEST_STEM = 32  # of a temporary name, which has the 255 bytes of any other
_A_DAY_S = 24 * 3600
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any error.

    The temporary file is empty, of an unpredictable name, and opened exclusively; its name keeps the suffix,
    because writers choose their format by it. The bytes, and then the folder, are flushed to the disk, so a power
    cut leaves the old file or the new one. What a killed run left of the same file is removed.
    OSError (disk full, not writable) becomes BadInput with the path, and so is what is there and is not a file.
    """
    with _write_errors(path):
        require_file_place(path)
        remove_left_overs(path)
        temporary = temporary_path(path)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        with _write_errors(path):
            yield temporary
            _flush(temporary)
            temporary.replace(path)
            _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; swap it in on success, remove it on any error.

    An existing folder at `path` is exchanged in one step where the system can (Linux), and deleted then. Elsewhere
    it is moved aside first; `recover_folder` brings it back after a kill between the two. Otherwise as a file.
    """
    with _write_errors(path):
        recover_folder(path)
    with scratch_folder(path) as temporary, _write_errors(path):
        yield temporary
        _flush_tree(temporary)
        temporary.chmod(0o755)
        _put_folder(temporary, path)
        _flush_folder(path.parent)


@contextmanager
def scratch_folder(path: Path | None = None) -> Iterator[Path]:
    """A hidden folder beside `path`, without one where temporary files go; removed at the end.

    What killed runs left there is removed first. Raises BadInput if it cannot be made.
    """
    path = path or Path(gettempdir()) / "unblur"
    with _write_errors(path):
        require_parent(path)
        remove_left_overs(path)
        folder = temporary_path(path)
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Bring back the old folder if a run was killed after it moved it aside; remove it if the new one is there."""
    if not path.name or not exists(aside := _aside(path)):
        return
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.replace(path)


def temporary_path(path: Path) -> Path:
    """A new name beside `path` that nobody can foresee; it says of which target, process and machine it is."""
    return path.with_name(f"{_prefix(path)}{os.getpid()}.{_machine()}.{secrets.token_hex(8)}.partial{path.suffix}")


def remove_left_overs(path: Path) -> None:
    """Remove what runs that are gone have left of `path`, files and folders: of this machine all, of others, such
    as a container that was removed, what is older than a day.
    """
    name = re.compile(rf"{re.escape(_prefix(path))}(\d+)\.([0-9a-f]{{8}})\.[0-9a-f]{{16}}\.partial")
    for left in path.parent.iterdir():
        match = name.match(left.name)
        if match is None or _may_be_written(left, int(match[1]), match[2]):
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):  # another user's
                left.unlink()


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


def require_file_place(path: Path) -> None:
    """As `require_parent`, and BadInput if what is at `path` is not a file, which would be replaced or block."""
    require_parent(path)
    if path.exists() and not path.is_file():
        kind = "folder" if path.is_dir() else "device or a pipe"
        raise BadInput(f"cannot write {path}: it is a {kind}, not a file")


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


def _prefix(path: Path) -> str:
    return f".{path.stem[:_LONGEST_STEM]}.{zlib.crc32(os.fsencode(path.name)):08x}."


def _aside(path: Path) -> Path:
    return path.with_name(f"{_prefix(path)}old")


@cache
def _machine() -> str:
    """Of this machine, or container: the numbers of others' processes mean nothing here."""
    namespace = Path("/proc/self/ns/pid")
    inside = str(namespace.readlink()) if namespace.is_symlink() else ""
    return f"{zlib.crc32(f'{socket.gethostname()} {inside}'.encode()):08x}"


def _may_be_written(left: Path, process: int, machine: str) -> bool:
    if machine == _machine():
        return _is_running(process)
    return time.time() - left.lstat().st_mtime < _A_DAY_S


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _put_folder(temporary: Path, path: Path) -> None:
    """Rename; what was at `path` is then at `temporary`, or gone."""
    if not path.exists():
        temporary.replace(path)
    elif not _exchange(temporary, path):
        aside = _aside(path)
        path.replace(aside)
        temporary.replace(path)
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step, renameat2(2); False where the system or the file system cannot."""
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None, use_errno=True), "renameat2"):
        return False
    paths = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second))
    return bool(libc.renameat2(*paths, _RENAME_EXCHANGE) == 0)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error


def _flush_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _flush(path)
        elif path.is_dir():
            _flush_folder(path)
    _flush_folder(folder)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """So that the names in it are on the disk; not every system can open a folder, or flush one."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
