"""Pictures in every form people have them, and every way in which they are broken."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import (
    Still,
    image_size_hw,
    list_images,
    read_image,
    read_still,
    save_still,
    upright_size_hw,
    write_image,
    write_still,
)

MakeFrame = Callable[[int, int], Frame]


@pytest.fixture
def picture(tmp_path: Path, frame: Frame) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(frame).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".PNG"])
def test_lossless_formats_come_back_equal(tmp_path: Path, frame: Frame, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", frame)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), frame)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_formats_stay_close(tmp_path: Path, frame: Frame, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", frame)
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - frame).mean() < 8


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 70), (33, 1)])
def test_sizes_down_to_one_pixel(tmp_path: Path, make_frame: MakeFrame, size_hw: tuple[int, int]) -> None:
    write_image(tmp_path / "a.png", make_frame(*size_hw))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), make_frame(*size_hw))


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 32_896, 65_535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, :, 0], [0, 1, 128, 255])


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, frame: Frame, mode: str) -> None:
    expected = Image.fromarray(frame).convert(mode)
    expected.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.array(expected.convert("RGB")))


def test_transparency_is_dropped_and_its_colour_kept(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (200, 100, 50, 0)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, frame: Frame, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(frame).save(tmp_path / "a.png", exif=exif)
    turned = frame.transpose(1, 0, 2) if orientation >= 5 else frame
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    expected = turned[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)
    assert upright_size_hw(tmp_path / "a.png") == expected.shape[:2]
    assert image_size_hw(tmp_path / "a.png") == frame.shape[:2]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_the_colour_profile_survives(tmp_path: Path, frame: Frame, suffix: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    write_image(tmp_path / f"a{suffix}", frame, profile)
    assert read_still(tmp_path / f"a{suffix}").about.icc_profile == profile
    write_image(tmp_path / f"b{suffix}", frame)
    assert read_still(tmp_path / f"b{suffix}").about.icc_profile is None


def test_a_profile_of_another_colour_model_is_left_out(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("L", (4, 4)).save(tmp_path / "a.png", icc_profile=profile)
    write_still(tmp_path / "b.png", read_still(tmp_path / "a.png"))
    assert read_still(tmp_path / "b.png").about.icc_profile is None


def test_a_missing_picture(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.png does not exist$"):
        read_image(tmp_path / "nowhere.png")


def test_a_folder_for_a_picture(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is not a file$"):
        read_image(tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(BadInput, match=r"a\.png is empty$"):
        read_image(tmp_path / "a.png")


def test_text_named_as_a_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    for read in (read_image, upright_size_hw, image_size_hw):
        with pytest.raises(BadInput, match=r"a\.png is not an image that can be read$"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_a_truncated_picture(tmp_path: Path, frame: Frame, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save_still(path, Still(frame))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadInput, match=rf"a{suffix} is (damaged or truncated: |not an image)"):
        read_image(path)


def test_one_pixel_more_than_the_limit(picture: Path) -> None:
    assert read_image(picture, max_pixels=64 * 96).shape == (64, 96, 3)
    with pytest.raises(
        BadInput, match=r"has 96 x 64 pixels, more than the limit of 6143; raise --max-pixels if you trust it$"
    ):
        read_image(picture, max_pixels=64 * 96 - 1)


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    """A PNG of 20000 x 20000 pixels in 400 bytes: the header alone, since it must not come to decoding."""
    Image.new("1", (1, 1)).save(tmp_path / "bomb.png")
    data = bytearray((tmp_path / "bomb.png").read_bytes())
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    data[29:33] = _crc(bytes(data[12:29]))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(BadInput, match=r"has more than 178956970 pixels, which Pillow refuses; make it smaller"):
        read_image(tmp_path / "bomb.png")


def test_pictures_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt", "c.webp"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png", "c.webp"]


def test_a_folder_without_pictures(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"empty holds no images \(\.avif, \.bmp, "):
        list_images(tmp_path / "empty")
    with pytest.raises(BadInput, match=r"picture\.png is not a folder of images$"):
        list_images(picture)


def test_an_unknown_suffix_is_not_written(tmp_path: Path, frame: Frame) -> None:
    with pytest.raises(BadInput, match=r"cannot write .*a\.xyz: '\.xyz' is not an image format"):
        write_image(tmp_path / "a.xyz", frame)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_not_made(tmp_path: Path, frame: Frame) -> None:
    with pytest.raises(BadInput, match=r"the folder .*no does not exist; create it first"):
        write_image(tmp_path / "no" / "a.png", frame)


def test_a_picture_is_replaced_whole_or_not_at_all(
    picture: Path, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(BadInput, match=r"cannot write .*picture\.png: No space left on device"):
        write_image(picture, 255 - frame)
    np.testing.assert_array_equal(read_image(picture), frame)
    assert [path.name for path in picture.parent.iterdir()] == ["picture.png"]


def _crc(data: bytes) -> bytes:

    return zlib.crc32(data).to_bytes(4, "big")
