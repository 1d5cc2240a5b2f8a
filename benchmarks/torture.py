"""What becomes of odd files: some 35 images and 14 videos through one `unblur run`, as a table.

    python -m benchmarks.torture --write docs/formats.md

The files are made here. A file is kept if it comes out with the size, colours, depth, transparency, frames, streams
and metadata that it went in with, or if one line says what was changed; a damaged one if it is named, and costs no
other.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from json import loads
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer
from av.container import OutputContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from benchmarks.command import Json, Model, print_report, run
from benchmarks.figures import Figure, Report
from unblur.runtime.errors import UnblurError
from unblur.runtime.frames import Frame
from unblur.runtime.image_metadata import About
from unblur.runtime.images import Still, open_image, write_still
from unblur.runtime.loops.batch import target_beside

SIZE_HW = (72, 96)
_MARK = "<!-- written by benchmarks.torture -->\n"


def main(
    model: Model = "lprn-n",
    write: Annotated[Path | None, typer.Option(help="Replace the table on this page.")] = None,
    json: Json = False,
) -> None:
    """Make the files, restore them in one run, and count those that are kept; exit 1 if one is not."""
    with tempfile.TemporaryDirectory() as folder:
        torture, restored = Path(folder) / "torture", Path(folder) / "restored"
        made = make_files(torture)
        command = [sys.executable, "-m", "unblur.runtime.cli.main", "run", model, str(torture), "-o", str(restored)]
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
        loads(done.stdout)  # one document, whatever was skipped
        said = said_of(done.stderr, torture)
        rows = [row_of(torture / name, restored, what, said.get(name, "")) for name, what in made.items()]
    if write is not None:
        head, _, _ = write.read_text().partition(_MARK)
        write.write_text(head + _MARK + "".join(rows_of(rows)))
    kept = sum(row[-1] == "kept" for row in rows)
    print_report(
        Report("torture", (Figure("files kept or named", "files", kept, "higher", asked=len(rows)),)), json=json
    )


def rows_of(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """A Markdown table."""
    yield "\n| file | what it is | in | out | said |\n|-|-|-|-|-|\n"
    for name, what, before, after, words, verdict in rows:
        mark = "" if verdict == "kept" else f" **{verdict}**"
        yield f"| `{name}` | {what} | {before} | {after}{mark} | {words} |\n"


def row_of(source: Path, restored: Path, what: str, said: str) -> tuple[str, ...]:
    """Name, what it is, how it went in, how it came out, what was said, and whether it was kept."""
    target = restored / source.name
    if not target.exists():
        target = restored / target_beside(source).name.replace("_unblurred", "")
    before, after = facts_of(source), facts_of(target)
    verdict = "kept" if after == before or said else "changed in silence"
    return source.name, what, before, "the same" if after == before else after, said, verdict


def facts_of(path: Path) -> str:
    """What has to stay the same, in a few words."""
    if not path.is_file():
        return "nothing"
    try:
        return _image_facts(path)
    except (UnblurError, OSError, SyntaxError, ValueError):
        pass
    try:
        return _video_facts(path)
    except (av.error.FFmpegError, IndexError, StopIteration):
        return "unreadable"


def _image_facts(path: Path) -> str:
    with open_image(path, 10_000_000) as image:
        image.load()
        bands = "grey" if image.mode in ("L", "I;16", "I", "LA", "1") else image.mode
        deep = any("16" in str(tile[3]) for tile in Image.open(path).tile)
        exif = image.getexif()
        upright = exif.get(ExifTags.Base.Orientation, 1) < 5
        size = f"{image.width} x {image.height}" if upright else f"{image.height} x {image.width}"
        alpha = ", alpha" if image.has_transparency_data else ""
        colour = {"P": "RGB", "RGBA": "RGB", "1": "grey"}.get(bands, bands)
        frames = f", {count} frames" if (count := getattr(image, "n_frames", 1)) > 1 else ""
        there = {"EXIF": exif.get(ExifTags.Base.Make), "ICC": image.info.get("icc_profile")}
        extras = [name for name, value in there.items() if value]
        return f"{size}, {colour}{alpha}, {16 if deep else 8} bits{frames}{''.join(f', {each}' for each in extras)}"


def _video_facts(path: Path) -> str:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = list(container.decode(video))
        first = frames[0]
        deep = max(component.bits for component in first.format.components)
        woven = ", interlaced" if first.interlaced_frame else ""
        others = [stream.type for stream in container.streams if stream.type not in ("video", "data")]
        tags = ["title"] if container.metadata.get("title") else []
        tags += ["chapters"] if container.chapters() else []
        transfer = {16: ", PQ", 18: ", HLG"}.get(int(video.codec_context.color_trc), "")
        return f"{first.width} x {first.height}, {deep} bits{transfer}{woven}, {len(frames)} frames" + "".join(
            f", {each}" for each in (*others, *tags)
        )


def said_of(stderr: str, folder: Path) -> dict[str, str]:
    """File name -> what was said of it."""
    said: dict[str, str] = {}
    for line in stderr.splitlines():
        if match := re.match(rf"unblur: (?:[a-z ]+: )?{re.escape(str(folder))}/([^:]+): (.*)", line):
            name, words = match[1], match[2].replace(f"{folder}/", "").replace(str(folder.parent) + "/", "")
            said[name] = "; ".join([*([said[name]] if name in said else []), words])
    return said


def photo() -> Frame:
    """An image with edges, gradients and noise."""
    rows, columns = np.mgrid[0 : SIZE_HW[0], 0 : SIZE_HW[1]]
    waves = np.stack([np.sin(rows / 7), np.cos(columns / 5), np.sin((rows + columns) / 11)], axis=2)
    noise = np.random.default_rng(0).normal(0, 6, (*SIZE_HW, 3))
    blocks = ((rows // 9 + columns // 13) % 2)[..., None]
    levels: Frame = np.clip(np.rint(110 + 60 * waves + 50 * blocks + noise), 0, 255).astype(np.uint8)
    return levels


def make_files(folder: Path) -> dict[str, str]:
    """Write all files; file name -> what it is."""
    folder.mkdir()
    (folder / "notes.txt").write_text("not an image")
    made = {**_images(folder), **_animations(folder), **_deep_images(folder), **_damaged(folder), **_videos(folder)}
    return {**made, "notes.txt": "a text"}


def _images(folder: Path) -> dict[str, str]:
    rgb = Image.fromarray(photo())
    rgba = rgb.copy()
    rgba.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 96), (72, 1)).astype(np.uint8)))
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Camera", 6
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    clear = rgb.convert("P")
    clear.info["transparency"] = 0
    import pillow_heif

    pillow_heif.register_heif_opener()
    wanted: list[tuple[str, str, Image.Image, dict[str, Any]]] = [
        ("plain.jpg", "JPEG", rgb, {}),
        ("grey.jpg", "grey JPEG", rgb.convert("L"), {}),
        ("cmyk.jpg", "CMYK JPEG", rgb.convert("CMYK"), {}),
        ("progressive.jpeg", "progressive JPEG", rgb, {"progressive": True}),
        ("phone.jpg", "EXIF, GPS, on its side, colour profile", rgb, {"exif": exif, "icc_profile": profile}),
        ("plain.png", "PNG", rgb, {"icc_profile": profile}),
        ("alpha.png", "PNG with transparency", rgba, {}),
        ("palette.png", "PNG with a palette", rgb.convert("P"), {}),
        ("palette_alpha.png", "PNG, one transparent colour", clear, {"transparency": 0}),
        ("bilevel.png", "black and white PNG", rgb.convert("1"), {}),
        ("grey_alpha.png", "grey PNG with transparency", rgba.convert("LA"), {}),
        ("plain.webp", "WebP", rgb, {"exif": exif}),
        ("alpha.webp", "WebP with transparency", rgba, {}),
        ("still.gif", "GIF", rgb, {}),
        ("plain.tif", "TIFF", rgb, {}),
        ("lzw.tiff", "TIFF, LZW, EXIF", rgb, {"compression": "tiff_lzw", "exif": exif}),
        ("cmyk.tif", "CMYK TIFF", rgb.convert("CMYK"), {}),
        ("lab.tif", "Lab TIFF", ImageCms.applyTransform(rgb, _to_lab()) or rgb, {}),
        ("plain.bmp", "BMP", rgb, {}),
        ("plain.ppm", "PPM", rgb, {}),
        ("plain.avif", "AVIF", rgb, {"exif": exif}),
        ("alpha.avif", "AVIF with transparency", rgba, {}),
        ("phone.heic", "HEIC", rgb, {"exif": exif}),
        ("pixel.png", "one pixel", rgb.resize((1, 1)), {}),
        ("thin.png", "one row", rgb.resize((300, 1)), {}),
        ("with space é.jpg", "a foreign name", rgb, {}),
    ]
    for name, _, image, options in wanted:
        image.save(folder / name, **options)
    (folder / "really_png.jpg").write_bytes((folder / "plain.png").read_bytes())
    return {**{name: what for name, what, *_ in wanted}, "really_png.jpg": "a PNG named .jpg"}


def _to_lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")


def _animations(folder: Path) -> dict[str, str]:
    frames = [Image.fromarray(np.roll(photo(), 16 * index, axis=1)) for index in range(3)]
    timed = {"duration": [80, 160, 240], "loop": 0}
    made: dict[str, dict[str, Any]] = {
        "moving.gif": timed,
        "moving.webp": timed,
        "moving.png": timed,
        "pages.tif": {},
    }
    for name, options in made.items():
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], **options)
    return {name: "TIFF of three pages" if name == "pages.tif" else "animation" for name in made}


def _deep_images(folder: Path) -> dict[str, str]:
    levels = np.linspace(0, 65_535, 72 * 96, dtype=np.uint16).reshape(SIZE_HW)
    rgb = np.stack([levels, levels[::-1], levels.T.reshape(SIZE_HW)], axis=2)
    grey = np.repeat(levels[..., None], 3, axis=2)
    write_still(folder / "deep.png", Still(rgb))
    write_still(folder / "deep_alpha.png", Still(rgb, levels))
    write_still(folder / "deep_grey.png", Still(grey, about=About(is_grey=True)))
    write_still(folder / "deep.tif", Still(rgb))
    Image.fromarray(levels.astype(np.float32) / 65_535).save(folder / "float.tif")
    names = ("deep.png", "deep_alpha.png", "deep_grey.png", "deep.tif")
    return {**dict.fromkeys(names, "16 bits a channel"), "float.tif": "floating-point TIFF"}


def _damaged(folder: Path) -> dict[str, str]:
    data = (folder / "plain.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no image")
    bad_exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 40
    Image.fromarray(photo()).save(folder / "bad_exif.jpg", exif=bad_exif)
    return {
        "cut.jpg": "half a JPEG",
        "empty.png": "an empty file",
        "text.png": "text named .png",
        "bad_exif.jpg": "damaged EXIF",
    }


def _clip(
    path: Path,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    size_hw: tuple[int, int] = SIZE_HW,
    *,
    times: tuple[int, ...] = tuple(range(12)),
    audio: str | None = None,
    options: dict[str, str] | None = None,
    tags: tuple[int, int, int] | None = None,
    more: Callable[[OutputContainer], None] = lambda container: None,
) -> None:
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codec, rate=25, options=options or {})
        video.height, video.width, video.pix_fmt = *size_hw, pixels
        if tags is not None:
            context = video.codec_context
            context.colorspace, context.color_primaries, context.color_trc = tags
        sound: Any = None if audio is None else container.add_stream(audio, rate=48_000, layout="stereo")
        more(container)
        for index, time in enumerate(times):
            image = Image.fromarray(np.roll(photo(), 4 * index, axis=1)).resize(size_hw[::-1])
            frame = VideoFrame.from_ndarray(np.asarray(image), "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(video.encode(frame))
        if sound is not None:
            _add_tone(container, sound)
        container.mux(video.encode(None))


def _add_tone(container: OutputContainer, sound: Any) -> None:
    wave: NDArray[np.int16] = (8000 * np.sin(np.arange(24_000) / 20)).astype(np.int16)
    tone = av.AudioFrame.from_ndarray(np.repeat(wave, 2)[None], "s16", "stereo")
    tone.sample_rate, tone.pts = 48_000, 0
    resampler = av.AudioResampler(sound.format, sound.layout, sound.rate, sound.frame_size or None)
    for frame in [*resampler.resample(tone), *resampler.resample(None)]:
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


def _extras(container: OutputContainer) -> None:
    container.metadata["title"] = "A film"
    chapter: Any = {"id": 1, "start": 0, "end": 400, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}
    container.set_chapters([chapter])
    container.add_attachment("font.ttf", "application/x-truetype-font", b"a font")


def _videos(folder: Path) -> dict[str, str]:
    quiet = {"x265-params": "log-level=none"}
    _clip(folder / "h264.mp4", audio="aac")
    _clip(folder / "odd.mkv", pixels="yuv444p", size_hw=(71, 95))
    _clip(folder / "uneven.mp4", times=(0, 1, 4, 5, 9, 20, 21, 22, 30, 31, 32, 40))
    _clip(folder / "deep.mp4", "libx265", "yuv420p10le", options=quiet)
    _clip(folder / "hdr.mp4", "libx265", "yuv420p10le", options=quiet, tags=(9, 9, 16))
    _clip(folder / "hlg.mov", "libx265", "yuv420p10le", options=quiet, tags=(9, 9, 18))
    _clip(folder / "interlaced.mpg", "mpeg2video", options={"flags": "+ilme+ildct"})
    _clip(folder / "film.mkv", audio="flac", more=_extras)
    _clip(folder / "prores.mov", "prores_ks", "yuv422p10le", audio="pcm_s16le")
    _clip(folder / "vp9.webm", "libvpx-vp9", audio="libopus")
    _clip(folder / "old.avi", "mpeg4", audio="libmp3lame")
    _clip(folder / "full_range.mp4", pixels="yuvj420p")
    _clip(folder / "single.mp4", times=(0,))
    _clip(folder / "tv.ts", audio="aac")
    _clip(folder / "cut.mkv", times=tuple(range(60)), options={"g": "5"})
    data = (folder / "cut.mkv").read_bytes()
    (folder / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    (folder / "no_index.mp4").write_bytes((folder / "h264.mp4").read_bytes()[:4000])
    return {
        "h264.mp4": "H.264 with AAC",
        "odd.mkv": "odd size, 4:4:4",
        "uneven.mp4": "uneven times",
        "deep.mp4": "HEVC of 10 bits",
        "hdr.mp4": "HDR10",
        "hlg.mov": "HLG",
        "interlaced.mpg": "interlaced MPEG-2",
        "film.mkv": "FLAC, chapters, title, attached font",
        "prores.mov": "ProRes 4:2:2 with PCM",
        "vp9.webm": "VP9 with Opus",
        "old.avi": "MPEG-4 with MP3",
        "full_range.mp4": "full range",
        "single.mp4": "one frame",
        "tv.ts": "MPEG-TS, whose clock starts anywhere",
        "cut.mkv": "two thirds of a Matroska file",
        "no_index.mp4": "an MP4 without its index",
    }


if __name__ == "__main__":
    run(main)
