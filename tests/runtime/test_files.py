"""Files and folders appear whole or not at all."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unblur.runtime.errors import BadInput
from unblur.runtime.files import atomic_file, atomic_folder, recover_folder, temporary_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_replaces_the_old_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == ".png"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.png"]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")

    def half() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.png"]


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.unblur"
    path.mkdir()
    (path / "old").touch()
    with atomic_folder(path) as temporary:
        (temporary / "new").touch()
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["x.unblur"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.unblur"
    path.mkdir()
    (path / "old").touch()

    def half() -> None:
        with atomic_folder(path) as temporary:
            (temporary / "new").touch()
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert names(path) == ["old"]
    assert names(tmp_path) == ["x.unblur"]


def test_what_cannot_be_written_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(BadInput, match=r"the folder .*nowhere does not exist; create it first"),
        atomic_file(tmp_path / "nowhere/a.png"),
    ):
        pass
    with (
        pytest.raises(BadInput, match=r"the folder .*nowhere does not exist"),
        atomic_folder(tmp_path / "nowhere/x"),
    ):
        pass
    with (
        pytest.raises(BadInput, match=r"cannot write .*a\.png: No space left on device"),
        atomic_file(tmp_path / "a.png"),
    ):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []


def left_over(path: Path, process: int) -> Path:
    """As a run of that number leaves it."""
    name = temporary_path(path).name.replace(f".{os.getpid()}.", f".{process}.")
    return path.with_name(name)


def gone_process() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        return process.pid


def test_left_overs_of_killed_runs_are_removed(tmp_path: Path) -> None:
    path, other = tmp_path / "a.png", tmp_path / "b.png"
    gone = gone_process()
    left_over(path, gone).write_text("half")
    left_over(path, gone).mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "target/kept").touch()
    left_over(path, gone).symlink_to(tmp_path / "target")
    running, others = left_over(path, os.getppid()), left_over(other, gone)
    running.touch()
    others.touch()
    with atomic_file(path) as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == sorted(["a.png", running.name, others.name, "target"])
    assert names(tmp_path / "target") == ["kept"]


def test_temporary_names_cannot_be_foreseen_or_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    assert temporary_path(path) != temporary_path(path)
    (tmp_path / "victim").write_text("mine")
    trap = temporary_path(path)
    trap.symlink_to(tmp_path / "victim")
    monkeypatch.setattr("unblur.runtime.files.temporary_path", lambda path: trap)
    with pytest.raises(BadInput, match=r"cannot write .*a\.png: File exists"), atomic_file(path) as temporary:
        temporary.write_text("overwritten")
    assert (tmp_path / "victim").read_text() == "mine"


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 251 + ".png")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == [path.name]


def replace_file(path: Path) -> None:
    with atomic_file(path / "a") as temporary:
        temporary.write_text("new")


def replace_folder(path: Path) -> None:
    with atomic_folder(path / "a") as temporary:
        (temporary / "content").write_text("new")
        (temporary / "sub").mkdir()
        (temporary / "sub/more").write_text("new")


def killed_at(step: int, call: Callable[[Path], None], path: Path) -> bool:
    """Fork, and kill the child before its `step`-th call that may change a file system; False if it got through."""
    child = os.fork()
    if child == 0:
        events = itertools.count()

        def hook(event: str, _: object) -> None:
            if event in CHANGES and next(events) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        call(path)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


CHANGES = {
    "open",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "ctypes.call_function",
    "ctypes.dlsym",
}


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "aside"])
@pytest.mark.parametrize("replace", [replace_file, replace_folder])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(
    tmp_path: Path, replace: Callable[[Path], None], exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr("unblur.runtime.files._exchange", lambda first, second: False)
    found, step = set[str](), 0
    while True:
        path = tmp_path / str(step)
        path.mkdir()
        content = path / "a" / "content" if replace is replace_folder else path / "a"
        content.parent.mkdir(exist_ok=True)
        content.write_text("old")
        killed = killed_at(step, replace, path)
        if not exchange:
            recover_folder(path / "a")
        found.add(content.read_text())
        if replace is replace_folder and content.read_text() == "new":
            assert (path / "a/sub/more").read_text() == "new"
        replace(path)  # the next run cleans up
        assert (content.read_text(), names(path)) == ("new", ["a"])
        step += 1
        if not killed:
            break
    assert found == {"old", "new"}
    assert step > 4
