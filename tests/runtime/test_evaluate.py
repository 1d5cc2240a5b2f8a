"""`unblur evaluate` reads the public data sets as they come and tells what scikit-image would."""

import csv
import json
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from photographs import write_pairs
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from typer.testing import CliRunner

from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import write_image
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.quality.evaluate import evaluate
from unblur.runtime.quality.evaluate_report import error_colours, harmed_square
from unblur.runtime.quality.pairs import find_pairs
from unblur.runtime.runner import Runner

SIZE_HW = (176, 192)


def call(*arguments: object) -> tuple[int, str]:
    """Exit code and stdout of `unblur evaluate`; an error of ours is raised."""
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def put(picture: Frame, *paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, picture)


def gopro(root: Path, blurred: Frame, sharp: Frame) -> Path:
    scene = root / "test/GOPR0384_11_00"
    put(blurred, scene / "blur/000001.png", scene / "blur_gamma/000001.png")
    put(sharp, scene / "sharp/000001.png")
    return root / "test"


def hide(root: Path, blurred: Frame, sharp: Frame) -> Path:
    put(blurred, root / "test/test-close-ups/10fromGOPR1.png")
    put(sharp, root / "GT/10fromGOPR1.png")
    return root


def realblur(root: Path, blurred: Frame, sharp: Frame, kind: str, folder: str) -> Path:
    scene = f"{folder}/scene230"
    put(blurred, root / scene / "blur/blur_1.png")
    put(sharp, root / scene / "gt/gt_1.png")
    for split in ("train", "test"):
        text = f"{scene}/gt/gt_1.png {scene}/blur/blur_1.png \n"
        (root / f"RealBlur_{kind}_{split}_list.txt").write_text(text)
    return root / f"RealBlur_{kind}_test_list.txt"


def realblur_j(root: Path, blurred: Frame, sharp: Frame) -> Path:
    return realblur(root, blurred, sharp, "J", "RealBlur-J_ECC_IMCORR_centroid_itensity_ref")


def realblur_r(root: Path, blurred: Frame, sharp: Frame) -> Path:
    return realblur(root, blurred, sharp, "R", "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref")


LAYOUTS = {
    gopro: "GOPR0384_11_00/000001",
    hide: "test/test-close-ups/10fromGOPR1",
    realblur_j: "RealBlur-J_ECC_IMCORR_centroid_itensity_ref/scene230/blur/blur_1",
    realblur_r: "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref/scene230/blur/blur_1",
}


@pytest.fixture
def pictures(make_frame: Callable[..., Frame]) -> tuple[Frame, Frame]:
    """(blurred, sharp)."""
    sharp = make_frame(*SIZE_HW)
    blurred = np.mean([np.roll(sharp, shift, axis=1) for shift in (-1, 0, 1)], axis=0)
    return blurred.astype(np.uint8), sharp


