"""An H.264 stream in an output container, with the size, colours and pixel shape of the source."""

from collections.abc import Mapping
from fractions import Fraction

from av.codec.context import Flags
from av.container import OutputContainer
from av.video.stream import VideoStream

from unblur.runtime.colour import Chroma
from unblur.runtime.errors import BadInput
from unblur.runtime.media import MediaInfo

# Restoring is what costs, and it wants the cores: at one quality, x264's "veryfast" takes a third of the time of
# the default "medium" for files about a tenth larger, and looks ahead 10 frames instead of 40 (memory).
_PRESET = "veryfast"


def one_size_hw(info: MediaInfo) -> tuple[int, int]:
    """Height and width of the frames. Raises BadInput if those of the source differ in size."""
    if info.size_hw is None:
        raise BadInput(f"{info.name} holds pictures of different sizes, a video needs one; give a folder as sink")
    return info.size_hw


def pixel_format(chroma: Chroma, size_hw: tuple[int, int]) -> str:
    """The 8-bit YUV format of H.264 that keeps this chroma; 4:4:4 where subsampling would need an even size."""
    height, width = size_hw
    if chroma == "420" and height % 2 == 0 and width % 2 == 0:
        return "yuv420p"
    if chroma == "422" and width % 2 == 0:
        return "yuv422p"
    return "yuv444p"


def add_h264(
    container: OutputContainer, info: MediaInfo, time_base: Fraction, options: Mapping[str, str]
) -> VideoStream:
    """Add the stream. time_base: unit of its time stamps in seconds. options: x264's, beside the preset.

    Raises BadInput if the frames of the source differ in size.
    """
    size_hw = one_size_hw(info)
    stream = container.add_stream("libx264", rate=info.rate, options={"preset": _PRESET, **options})
    stream.height, stream.width = size_hw
    stream.pix_fmt = pixel_format(info.chroma, size_hw)
    stream.time_base = time_base
    context = stream.codec_context
    context.time_base = time_base
    context.flags |= Flags.frame_duration  # else the last frame of a variable rate gets a guessed duration
    context.sample_aspect_ratio = info.pixel_aspect
    colour = info.colour
    context.colorspace, context.color_range = colour.matrix, colour.range
    context.color_primaries, context.color_trc = colour.primaries, colour.transfer
    return stream
