"""Files and folders appear whole or not at all."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from unblur.runtime.errors import BadInput
from unblur.runtime.files import atomic_file, atomic_folder, scratch_folder, temporary_path


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
    running, others, elsewhere = left_over(path, os.getppid()), left_over(other, gone), left_over(path, gone)
    machine = running.name.split(".")[-4]
    elsewhere = elsewhere.with_name(elsewhere.name.replace(machine, "0" * 8))
    for each in (running, others, elsewhere, old := elsewhere.with_name(elsewhere.name.replace(str(gone), "1"))):
        each.touch()
    os.utime(old, (0, 0))
    with atomic_file(path) as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == sorted(["a.png", running.name, others.name, elsewhere.name, "target"])
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


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_only_a_file_is_replaced(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/null") if kind == "device" else tmp_path / "a.mkv"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    message = f"cannot write {path}: it is a {'folder' if kind == 'folder' else 'device or a pipe'}, not a file"
    with pytest.raises(BadInput, match=message), atomic_file(path):
        pytest.fail("it was opened")


def test_intermediate_files_of_killed_runs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unblur.runtime.files.gettempdir", lambda: str(tmp_path))
    (left := left_over(tmp_path / "unblur", gone_process())).mkdir()
    (left / "half.onnx").touch()
    with scratch_folder() as folder:
        assert names(tmp_path) == [folder.name]
        (folder / "a.onnx").touch()
    assert names(tmp_path) == []


def test_only_the_age_of_left_overs_is_read_off_a_clock_that_may_be_set_back() -> None:
    """Everything else counts on a clock that only goes forward."""
    root = Path(__file__).parents[2]
    rooms = [root / room for room in ("runtime", "train", "calibration", "export")]
    reads = re.compile(r"time\.time\(|time\.time_ns\(|datetime\.now|\.utcnow|\.today\(")
    found = {file.name for room in rooms for file in room.rglob("*.py") if reads.search(file.read_text())}
    assert found == {"files.py"}


def test_a_left_over_from_the_future_stays(tmp_path: Path) -> None:
    """The clock was set back; it goes when the day has come."""
    elsewhere = left_over(tmp_path / "a.png", gone_process())
    elsewhere = elsewhere.with_name(elsewhere.name.replace(elsewhere.name.split(".")[-4], "0" * 8))
    elsewhere.touch()
    os.utime(elsewhere, (2**33, 2**33))
    with atomic_file(tmp_path / "a.png") as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == sorted(["a.png", elsewhere.name])