@pytest.mark.parametrize(("lay_out", "name"), LAYOUTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_layouts_with_one_sharp_picture(
    lay_out: Callable[..., Path], name: str, pictures: tuple[Frame, Frame], tiny_onnx: Path, tmp_path: Path
) -> None:
    data = lay_out(tmp_path / "set", *pictures)
    code, text = call(tiny_onnx, "--data", data, "--output", tmp_path / "out", "--json")
    document = json.loads(text)
    assert (code, document["pairs"], document["precision"]) == (0, 1, "fp32")
    blurred, sharp = pictures
    with Deblurrer(tiny_onnx) as deblur:
        restored = deblur(blurred)
    for kind, picture in (("blurred", blurred), ("restored", restored)):
        assert document[kind]["db"] == pytest.approx(peak_signal_noise_ratio(sharp, picture), abs=1e-6)
        expected = structural_similarity(
            sharp / 255, picture / 255, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )  # fmt: skip
        assert document[kind]["ssim"] == pytest.approx(expected, abs=1e-6)
    with (tmp_path / "out/per_image.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["name"] == name
    assert float(row["gain_db"]) == pytest.approx(document["gain_db"], abs=1e-4)


def test_koehler_is_judged_by_the_best_frame(
    pictures: tuple[Frame, Frame], tiny_onnx: Path, tmp_path: Path, make_frame: Callable[..., Frame]
) -> None:
    """The middle frame is another picture; the one that fits comes last, darker and shifted."""
    blurred, sharp = pictures
    root = tmp_path / "koehler"
    put(blurred, root / "BlurryImages/Blurry1_1.png")
    for frame in (1, 2, 3):
        put(make_frame(*SIZE_HW)[:, ::-1], root / f"Image1/Kernel1/GroundTruth1_1_{frame}.png")
    put(np.roll(sharp // 2, 3, axis=0), root / "Image1/Kernel1/GroundTruth1_1_4.png")
    code, text = call(tiny_onnx, "--data", root, "--json")
    document = json.loads(text)
    assert (code, set(document["blurred"])) == (0, {"db", "mssim"})
    assert document["blurred"]["db"] > peak_signal_noise_ratio(sharp, blurred)
    assert 0.9 < document["blurred"]["mssim"] < 1


def test_files_hold_every_picture_and_the_means(
    tiny_bundle: Path, tmp_path: Path, make_frame: Callable[..., Frame]
) -> None:
    for index in range(8):
        sharp = np.roll(make_frame(64, 96), index, axis=1)
        put(sharp, tmp_path / f"pairs/sharp/{index}.png")
        put(np.roll(sharp, index % 3, axis=0), tmp_path / f"pairs/blur/{index}.png")
    code, text = call(
        tiny_bundle, "--data", tmp_path / "pairs", "-o", tmp_path / "out", "--steps", 1, "--precision", "fp32"
    )
    assert code == 0
    assert "tiny.unblur fp32, 1 steps, on 8 pairs of pairs" in text
    with (tmp_path / "out/per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [str(index) for index in range(8)]
    mean = np.mean([float(row["restored_psnr_db"]) for row in rows])
    assert f"| restored | {mean:.2f} | " in (tmp_path / "out/summary.md").read_text()
    assert rows[0]["blurred_psnr_db"] == "inf"


def test_the_sheet_shows_six_at_most_and_its_scale(
    tiny_onnx: Path, tmp_path: Path, make_frame: Callable[..., Frame]
) -> None:
    heights = {}
    for count in (1, 6, 8):
        for index in range(count):
            put(make_frame(64, 96), tmp_path / f"{count}/sharp/{index}.png", tmp_path / f"{count}/blur/{index}.png")
        call(tiny_onnx, "--data", tmp_path / str(count), "-o", tmp_path / f"out{count}")
        with Image.open(tmp_path / f"out{count}/contact_sheet.png") as sheet:
            heights[count] = sheet.height
            colours = {pixel for _, pixel in sheet.getcolors(1 << 24) or []}
        assert {(0, 0, 4), (252, 255, 164)} <= colours
    row = (heights[6] - heights[1]) / 5
    assert row > 64
    assert heights[8] == heights[6]


def test_bad_input_is_told_before_the_work(tiny_onnx: Path, pictures: tuple[Frame, Frame], tmp_path: Path) -> None:
    data = gopro(tmp_path / "set", *pictures)
    with pytest.raises(
        BadInput, match=r"cannot make the folder .*000001\.png/out: Not a directory; choose another"
    ):
        call(tiny_onnx, "--data", data, "-o", data / "GOPR0384_11_00/blur/000001.png/out")
    with pytest.raises(BadInput, match="there is no model 'lprn-x'"):
        call("lprn-x", "--data", data, "-o", tmp_path / "out")
    sharp = data / "GOPR0384_11_00/sharp/000001.png"
    sharp.write_bytes(sharp.read_bytes()[:-400])
    with pytest.raises(BadInput, match=r"sharp/000001\.png is damaged or truncated"):
        call(tiny_onnx, "--data", data)
    assert not (tmp_path / "out").exists()


def test_memory_does_not_grow_with_the_data_set(
    fake_runner: Callable[..., Runner], tmp_path: Path, make_frame: Callable[..., Frame]
) -> None:
    """Rows hold numbers only: a picture is gone once the next one is asked for."""
    for index in range(3):
        put(make_frame(64, 96), tmp_path / f"sharp/{index}.png", tmp_path / f"blur/{index}.png")
    runner = fake_runner(lambda batch: batch)
    rows, pictures = [], []
    for judged in evaluate(runner, find_pairs(tmp_path)):
        rows.append(judged.row)
        pictures.append(weakref.ref(judged.restored_rgb))
    del judged
    assert len(rows) == 3
    assert [picture() is None for picture in pictures] == [True, True, True]


def test_the_square_shown_is_the_most_wrong_one(make_frame: Callable[..., Frame]) -> None:
    sharp = make_frame(100, 120)
    blurred = sharp.copy()
    blurred[60:80, 70:90] ^= 255
    assert harmed_square(blurred, sharp, side=20) == (60, 70, 20, 20)
    assert harmed_square(blurred, sharp) == (0, 0, 100, 120)
    assert error_colours(np.array([[0.0, 64.0, 255.0]])).tolist() == [[[0, 0, 4], [252, 255, 164], [252, 255, 164]]]


def test_shipped_model_on_pairs(tmp_path: Path) -> None:
    code, text = call("lprn-s", "--data", write_pairs(tmp_path), "--device", "cpu", "--json")
    assert code == 0
    assert json.loads(text)["gain_db"] > 0
