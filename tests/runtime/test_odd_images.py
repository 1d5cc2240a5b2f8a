"""Nothing is lost silently: depth, transparency, grey, metadata and time go through a run, for every format."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import AnyFrame, Batch, Frame
from unblur.runtime.image_metadata import About
from unblur.runtime.images import Still, read_image, read_still, save_still, write_still
from unblur.runtime.loops.file_loop import run_file_loop
from unblur.runtime.loops.restorer import FixedSteps
from unblur.runtime.media.open_media import open_sink, open_source
from unblur.runtime.model.deblurrer import Deblurrer

MakeRunner = Callable[..., object]


def restore(source: Path, sink: Path, function: Callable[[Batch], Batch], make: MakeRunner, **how: float) -> None:
    """Through the loop of `unblur run`, with a function in place of a network."""
    runner = make(lambda batch: function(batch).astype(np.float32))
    with (
        open_source(str(source)) as frames,
        open_sink(str(sink), frames.info) as target,
    ):
        run_file_loop(frames, FixedSteps(Deblurrer(runner)), target, **how)  # type: ignore[arg-type]


def same(batch: Batch) -> Batch:
    return batch.copy()


@pytest.mark.parametrize("channels", [1, 2, 3, 4], ids=["grey", "grey alpha", "rgb", "rgb alpha"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_stay_sixteen(tmp_path: Path, fake_runner: MakeRunner, suffix: str, channels: int) -> None:
    """Every level of a gradient comes out as it went in, which no path through 8 bits can do."""
    levels = np.linspace(257, 65_535, 64 * 96, dtype=np.uint16).reshape(64, 96)
    rgb = np.stack([levels, levels if channels < 3 else levels[::-1], levels], axis=2)
    alpha = np.full_like(levels, 65_535) if channels % 2 == 0 else None
    if alpha is not None:
        alpha[:8] = 30_000
    write_still(tmp_path / f"a{suffix}", Still(rgb, alpha, About(is_grey=channels < 3)))
    restore(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", same, fake_runner)
    after = read_still(tmp_path / f"b{suffix}")
    is_grey = channels == 1 or (channels == 2 and suffix == ".png")
    assert (after.rgb.dtype, after.about.is_grey) == (np.uint16, is_grey)
    tolerance = 2 if alpha is not None else 0  # of multiplying by alpha and dividing again
    assert np.abs(after.rgb.astype(int) - rgb).max() <= tolerance
    if alpha is not None:
        assert after.alpha is not None
        np.testing.assert_array_equal(after.alpha, alpha)
    with Image.open(tmp_path / f"b{suffix}") as image:  # Pillow reads what we wrote
        assert image.getbands() == {1: ("I",), 2: tuple("RGBA"), 3: tuple("RGB"), 4: tuple("RGBA")}[channels]


def test_transparency_is_restored_with_its_colours_without_a_halo(tmp_path: Path, fake_runner: MakeRunner) -> None:
    """A white square whose hidden surroundings are black: a blur of its colours alone would darken its edge."""

    def blur(batch: Batch) -> Batch:
        moved = [np.roll(batch, shift, axis=3) for shift in range(-4, 5)]
        return np.mean(moved, axis=0)

    rgba = np.zeros((64, 96, 4), np.uint8)
    rgba[16:48, 32:64] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    restore(tmp_path / "a.png", tmp_path / "b.png", blur, fake_runner)
    after = np.asarray(Image.open(tmp_path / "b.png"))
    edge = after[32, 28:36]
    assert edge[:, 3].tolist() == [28, 57, 85, 113, 142, 170, 198, 227], "alpha itself is restored"
    assert (edge[:, :3] >= 254).all(), "white stays white, however transparent"


def test_grey_stays_grey_and_other_modes_say_what_they_become(
    tmp_path: Path, fake_runner: MakeRunner, frame: Frame, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "unblur")
    for mode, suffix in (("L", ".jpg"), ("L", ".png"), ("1", ".png"), ("P", ".png"), ("CMYK", ".jpg")):
        source = tmp_path / f"{mode}{suffix}"
        Image.fromarray(frame).convert(mode).save(source)
        restore(source, tmp_path / f"out{source.name}", same, fake_runner)
        expected = {"L": "L", "1": "L", "P": "RGB", "CMYK": "RGB"}[mode]
        with Image.open(tmp_path / f"out{source.name}") as after:
            assert after.mode == expected
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path / 'CMYK.jpg'}: CMYK becomes RGB"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif", ".heic"])
def test_what_the_file_says_beside_its_pixels_is_kept(
    tmp_path: Path, fake_runner: MakeRunner, frame: Frame, suffix: str
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.125
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    save_still(tmp_path / "plain.png", Still(frame))
    if suffix == ".heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    Image.fromarray(frame).save(tmp_path / f"a{suffix}", exif=exif.tobytes(), icc_profile=profile)
    restore(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", same, fake_runner)
    with Image.open(tmp_path / f"b{suffix}") as after:
        assert after.size == (64, 96), "turned upright"
        kept = after.getexif()
        assert kept.get(ExifTags.Base.Orientation, 1) == 1
        assert kept[ExifTags.Base.Make] == "Camera"
        assert float(kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime]) == 0.125
        assert kept.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        assert after.info["icc_profile"] == profile
    assert np.abs(read_image(tmp_path / f"b{suffix}").astype(int) - np.rot90(frame, 3)).mean() < 10


def test_a_deep_image_keeps_its_metadata_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.125
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    about = About(exif=exif.tobytes(), icc_profile=profile, dpi=(300, 300), text={"Author": "Me"})
    rgb: AnyFrame = np.full((4, 5, 3), 4660, np.uint16)
    for suffix in (".png", ".tif"):
        write_still(tmp_path / f"a{suffix}", Still(rgb, about=about))
        with Image.open(tmp_path / f"a{suffix}") as image:
            assert image.info["icc_profile"] == profile
            assert image.getexif()[ExifTags.Base.Make] == "Camera"
            assert float(image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime]) == 0.125
    again = read_still(tmp_path / "a.png").about
    assert (again.text, round((again.dpi or (0, 0))[0])) == ({"Author": "Me"}, 300)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_animations_and_pages_are_restored_frame_by_frame(
    tmp_path: Path, fake_runner: MakeRunner, frame: Frame, suffix: str
) -> None:
    frames = [Image.fromarray(np.roll(frame, 16 * index, axis=1)) for index in range(3)]
    options = {} if suffix == ".tif" else {"duration": [100, 200, 300], "loop": 3}
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], **options)
    restore(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", lambda batch: 1 - batch, fake_runner)
    with Image.open(tmp_path / f"b{suffix}") as after, Image.open(tmp_path / f"a{suffix}") as before:
        assert getattr(after, "n_frames", 1) == 3
        for index in range(3):
            before.seek(index)
            after.seek(index)
            levels = [np.asarray(each.convert("RGB"), int) for each in (before, after)]
            assert np.abs(255 - levels[0] - levels[1]).mean() < 12
            assert after.info.get("duration") == before.info.get("duration")
    with pytest.raises(BadInput, match=r"b\.jpg holds one image; an animation needs one of \.avif \.gif"):
        restore(tmp_path / f"a{suffix}", tmp_path / "b.jpg", same, fake_runner)


def test_what_a_format_cannot_hold_is_said(
    tmp_path: Path, fake_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "unblur")
    rgb = np.full((16, 16, 3), 1000, np.uint16)
    write_still(tmp_path / "a.png", Still(rgb, np.full((16, 16), 65_535, np.uint16)))
    restore(tmp_path / "a.png", tmp_path / "a.jpg", same, fake_runner)
    expected = f"{tmp_path / 'a.png'}: 16 bits become 8; transparency is dropped"
    assert [record.getMessage() for record in caplog.records] == [expected]


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_strength_blends_the_restoration_with_the_source(
    tmp_path: Path, fake_runner: MakeRunner, frame: Frame, strength: float
) -> None:
    save_still(tmp_path / "a.png", Still(frame))
    restore(tmp_path / "a.png", tmp_path / "b.png", lambda batch: 1 - batch, fake_runner, strength=strength)
    expected = np.rint(frame + strength * (255.0 - 2 * frame.astype(float)))
    assert np.abs(read_image(tmp_path / "b.png") - expected).max() <= 1


def test_damaged_exif_does_not_cost_the_image(tmp_path: Path, frame: Frame) -> None:
    Image.fromarray(frame).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 40)
    still = read_still(tmp_path / "a.jpg")
    assert still.rgb.shape == frame.shape
    write_still(tmp_path / "b.jpg", still)
