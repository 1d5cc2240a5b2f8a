"""Files and folders appear whole or not at all."""

from pathlib import Path

import pytest

from unblur.runtime.errors import BadInput
from unblur.runtime.files import atomic_file, atomic_folder


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
