"""Samples are functions of (seed, index); bad files stop a run before it starts."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from unblur.runtime.errors import BadInput
from unblur.train.data import (
    CropDataset,
    DecodedImages,
    HoldOut,
    TrainingData,
    open_training_data,
    validation_frames,
)
from unblur.train.recipe import BlurMix, Recipe

RECIPE = Recipe(crop=32, batch=2)


def opened(pairs: Path | None = None, stills: Path | None = None, clips: Path | None = None) -> TrainingData:
    folders = [[folder] if folder else [] for folder in (pairs, stills, clips)]
    return open_training_data(*folders, hold_out=HoldOut(1))


def write_clip(path: Path, photograph: np.ndarray, frames: int = 40, rate: int = 240) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = photograph.shape[1], photograph.shape[0], "yuv420p"
        for shift in range(frames):
            moved = np.roll(photograph, shift, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode(None))


def test_the_same_index_gives_the_same_sample(pairs_folder: Path, stills_folder: Path) -> None:
    data = opened(pairs_folder, stills_folder)
    first, again = CropDataset(data, RECIPE), CropDataset(data, RECIPE)
    for index in (0, 7, 42):
        torch.testing.assert_close(first[index], again[index], rtol=0, atol=0)
    assert not torch.equal(first[0], CropDataset(data, replace(RECIPE, seed=1))[0])


@pytest.mark.parametrize("kind", ["real", "shake", "lens", "frames"])
def test_every_kind_of_sample_pairs_blur_with_its_sharp_partner(
    kind: str, pairs_folder: Path, stills_folder: Path, tmp_path: Path, photograph: np.ndarray
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    write_clip(clips / "pan.mp4", photograph)
    mix = BlurMix(**{name: float(name == kind) for name in ("real", "shake", "frames", "lens")})
    dataset = CropDataset(opened(pairs_folder, stills_folder, clips), replace(RECIPE, mix=mix))
    for index in range(6):
        blurred, sharp = dataset[index].float()
        assert dataset[index].dtype == torch.uint8
        assert blurred.shape == sharp.shape == (64, 64, 3)
        assert not torch.equal(blurred, sharp)
        # the partner, not another place: the two differ by less than the image varies
        assert float((blurred - sharp).std()) < float(sharp.std())


def test_kinds_without_data_drop_out(stills_folder: Path) -> None:
    dataset = CropDataset(opened(stills=stills_folder), RECIPE)
    assert dataset[0].shape == (2, 64, 64, 3)


def test_a_mix_without_any_data_is_refused(stills_folder: Path) -> None:
    only_real = replace(RECIPE, mix=BlurMix(real=1, shake=0, frames=0, lens=0))
    with pytest.raises(BadInput, match="mix gives no share"):
        CropDataset(opened(stills=stills_folder), only_real)


def test_held_out_pairs_are_validated_on_and_not_trained_on(pairs_folder: Path) -> None:
    data = opened(pairs_folder)
    assert [pair.name for pair in data.held_out] == ["2"]
    assert len(data.pairs) == 2
    [(blurred, sharp)] = validation_frames(data, crop=64)
    assert blurred.shape == sharp.shape == (64, 64, 3)


def test_pictures_smaller_than_the_crop_are_mirrored_outward(pairs_folder: Path) -> None:
    assert CropDataset(opened(pairs_folder), replace(RECIPE, crop=160))[0].shape == (2, 192, 192, 3)


def test_slow_clips_are_skipped_with_a_warning(
    tmp_path: Path, photograph: np.ndarray, stills_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_clip(tmp_path / "slow.mp4", photograph, rate=30)
    assert opened(stills=stills_folder, clips=tmp_path).windows == []
    assert "slow.mp4 has 30 frames/s and is skipped; under 100 averages show gaps" in caplog.text
    with pytest.raises(BadInput, match="nothing to train on"):
        opened(clips=tmp_path)


def test_windows_overlap_and_their_partner_is_the_middle_frame(tmp_path: Path, photograph: np.ndarray) -> None:
    write_clip(tmp_path / "fast.mp4", photograph, frames=60)
    windows = opened(clips=tmp_path).windows
    assert len(windows) == 60 - 22
    for blurred, sharp in windows[::10]:
        assert 0 < float(np.abs(blurred.astype(int) - sharp).mean()) < float(sharp.std())


def test_pairs_are_held_out_by_number_and_by_name_and_stills_too(pairs_folder: Path, stills_folder: Path) -> None:
    held = HoldOut(pairs=1, matching=("blur/0",), stills=1)
    data = open_training_data([pairs_folder], [stills_folder], hold_out=held)
    assert [pair.name for pair in data.pairs] == ["1"]
    assert [pair.name for pair in data.held_out] == ["0", "2"]
    assert [path.name for path in data.stills + data.held_out_stills] == ["a.png", "b.png"]
    assert len(validation_frames(data, crop=64)) == 3
    with pytest.raises(BadInput, match="all 2 stills would be held out; lower --hold-out-stills"):
        open_training_data(stills=[stills_folder], hold_out=HoldOut(stills=2))


def test_decoded_images_stay_within_their_bytes(pairs_folder: Path) -> None:
    paths = sorted((pairs_folder / "sharp").iterdir())
    cache = DecodedImages(max_bytes=2 * 96 * 128 * 3)
    frames = [cache(path) for path in paths]
    assert cache(paths[2]) is frames[2]
    assert cache(paths[0]) is not frames[0]


def test_a_truncated_picture_is_named_before_the_run(pairs_folder: Path) -> None:
    broken = pairs_folder / "sharp" / "1.png"
    broken.write_bytes(broken.read_bytes()[:2000])
    with pytest.raises(BadInput, match=r"1\.png"):
        opened(pairs_folder)


def test_an_unpaired_picture_is_named_before_the_run(pairs_folder: Path) -> None:
    (pairs_folder / "sharp" / "1.png").unlink()
    with pytest.raises(BadInput, match=r"1\.png"):
        opened(pairs_folder)


def test_a_clip_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(b"not a clip" * 100)
    with pytest.raises(BadInput, match=r"noise\.mp4 is not an image or video that can be read"):
        opened(clips=tmp_path)


def test_nothing_to_train_on() -> None:
    with pytest.raises(BadInput, match="give --data"):
        opened()


def test_holding_out_everything_is_refused(pairs_folder: Path) -> None:
    with pytest.raises(BadInput, match=r"all 3 pairs of .* would be held out; lower --hold-out"):
        open_training_data([pairs_folder], hold_out=HoldOut(3))
