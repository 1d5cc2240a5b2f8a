"""Video of more than 8 bits, HDR, interlaced video, and all that a file holds beside its images."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from unblur.runtime.images import MAX_PIXELS
from unblur.runtime.media.colour import HLG, PQ, Colour, HdrToSdr
from unblur.runtime.media.video_sink import VideoSink
from unblur.runtime.media.video_source import VideoSource


def copy(source: Path, sink: Path, *, keep_depth: bool = False) -> None:
    with (
        VideoSource(source, max_pixels=MAX_PIXELS, keep_depth=keep_depth) as frames,
        VideoSink(sink, frames.info, crf=1) as target,
    ):
        for frame in frames:
            target.write(frame)
        target.finish(complete=True)


def ten_bit_clip(path: Path, transfer: int = 1, primaries: int = 1, matrix: int = 1) -> NDArray[np.uint16]:
    """A ramp of grey in steps that 8 bits cannot hold; its luma, 64 x 96, of 10 bits."""
    luma = np.tile(np.linspace(300, 340, 96).astype(np.uint16), (64, 1))
    chroma = np.full((64, 48), 512, np.uint16)  # the two planes, one below the other
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25, options={"x265-params": "log-level=none:lossless=1"})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_range = matrix, 1
        context.color_trc, context.color_primaries = transfer, primaries
        for index in range(3):
            frame = VideoFrame.from_ndarray(np.vstack([luma, chroma.reshape(32, 96)]), "yuv420p10le")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return luma


def luma_of(path: Path) -> tuple[NDArray[np.uint16], str, tuple[int, ...]]:
    """Of the first frame, with the pixel format and the tags: matrix, primaries, transfer."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
        tags = (context.colorspace, context.color_primaries, context.color_trc)
        levels = frame.to_ndarray()[: frame.height]
        return levels.astype(np.uint16), frame.format.name, tuple(int(tag) for tag in tags)


def test_ten_bits_are_kept_where_that_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "unblur")
    luma = ten_bit_clip(tmp_path / "a.mp4")
    copy(tmp_path / "a.mp4", tmp_path / "deep.mp4", keep_depth=True)
    kept, pixel_format, _ = luma_of(tmp_path / "deep.mp4")
    assert pixel_format == "yuv420p10le"
    assert np.abs(kept.astype(int) - luma).max() <= 1
    assert caplog.records == []
    copy(tmp_path / "a.mp4", tmp_path / "flat.mp4")
    assert luma_of(tmp_path / "flat.mp4")[1] == "yuv420p"
    expected = f"{tmp_path / 'a.mp4'}: 10 bits become 8; --keep-depth keeps it"
    assert [record.getMessage() for record in caplog.records] == [expected]


def test_hdr_becomes_sdr_or_stays_as_it_is_but_never_8_bits_tagged_hdr(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "unblur")
    luma = ten_bit_clip(tmp_path / "a.mp4", transfer=PQ, primaries=9, matrix=9)
    copy(tmp_path / "a.mp4", tmp_path / "sdr.mp4")
    shown, pixel_format, tags = luma_of(tmp_path / "sdr.mp4")
    assert (pixel_format, tags) == ("yuv420p", (1, 1, 1))
    # 10-bit luma 320 is a PQ signal of 0.292, 9.1 nits, 0.045 of reference white: 0.274 of a display's signal.
    assert shown[32, 48] == pytest.approx(16 + 219 * 0.274, abs=2)
    assert "HDR (PQ) becomes SDR; --keep-depth keeps it" in caplog.text
    copy(tmp_path / "a.mp4", tmp_path / "hdr.mp4", keep_depth=True)
    kept, pixel_format, tags = luma_of(tmp_path / "hdr.mp4")
    assert (pixel_format, tags) == ("yuv420p10le", (9, 9, PQ))
    assert np.abs(kept.astype(int) - luma).max() <= 1


