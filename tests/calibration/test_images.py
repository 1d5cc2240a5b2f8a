from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unblur.calibration import images
from unblur.calibration.images import MAX_PIXELS, Sample, SamplePass, find_sample, find_trials
from unblur.runtime.errors import BadInput
from unblur.runtime.images import read_image
from unblur.runtime.spec import ModelSpec

SPEC = ModelSpec("test", "tiny", 1, 16, 8, "none")


def test_pictures_come_in_order_padded_to_the_multiple(pictures: Path) -> None:
    sample = find_sample(pictures)
    assert [path.name for path in sample.paths] == ["a.png", "b.png", "c.png"]
    assert [image.batch(SPEC).shape for image in sample.images()] == [
        (1, 3, 48, 48),
        (1, 3, 64, 48),
        (1, 3, 64, 64),
    ]


def test_of_pairs_the_blurred_side_is_taken(pictures: Path, tmp_path: Path) -> None:
    for side in ("blur", "sharp"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        (tmp_path / "pairs" / side / "1.png").write_bytes((pictures / "a.png").read_bytes())
    sample = find_sample(tmp_path / "pairs")
    assert [image.name for image in sample.images()] == ["blur/1.png"]


def test_the_shake_changes_pictures_and_repeats(pictures: Path) -> None:
    sharp = list(find_sample(pictures).frames())
    shaken, again = (list(find_sample(pictures, synthetic_blur=True).frames()) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(shaken, again, strict=True))
    assert all(blurred.std() < 0.8 * picture.std() for blurred, picture in zip(shaken, sharp, strict=True))


def test_a_large_picture_is_cropped_to_its_centre(tmp_path: Path) -> None:
    picture = np.zeros((1100, 2000, 3), np.uint8)
    picture[550, 1000] = 255
    Image.fromarray(picture).save(tmp_path / "large.png")
    (frame,) = find_sample(tmp_path).frames()
    height, width = frame.shape[:2]
    assert 0.99 * MAX_PIXELS < height * width <= MAX_PIXELS
    row, column = np.argwhere(frame[..., 0])[0]
    assert abs(row - height // 2) <= 1
    assert abs(column - width // 2) <= 1


@pytest.mark.parametrize(("size_hw", "used_hw"), [((20, 30), (20, 30)), ((40, 40), (33, 40)), ((99, 99), (33, 47))])
def test_of_the_deployment_size_no_more_than_the_middle_is_used(
    pictures: Path, size_hw: tuple[int, int], used_hw: tuple[int, int]
) -> None:
    whole = next(find_sample(pictures).frames())  # 33 x 47
    middle = next(find_sample(pictures, size_hw=size_hw).frames())
    assert middle.shape[:2] == used_hw
    top, left = (33 - used_hw[0]) // 2, (47 - used_hw[1]) // 2
    assert np.array_equal(middle, whole[top : top + used_hw[0], left : left + used_hw[1]])


def test_a_choice_of_pictures_does_not_change_their_shakes(pictures: Path) -> None:
    sample = find_sample(pictures, synthetic_blur=True)
    of_all = dict(zip(sample.paths, sample.frames(), strict=True))
    chosen = sample.spread(2)
    assert all(
        np.array_equal(of_all[path], frame) for path, frame in zip(chosen.paths, chosen.frames(), strict=True)
    )


def test_pick_takes_the_odd_ones_out(tmp_path: Path) -> None:
    """Eight alike and two that are not: three picks have to hold those two."""
    rng = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(rng.integers(90, 110, (48, 64, 3), np.uint8)).save(tmp_path / f"alike{number}.png")
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(tmp_path / "rough.png")
    Image.fromarray(np.full((48, 64, 3), 250, np.uint8)).save(tmp_path / "white.png")
    counted: list[None] = []
    picked = find_sample(tmp_path).pick(3, lambda: counted.append(None))
    report = picked.coverage
    assert report is not None
    assert [path.stem.rstrip("01234567") for path in picked.paths] == ["alike", "rough", "white"]
    assert len(counted) == 10
    assert (report.pictures, report.picked) == (10, 3)
    assert report.farthest is not None
    assert report.farthest.startswith("alike")
    assert report.largest_distance < 0.1
    assert picked == find_sample(tmp_path).pick(3)


def test_pick_keeps_the_folder_the_shake_and_the_size(pictures: Path) -> None:
    sample = find_sample(pictures, synthetic_blur=True, size_hw=(32, 32))
    assert sample.pick(9) == sample
    one = sample.pick(1)
    assert (len(one), one.folder, one.synthetic_blur, one.size_hw) == (1, sample.folder, True, (32, 32))


def test_spread_takes_both_ends(pictures: Path) -> None:
    sample = find_sample(pictures)
    assert [path.name for path in sample.spread(2).paths] == ["a.png", "c.png"]
    assert sample.spread(9) == sample


@pytest.mark.parametrize("content", ["nothing", "no pictures", "no pairs"])
def test_a_folder_without_pictures_is_named(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "data"
    if content != "nothing":
        folder.mkdir()
    if content == "no pairs":
        (folder / "sub").mkdir()
    with pytest.raises(BadInput, match=r"data (is not a folder of images|holds no images|holds no pairs)"):
        find_sample(folder)


def test_a_damaged_picture_is_named(pictures: Path) -> None:
    (pictures / "b.png").write_bytes((pictures / "b.png").read_bytes()[:300])
    with pytest.raises(BadInput, match=r"b\.png is damaged"):
        list(Sample(pictures, tuple(sorted(pictures.iterdir()))).frames())


def test_pairs_are_blurred_already(pictures: Path, tmp_path: Path) -> None:
    for side in ("blur", "sharp"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        (tmp_path / "pairs" / side / "1.png").write_bytes((pictures / "a.png").read_bytes())
    with pytest.raises(BadInput, match=r"pairs holds pairs, .* leave out --synthetic-blur"):
        find_sample(tmp_path / "pairs", synthetic_blur=True)


def test_one_pass_decodes_each_image_once_and_blurs_it_one_way(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(images, "read_image", lambda path: decoded.append(path) or read_image(path))
    sample = find_sample(pictures, synthetic_blur=True)
    run = SamplePass(sample, SPEC, 32, 8)
    seen = [batch.shape for batch in run.batches()]
    assert decoded == list(sample.paths)
    assert len(seen) == len(run.trials) == len(run.hashes) == run.coverage.picked == 3
    plain = list(find_trials(find_sample(pictures), 32, 8))
    for trial, alone in zip(run.trials, plain, strict=True):  # whether the network sees it or only the evaluation
        assert np.array_equal(trial.blurred, alone.blurred)
        assert np.array_equal(trial.sharp, alone.sharp)
