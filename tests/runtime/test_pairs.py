"""Pairs are found in every public layout, and what does not pair is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unblur.runtime.errors import BadInput
from unblur.runtime.quality.pairs import Pair, check_pairs, find_pairs, read_pair


def picture(path: Path, size_hw: tuple[int, int] = (8, 12), level: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size_hw, 3), level, np.uint8)).save(path)
    return path


def names(folder: Path) -> list[str]:
    return [pair.name for pair in find_pairs(folder)]


def test_gopro_scenes_at_any_depth_without_the_gamma_folder(tmp_path: Path) -> None:
    for scene in ("train/B", "train/A"):
        for kind in ("blur", "blur_gamma", "sharp"):
            picture(tmp_path / scene / kind / "000001.png")
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["train/A/000001", "train/B/000001"]
    assert pairs[0].blurred == tmp_path / "train/A/blur/000001.png"
    assert pairs[0].sharp == tmp_path / "train/A/sharp/000001.png"


@pytest.mark.parametrize(("blurred", "sharp"), [("blur", "sharp"), ("blurred", "sharp"), ("input", "target")])
def test_plain_folders_pair_whatever_the_format(tmp_path: Path, blurred: str, sharp: str) -> None:
    picture(tmp_path / blurred / "a.jpg")
    picture(tmp_path / sharp / "a.png")
    assert find_pairs(tmp_path) == [Pair("a", tmp_path / blurred / "a.jpg", tmp_path / sharp / "a.png")]


def test_realblur_list_gives_sharp_then_blurred(tmp_path: Path) -> None:
    picture(tmp_path / "J/scene001/gt/gt_1.png")
    picture(tmp_path / "J/scene001/blur/blur_1.png")
    line = "J/scene001/gt/gt_1.png J/scene001/blur/blur_1.png J/ignored_third_column.png\n\n"
    (tmp_path / "RealBlur_J_test_list.txt").write_text(line)
    expected = [
        Pair(
            "J/scene001/blur/blur_1",
            tmp_path / "J/scene001/blur/blur_1.png",
            tmp_path / "J/scene001/gt/gt_1.png",
        )
    ]
    assert find_pairs(tmp_path) == expected
    assert find_pairs(tmp_path / "RealBlur_J_test_list.txt") == expected


def test_realblur_scene_without_its_list(tmp_path: Path) -> None:
    picture(tmp_path / "scene001/gt/gt_1.png")
    picture(tmp_path / "scene001/blur/blur_1.png")
    assert names(tmp_path) == ["scene001/1"]


def test_several_lists_must_be_chosen_from(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"RealBlur_J_{split}_list.txt").write_text("")
    with pytest.raises(BadInput, match=r"several lists .*test_list.txt, .*train_list.txt.*give the one"):
        find_pairs(tmp_path)


def test_hide_root_or_split(tmp_path: Path) -> None:
    picture(tmp_path / "train/1.png")
    picture(tmp_path / "test/test-close-ups/2.png")
    for name in ("1", "2", "unused"):
        picture(tmp_path / f"GT/{name}.png")
    assert names(tmp_path) == ["test/test-close-ups/2", "train/1"]
    assert names(tmp_path / "train") == ["1"]
    assert names(tmp_path / "test") == ["test-close-ups/2"]


def test_hide_picture_without_ground_truth(tmp_path: Path) -> None:
    picture(tmp_path / "train/1.png")
    (tmp_path / "GT").mkdir()
    with pytest.raises(BadInput, match=r"train/1\.png has no sharp partner; expected .*GT/1\.png"):
        find_pairs(tmp_path)


def test_koehler_takes_the_middle_of_the_trajectory(tmp_path: Path) -> None:
    picture(tmp_path / "BlurryImages/Blurry1_10.png")
    for frame in (1, 2, 9, 10, 11):
        picture(tmp_path / f"Image1/Kernel10/GroundTruth1_10_{frame}.png")
    (pair,) = find_pairs(tmp_path)
    assert pair.name == "Blurry1_10"
    assert pair.sharp.name == "GroundTruth1_10_9.png"


def test_koehler_brings_the_whole_trajectory_in_order(tmp_path: Path) -> None:
    picture(tmp_path / "BlurryImages/Blurry1_1.png")
    for frame in (10, 9, 1):
        picture(tmp_path / f"Image1/Kernel1/GroundTruth1_1_{frame}.png")
    (pair,) = find_pairs(tmp_path)
    assert [path.stem for path in pair.trajectory] == [f"GroundTruth1_1_{frame}" for frame in (1, 9, 10)]


def test_koehler_shot_without_frames(tmp_path: Path) -> None:
    picture(tmp_path / "Blurry1_2.png")
    with pytest.raises(BadInput, match=r"Blurry1_2\.png has no sharp partner; expected GroundTruth1_2_"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("lacking", ["blur", "sharp"])
def test_picture_without_a_partner_is_named(tmp_path: Path, lacking: str) -> None:
    for kind in ("blur", "sharp"):
        picture(tmp_path / kind / "both.png")
    other = "sharp" if lacking == "blur" else "blur"
    picture(tmp_path / other / "alone.png")
    with pytest.raises(BadInput, match=rf"{other}/alone\.png has no partner of that name in .*{lacking};"):
        find_pairs(tmp_path)


@pytest.mark.parametrize(("present", "lacking"), [("blur", "sharp"), ("sharp", "blur")])
def test_folder_without_a_partner_is_named(tmp_path: Path, present: str, lacking: str) -> None:
    picture(tmp_path / "scene" / present / "a.png")
    with pytest.raises(BadInput, match=rf"scene/{present} has no folder of .* expected .*scene/{lacking}"):
        find_pairs(tmp_path)


def test_two_pictures_for_one_partner(tmp_path: Path) -> None:
    picture(tmp_path / "blur/a.png")
    picture(tmp_path / "blur/a.jpg")
    picture(tmp_path / "sharp/a.png")
    with pytest.raises(BadInput, match=r"a\.jpg and .*a\.png would pair with the same image"):
        find_pairs(tmp_path)


def test_partners_of_different_sizes(tmp_path: Path) -> None:
    picture(tmp_path / "blur/a.png", (8, 12))
    picture(tmp_path / "sharp/a.png", (12, 8))
    with pytest.raises(BadInput, match=r"blur/a\.png is 8 x 12 .* partner .*sharp/a\.png is 12 x 8"):
        find_pairs(tmp_path)


def test_turned_by_exif_is_a_different_size(tmp_path: Path) -> None:
    blurred, sharp = picture(tmp_path / "blur/a.png"), tmp_path / "sharp/a.png"
    sharp.parent.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(sharp, exif=exif)
    with pytest.raises(BadInput, match=r"8 x 12 .* is 12 x 8"):
        read_pair(Pair("a", blurred, sharp))


def test_damaged_picture_is_named_before_anything_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        for kind in ("blur", "sharp"):
            path = picture(tmp_path / kind / f"{name}.png")
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    pairs = find_pairs(tmp_path)
    seen: list[None] = []
    check_pairs(pairs, lambda: seen.append(None))
    assert len(seen) == 3
    whole = (tmp_path / "sharp/b.png").read_bytes()
    (tmp_path / "sharp/b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"sharp/b\.png is damaged or truncated"):
        check_pairs(pairs)


def test_unusable_roots(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="missing does not exist; expected a folder with pairs"):
        find_pairs(tmp_path / "missing")
    with pytest.raises(BadInput, match=r"holds no pairs; expected images in blur/ and sharp/"):
        find_pairs(tmp_path)
    with pytest.raises(BadInput, match=r"a\.png is not a list of pairs"):
        find_pairs(picture(tmp_path / "a.png"))


def test_list_lines_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "x_list.txt"
    path.write_text("one.png\n")
    with pytest.raises(BadInput, match=r"x_list\.txt line 1 is 'one.png'; expected two paths"):
        find_pairs(tmp_path)
    path.write_text("one.png two.png\n")
    with pytest.raises(BadInput, match=r"line 1 names .*one\.png, which does not exist"):
        find_pairs(tmp_path)