@pytest.mark.parametrize(("transfer", "white"), [(PQ, 0.5807), (HLG, 0.75)])
def test_reference_white_stays_bright_and_highlights_are_rolled_off(transfer: int, white: float) -> None:
    """BT.2408: 203 nits is 58 % of a PQ and 75 % of an HLG signal."""
    convert = HdrToSdr(Colour(matrix=9, range=1, primaries=9, transfer=transfer))
    signal = np.array([0, white / 2, white, (1 + white) / 2, 1])
    grey = np.repeat(np.rint(65_535 * signal).astype(np.uint16)[None, :, None], 3, axis=2)
    levels = convert(grey)
    assert (levels.max(axis=2) - levels.min(axis=2)).max() <= 1, "grey stays grey"
    black, _, reference, _, peak = levels[0, :, 0].astype(int)
    assert black == 0
    assert reference == pytest.approx(241, abs=2)
    assert peak >= 253
    assert (np.diff(levels[0, :, 0].astype(int)) > 0).all()


def test_interlaced_video_is_made_progressive(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A bar that moves between two fields: woven together they show a comb, restored as it is if nobody looks."""
    caplog.set_level("INFO", "unblur")
    with av.open(str(tmp_path / "a.mpg"), "w") as container:
        options = {"flags": "+ilme+ildct", "qmin": "1", "qmax": "1"}
        stream = container.add_stream("mpeg2video", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for index in range(8):
            rgb = np.full((64, 96, 3), 40, np.uint8)
            rgb[0::2, 8 * index : 8 * index + 16] = 200
            rgb[1::2, 8 * index + 4 : 8 * index + 20] = 200
            frame = VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p", interpolation="POINT")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoSource(tmp_path / "a.mpg", max_pixels=MAX_PIXELS) as source:
        frames = list(source)
    with av.open(str(tmp_path / "a.mpg")) as container:
        woven = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == len(woven) == 8
    assert source.lost_frames == 0
    steps = np.diff([float(frame.time_s) for frame in frames])
    assert steps == pytest.approx([0.04] * 7, abs=1e-3)
    comb = [np.abs(np.diff(image[..., 1].astype(int), axis=0)).mean() for image in (woven[4], frames[4].rgb)]
    assert comb[1] < comb[0] / 4
    assert f"{tmp_path / 'a.mpg'}: interlaced, made progressive (bwdif)" in caplog.text


def film(path: Path) -> Path:
    """A clip in Matroska with subtitles, chapters, an attachment and tags."""
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "My film"
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.height, video.width, video.pix_fmt = 64, 96, "yuv420p"
        video.metadata["language"] = "fra"
        words = container.add_mux_stream("subrip")
        words.metadata["language"] = "eng"
        container.add_attachment("font.ttf", "application/x-truetype-font", b"a font")
        chapter = {"time_base": Fraction(1, 1000), "metadata": {"title": "One"}}
        container.set_chapters([{"id": 1, "start": 0, "end": 400, **chapter}])
        for index in range(10):
            frame = VideoFrame.from_ndarray(np.full((64, 96, 3), 20 * index, np.uint8), "rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
        packet = av.Packet(b"Hello")
        packet.stream, packet.time_base, packet.pts, packet.dts, packet.duration = (
            words,
            Fraction(1, 1000),
            80,
            80,
            200,
        )
        container.mux(packet)
        container.mux(video.encode(None))
    return path


def test_subtitles_chapters_attachments_and_tags_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "unblur")
    copy(film(tmp_path / "a.mkv"), tmp_path / "b.mkv")
    with av.open(str(tmp_path / "b.mkv")) as after:
        assert [stream.type for stream in after.streams] == ["video", "subtitle", "attachment"]
        assert after.metadata["title"] == "My film"
        assert [stream.metadata.get("language") for stream in list(after.streams)[:2]] == ["fra", "eng"]
        assert [(each["start"], each["metadata"]["title"]) for each in after.chapters()] == [(0, "One")]
        packets = [packet for packet in after.demux(after.streams[1]) if packet.size]
        assert [(bytes(packet), packet.pts) for packet in packets] == [(b"Hello", 80)]
    assert caplog.records == []
    copy(tmp_path / "a.mkv", tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as after:
        assert after.metadata["title"] == "My film"
        assert len(after.chapters()) == 1
    assert f"{tmp_path / 'a.mkv'}: subtitle (srt) does not fit .mp4" in caplog.text
