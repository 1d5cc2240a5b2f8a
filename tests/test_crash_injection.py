"""Killed before any of the system calls that write, everything that is written is what it was or what it became.

strace counts the calls of one run, and kills one run at each of them.
"""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from engine_workshop import SPEC, Workshop

from unblur.runtime.files import atomic_file, atomic_folder, recover_folder
from unblur.runtime.tensorrt.engine_file import hash_of, read_engine, read_record, write_engine
from unblur.train.checkpoint import TrainingState, load_state, save_state
from unblur.train.recipe import RECIPES

pytestmark = [
    pytest.mark.skipif(shutil.which("strace") is None, reason="NO CRASH IS INJECTED: apt-get install strace"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

_CALLS = "open openat creat write pwrite64 writev fsync fdatasync rename renameat renameat2 unlink unlinkat mkdir"
_CALLS += " mkdirat rmdir chmod fchmod fchmodat truncate ftruncate link linkat symlink symlinkat copy_file_range"
WRITING = ",".join(f"?{name}" for name in _CALLS.split())  # ?: not every processor has each
_READS = re.compile(r"open(at)?\(.*O_RDONLY")


@dataclass(frozen=True)
class Store:
    """Something that is written. write: put the old or the new content into a folder. read: which of them is there,
    after what the next reader recovers. left: what belongs there.
    """

    write: Callable[[Path, str], object]
    read: Callable[[Path], str]
    left: frozenset[str]


def _write_file(folder: Path, content: str) -> None:
    with atomic_file(folder / "a") as temporary:
        temporary.write_text(content)


def _write_folder(folder: Path, content: str) -> None:
    with atomic_folder(folder / "a") as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub/more").write_text(content)
        (temporary / "content").write_text(content)


def _read_folder(folder: Path) -> str:
    recover_folder(folder / "a")
    content = (folder / "a/content").read_text()
    assert (folder / "a/sub/more").read_text() == content
    return content


_WEIGHTS = {"weight": torch.arange(8.0)}


def _write_state(folder: Path, content: str) -> None:
    iteration, averages = ("old", "new").index(content), {"weight": torch.zeros(8)}
    groups = (_WEIGHTS, averages, {}, {}, {})
    state = TrainingState(*groups, spec=SPEC, recipe=RECIPES["lprn"], iteration=iteration, elapsed_s=1.0)
    save_state(folder / "state.safetensors", state)


def _read_state(folder: Path) -> str:
    state = load_state(folder / "state.safetensors")
    assert torch.equal(state.network["weight"], _WEIGHTS["weight"])
    return ("old", "new")[state.iteration]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Store:
    record = read_record(Workshop(tmp_path_factory.mktemp("engines")).build())
    names = {f"{record.identity.key}.engine", f"{record.identity.key}.json"}

    def write(folder: Path, content: str) -> Path:
        data = content.encode()
        return write_engine(folder, data, replace(record, engine_sha256=hash_of(data), engine_bytes=len(data)))

    def read(folder: Path) -> str:
        engine = folder / f"{record.identity.key}.engine"
        return read_engine(engine, read_record(engine)).decode()

    return Store(write, read, frozenset(names))


STORES = {
    "file": Store(_write_file, lambda folder: (folder / "a").read_text(), frozenset({"a"})),
    "folder": Store(_write_folder, _read_folder, frozenset({"a"})),
    "folder without exchange": Store(_write_folder, _read_folder, frozenset({"a"})),
    "checkpoint": Store(_write_state, _read_state, frozenset({"state.safetensors"})),
}


def traced(call: Callable[[], object], *options: str) -> int:
    """The exit status of a fork that does `call` under strace with these options."""
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(wait, 1)
        call()
        os._exit(0)
    os.close(wait)
    command = ["strace", "-p", str(child), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        said = strace.stderr.readline()
        if "not permitted" in said:
            os.close(go)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.skip(f"NO CRASH IS INJECTED: strace may not attach here: {said.strip()}")
        assert "attached" in said, said
        os.close(go)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def moments(call: Callable[[], object], log: Path) -> Iterator[tuple[str, int]]:
    """(system call, the how-many-eth of its name) for each that writes."""
    assert traced(call, "-e", f"trace={WRITING}", "-o", str(log)) == 0
    seen = Counter[str]()
    for line in log.read_text().splitlines():
        name = line.partition("(")[0]
        seen[name] += 1
        if line[0].isalpha() and not _READS.match(line):
            yield name, seen[name]


@pytest.mark.parametrize("name", [*STORES, "engines"])
def test_a_kill_at_any_system_call_leaves_the_old_or_the_new(
    name: str, engines: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = STORES.get(name, engines)
    if name == "folder without exchange":
        monkeypatch.setattr("unblur.runtime.files._exchange", lambda first, second: False)
    (first := tmp_path / "first").mkdir()
    store.write(first, "old")
    found = []
    for index, (call, nth) in enumerate(list(moments(lambda: store.write(first, "new"), tmp_path / "log"))):
        (folder := tmp_path / str(index)).mkdir()
        store.write(folder, "old")
        killed = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={nth}", "-o", "/dev/null")
        assert traced(lambda folder=folder: store.write(folder, "new"), *killed) == -signal.SIGKILL
        found.append(store.read(folder))
        store.write(folder, "new")  # the next run cleans up
        assert (store.read(folder), {path.name for path in folder.iterdir()}) == ("new", store.left)
    assert set(found) == {"old", "new"}
    assert found == sorted(found, reverse=True)  # old up to one moment, new from there
