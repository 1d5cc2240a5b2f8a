"""`unblur data` makes pairs that training reads, the same from the same seed, and goes on where it was stopped."""

import json
import logging
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import read_image, write_image
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame
from unblur.runtime.media.open_media import open_sink
from unblur.runtime.metrics import psnr_db
from unblur.runtime.quality.pairs import find_pairs, read_pair
from unblur.train.pair_folder import Synthesis, pairs_from_clip, pairs_from_stills


def call(*arguments: object) -> str:
    """stdout of `unblur data ...`; an error of ours is raised."""
    done = CliRunner().invoke(app, ["data", *map(str, arguments)])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def moving(photograph: Frame, frames: int) -> list[Frame]:
    return [np.ascontiguousarray(np.roll(photograph, 2 * index, axis=1)) for index in range(frames)]


def write_frames(folder: Path, frames: Sequence[Frame]) -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        write_image(folder / f"{index:06d}.png", frame)
    return folder


def write_video(path: Path, frames: Sequence[Frame], rate: int) -> Path:
    height, width = frames[0].shape[:2]
    info = MediaInfo(path, "folder", (height, width), len(frames), Fraction(rate), Fraction(1, rate))
    with open_sink(str(path), info, crf=0) as sink:
        for index, frame in enumerate(frames):
            sink.write(TimedFrame(frame, Fraction(index, rate), Fraction(1, rate)))
        sink.finish(complete=True)
    return path


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_pair_is_the_mean_in_linear_light_and_its_middle_frame(photograph: Frame, tmp_path: Path) -> None:
    frames = moving(photograph, 60)
    clip = write_frames(tmp_path / "GOPR0001", frames)
    document = json.loads(call("gopro", clip, "-o", tmp_path / "pairs", "--json"))
    pairs = find_pairs(tmp_path / "pairs")
    assert document["scenes"] == {"GOPR0001": len(pairs)}
    end = 0
    for pair in pairs:
        number = int(pair.sharp.stem)
        half = number - end - 1  # windows follow each other without a gap
        length = 2 * half + 1
        assert length in range(7, 24)
        window = np.array(frames[end : end + length]) / 255
        blurred, sharp = read_pair(pair)
        assert np.array_equal(sharp, frames[number - 1])
        expected = 255 * np.mean(window**2.2, axis=0) ** (1 / 2.2)
        assert np.abs(blurred - expected).max() < 0.51
        end += length
    assert 60 - 23 < end <= 60
    assert len(pairs) > 1


def test_clips_of_video_become_scenes(photograph: Frame, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fast = write_video(tmp_path / "fast.mp4", moving(photograph, 30), 240)
    slow = write_video(tmp_path / "slow.mp4", moving(photograph, 30), 50)
    with caplog.at_level(logging.WARNING):
        assert "pairs of 2 clips" in call("gopro", fast, slow, "-o", tmp_path / "pairs")
    assert {pair.name.split("/")[0] for pair in find_pairs(tmp_path / "pairs")} == {"fast", "slow"}
    assert [record.getMessage() for record in caplog.records] == [
        f"{slow} has 50 frames/s; under 100 their mean shows gaps, not blur"
    ]


def test_a_scene_that_is_there_is_kept_and_its_settings_count(photograph: Frame, tmp_path: Path) -> None:
    clip = write_frames(tmp_path / "clip", moving(photograph, 40))
    (tmp_path / "pairs").mkdir()
    first = pairs_from_clip(clip, tmp_path / "pairs", seed=0)
    before = all_bytes(tmp_path / "pairs")
    read: list[None] = []
    assert pairs_from_clip(clip, tmp_path / "pairs", seed=0, advance=lambda: read.append(None)) == first
    assert (read, all_bytes(tmp_path / "pairs")) == ([], before)
    with pytest.raises(BadInput, match=r"clip holds pairs made with .*\"seed\": 0.*asked for .*\"seed\": 1"):
        pairs_from_clip(clip, tmp_path / "pairs", seed=1)


def test_a_stopped_clip_leaves_no_scene(photograph: Frame, tmp_path: Path) -> None:
    clip = write_frames(tmp_path / "clip", moving(photograph, 40))

    def stop_late(seen: list[None] = []) -> None:  # noqa: B006 (counts the calls)
        seen.append(None)
        if len(seen) == 30:
            raise KeyboardInterrupt

    (tmp_path / "pairs").mkdir()
    with pytest.raises(KeyboardInterrupt):
        pairs_from_clip(clip, tmp_path / "pairs", seed=0, advance=stop_late)
    assert list((tmp_path / "pairs").iterdir()) == []


def test_clips_that_cannot_be_averaged(photograph: Frame, tmp_path: Path) -> None:
    short = write_frames(tmp_path / "short", moving(photograph, 22))
    with pytest.raises(BadInput, match=r"short has 22 frames; up to 23 are averaged, give a longer clip"):
        call("gopro", short, "-o", tmp_path / "pairs")
    uneven = write_frames(tmp_path / "uneven", [photograph, photograph[:50]])
    with pytest.raises(BadInput, match="uneven holds images of different sizes"):
        call("gopro", uneven, "-o", tmp_path / "pairs")
    with pytest.raises(BadInput, match=r"absent\.mp4 does not exist; expected a video"):
        call("gopro", tmp_path / "absent.mp4", "-o", tmp_path / "pairs")
    again = write_frames(tmp_path / "other/short", moving(photograph, 2))
    with pytest.raises(BadInput, match="would become one scene; rename one"):
        call("gopro", short, again, "-o", tmp_path / "pairs")
    with pytest.raises(BadInput, match=r"cannot make the folder .*000000\.png/x"):
        call("gopro", short, "-o", short / "000000.png/x")
    assert not list((tmp_path / "pairs").iterdir())


def test_a_damaged_clip_is_refused(photograph: Frame, tmp_path: Path) -> None:
    """One image in the middle of the file is overwritten; what FFmpeg makes of it is counted as lost."""
    noise = np.random.default_rng(0).integers(0, 256, photograph.shape, np.uint8)
    path = write_video(tmp_path / "clip.mp4", [np.roll(noise, index, axis=0) for index in range(30)], 240)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20_000] = bytes(20_000)
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"clip\.mp4 has \d+ damaged frames, where a mean would jump"):
        call("gopro", path, "-o", tmp_path / "pairs")


