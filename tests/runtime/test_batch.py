"""Many files in one run: what is taken, where it goes, what is left out; and the short way to ask for it."""

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unblur.runtime.cli.main import looks_like_source
from unblur.runtime.cli.run import is_batch, model_and_sources
from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import read_image, write_image
from unblur.runtime.loops.batch import Batch, plan_batch, run_batch
from unblur.runtime.loops.session import RunRequest
from unblur.runtime.model.deblurrer import deblur

MakeClip = Callable[..., Path]


@pytest.fixture
def photos(tmp_path: Path, frame: Frame, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `photos` of the current one: two images, a text, and a folder with one image more."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.jpg", "trip/c.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(exist_ok=True)
        write_image(path, frame)
    (tmp_path / "photos" / "notes.txt").touch()
    return Path("photos")


def targets(batch: Batch) -> dict[str, str]:
    return {str(source): str(target) for source, target in batch.targets.items()}


def test_files_go_beside_themselves_and_folders_are_mirrored(photos: Path) -> None:
    one = plan_batch(["photos/a.png"], None)
    assert targets(one) == {"photos/a.png": "photos/a_unblurred.png"}
    flat = plan_batch(["photos"], None)
    assert targets(flat) == {f"photos/{name}": f"photos_unblurred/{name}" for name in ("a.png", "b.jpg")}
    assert list(flat.skipped) == ["photos/notes.txt", "photos/trip/"]
    deep = plan_batch(["photos"], "out/there", recursive=True)
    assert targets(deep)["photos/trip/c.png"] == "out/there/trip/c.png"
    assert list(deep.skipped) == ["photos/notes.txt"]
    assert targets(plan_batch(["photos/*.png"], "out")) == {"photos/a.png": "out/a.png"}


def test_what_cannot_be_planned_is_refused_in_a_line(photos: Path) -> None:
    for sources, sink, message in (
        (["photos/none.png"], None, r"photos/none\.png does not exist"),
        (["photos/*.gif"], None, r"photos/\*\.gif matches no file"),
        (["photos"], "photos", r"photos/a\.png is the source itself; give another sink"),
        (["photos/a.png", "photos/trip/../a.png"], "out", r"would both be written to out/a\.png"),
    ):
        with pytest.raises(BadInput, match=message):
            plan_batch(sources, sink)


def test_nothing_is_replaced_unless_that_is_asked_for(photos: Path, frame: Frame) -> None:
    write_image(photos / "a_unblurred.png", frame)
    with pytest.raises(BadInput, match=r"a_unblurred\.png exists; give --overwrite or --skip-existing$"):
        plan_batch(["photos/a.png"], None)
    assert targets(plan_batch(["photos/a.png"], None, existing="overwrite"))
    skipping = plan_batch(["photos/a.png", "photos/b.jpg", "photos/a_unblurred.png"], None, existing="skip")
    assert list(targets(skipping)) == ["photos/b.jpg"]
    assert skipping.skipped == {
        "photos/a_unblurred.png": "a result of an earlier run",
        "photos/a.png": "photos/a_unblurred.png exists",
    }


def test_videos_in_other_containers_become_matroska_each_under_a_name_of_its_own(tmp_path: Path) -> None:
    for name in ("a.avi", "a.webm", "b.mov", "c.mkv"):
        (tmp_path / name).touch()
    batch = plan_batch([str(tmp_path)], str(tmp_path / "out"))
    assert [path.name for path in batch.targets.values()] == ["a.avi.mkv", "a.webm.mkv", "b.mov", "c.mkv"]


def test_a_damaged_file_costs_itself_alone(
    photos: Path, tiny_onnx: Path, make_clip: MakeClip, frame: Frame
) -> None:
    (photos / "b.jpg").write_bytes((photos / "b.jpg").read_bytes()[:900])
    (photos / "d.mp4").write_bytes(b"no video" * 100)
    make_clip("photos/e.mp4", frames=5)
    Image.fromarray(frame).save(photos / "f.gif", save_all=True, append_images=[Image.fromarray(255 - frame)])
    batch = plan_batch([str(photos)], None, recursive=True)
    stages: list[tuple[str, int | None]] = []

    def stage(name: str, total: int | None) -> Callable[[], None]:
        stages.append((name, total))
        return lambda: None

    result = run_batch(RunRequest(tiny_onnx, "", ()), batch, stage=stage)
    assert [str(path) for path in result.written] == [
        "photos/a.png",
        "photos/trip/c.png",
        "photos/e.mp4",
        "photos/f.gif",
    ]
    assert [str(path) for path in result.failed] == ["photos/d.mp4", "photos/b.jpg"]
    assert (result.summary.frames, result.summary.stopped) == (2 + 5 + 2, False)
    assert stages == [("images", 3), ("e.mp4", 5), ("f.gif", 2)]
    restored = read_image(Path("photos_unblurred/trip/c.png"))
    np.testing.assert_array_equal(restored, deblur(frame, tiny_onnx))
    assert sorted(path.name for path in Path("photos_unblurred").iterdir()) == ["a.png", "e.mp4", "f.gif", "trip"]


def test_a_batch_that_is_stopped_keeps_what_is_done_and_goes_on_later(photos: Path, tiny_onnx: Path) -> None:
    stop = threading.Event()

    def stage(name: str, total: int | None) -> Callable[[], None]:
        return stop.set

    request = RunRequest(tiny_onnx, "", ())
    first = run_batch(request, plan_batch([str(photos)], None), stop, stage)
    assert [str(path) for path in first.written] == ["photos/a.png"]
    assert first.summary.stopped
    second = run_batch(request, plan_batch([str(photos)], None, existing="skip"))
    assert [str(path) for path in second.written] == ["photos/b.jpg"]


def test_the_first_argument_is_the_model_only_if_it_names_one(photos: Path) -> None:
    default = "lprn-s"
    assert model_and_sources(["photos/a.png"], None) == (default, ["photos/a.png"])
    assert model_and_sources(["lprn-n", "photos"], None) == ("lprn-n", ["photos"])
    assert model_and_sources(["mine.onnx", "a.jpg", "b.jpg"], None) == ("mine.onnx", ["a.jpg", "b.jpg"])
    assert model_and_sources(["photos"], ["x.mp4"]) == ("photos", ["x.mp4"]), "with --source it always is"
    assert model_and_sources(["lprn-z", "a.jpg"], None) == ("lprn-z", ["a.jpg"]), "so that the typo is found"
    with pytest.raises(BadInput, match=r"there is no source; give an image, .* as in `unblur photo\.jpg`"):
        model_and_sources(["lprn-n"], None)


def test_a_folder_becomes_one_video_only_where_that_is_asked_for(photos: Path) -> None:
    def batch(*sources: str, sinks: tuple[str, ...] = ()) -> bool:
        return is_batch(RunRequest("lprn-n", sources[0], sinks), list(sources))

    assert batch("photos")
    assert batch("photos", sinks=("out",))
    assert batch("photos/a.png", "photos/b.jpg", sinks=("out.d/",))
    assert not batch("photos", sinks=("out.mp4",))
    assert not batch("photos", sinks=("null:",))
    assert not batch("photos/a.png", sinks=("out",))
    with pytest.raises(BadInput, match=r"2 files need one folder as --sink, got out\.mp4$"):
        batch("photos/a.png", "photos/b.jpg", sinks=("out.mp4",))


def test_a_source_may_stand_where_a_command_does(photos: Path) -> None:
    for text in ("photos", "photos/a.png", "missing.jpg", "rtsp://camera/1", "*.jpg"):
        assert looks_like_source(text)
    for text in ("run", "frobnicate", "lprn-s"):
        assert not looks_like_source(text)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("run x.jpg --steps abc", "unblur: invalid value for '--steps': .*; see unblur run --help"),
        ("run x.jpg --stepz 2", "unblur: no such option: --stepz.*--steps.*; see unblur run --help"),
        ("frobnicate", "unblur: no such command 'frobnicate'; see unblur --help"),
        ("missing.jpg", "unblur: missing.jpg does not exist"),
        ("run lprn-z --source x.jpg", "unblur: there is no model 'lprn-z'; did you mean 'lprn-s'\\?.*"),
    ],
)
def test_a_typo_gets_one_short_line(arguments: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unblur.runtime.cli.main", *arguments.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert re.fullmatch(f"{expected}\n", done.stderr)


def test_the_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unblur.runtime.cli.main", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("unblur 0.")