def test_stills_become_pairs_that_are_blurred_and_aligned(
    stills_folder: Path, photograph: Frame, tmp_path: Path
) -> None:
    document = json.loads(call("synth", stills_folder, "-o", tmp_path / "p", "--per-still", 3, "--json"))
    pairs = find_pairs(tmp_path / "p")
    assert (document["pairs"], len(pairs), document["stills"]) == (6, 6, 2)
    for pair in pairs:
        blurred, sharp = read_pair(pair)
        assert sharp.shape == (photograph.shape[0] - 64, photograph.shape[1] - 64, 3)
        aligned_db = psnr_db(blurred, sharp)
        assert 14 < aligned_db < 60
        assert aligned_db > psnr_db(np.roll(blurred, 9, axis=0), sharp)


def test_pairs_from_stills_are_a_function_of_seed_and_name(stills_folder: Path, tmp_path: Path) -> None:
    stills = sorted(stills_folder.iterdir())
    pairs_from_stills(stills, tmp_path / "a", Synthesis(seed=3))
    pairs_from_stills(stills[::-1], tmp_path / "b", Synthesis(seed=3))
    pairs_from_stills(stills, tmp_path / "c", Synthesis(seed=4))
    assert all_bytes(tmp_path / "a") == all_bytes(tmp_path / "b")
    assert all_bytes(tmp_path / "a/blur")["a_0.png"] != all_bytes(tmp_path / "c/blur")["a_0.png"]


@pytest.mark.parametrize("lens", [0.0, 1.0])
def test_the_share_of_lens_blur(stills_folder: Path, tmp_path: Path, lens: float) -> None:
    """A lens never brightens its partner; a moving camera does with a chance of 0.25."""
    pairs_from_stills(sorted(stills_folder.iterdir()), tmp_path, Synthesis(per_still=12, lens=lens))
    still = read_image(stills_folder / "a.png")[32:-32, 32:-32]
    same = [np.array_equal(read_image(path), still) for path in sorted((tmp_path / "sharp").glob("a_*.png"))]
    assert all(same) == (lens == 1)


def test_a_stopped_folder_is_completed(
    stills_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stills = sorted(stills_folder.iterdir())
    pairs_from_stills(stills, tmp_path / "whole", Synthesis(per_still=2))
    pairs_from_stills(stills, tmp_path / "part", Synthesis(per_still=2))
    kept = tmp_path / "part/blur/a_0.png"
    os.utime(kept, (1, 1))
    (tmp_path / "part/blur/a_1.png").unlink()
    (tmp_path / "part/sharp/b_0.png").unlink()
    pairs_from_stills(stills, tmp_path / "part", Synthesis(per_still=2))
    assert all_bytes(tmp_path / "part") == all_bytes(tmp_path / "whole")
    assert kept.stat().st_mtime == 1
    with pytest.raises(BadInput, match=r"part holds pairs made with .*\"lens\": 0.1.* asked for .*\"lens\": 0.2"):
        pairs_from_stills(stills, tmp_path / "part", Synthesis(per_still=2, lens=0.2))


def test_stills_that_cannot_be_blurred(photograph: Frame, pairs_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    write_image(tmp_path / "small/a.png", photograph[:79])
    with pytest.raises(BadInput, match=r"a\.png is 79 x 128; expected at least 80 pixels a side"):
        call("synth", tmp_path / "small", "-o", tmp_path / "p")
    (tmp_path / "two").mkdir()
    (tmp_path / "big").mkdir()
    write_image(tmp_path / "big/a.png", photograph)
    for suffix in ("png", "jpg"):
        write_image(tmp_path / f"two/a.{suffix}", photograph)
    with pytest.raises(BadInput, match=r"a\.jpg and .*a\.png would become one pair; rename one"):
        call("synth", tmp_path / "two", "-o", tmp_path / "p")
    still = tmp_path / "two/a.png"
    with pytest.raises(BadInput, match=r"cannot make the folder .*a\.png/p: Not a directory"):
        pairs_from_stills([still], still / "p", Synthesis())
    with pytest.raises(BadInput, match="pairs holds pairs made with nothing that says how, asked for"):
        call("synth", tmp_path / "big", "-o", pairs_folder)
    assert not (tmp_path / "p").exists()
