"""What a user asks an engine for, in words: `--target rtx-sm86`, `--size 720x1280`."""

import re
from dataclasses import dataclass

from unblur.runtime.engine.record import Flavour, Profile
from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Padding

DEFAULT_SIZE = "720x1280"

_RTX_TARGET = re.compile(r"rtx-sm(\d{2,3})")
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


@dataclass(frozen=True)
class Target:
    """sm: the architecture to build for; None is that of the GPU in this machine."""

    flavour: Flavour
    sm: int | None

    def __str__(self) -> str:
        return self.flavour if self.sm is None else f"{self.flavour}-sm{self.sm}"


def targets_from_text(text: str) -> tuple[Target, ...]:
    """ "tensorrt" or "rtx-sm86,rtx-sm89", each once; BadInput if it is neither."""
    return tuple(dict.fromkeys(_target(part.strip()) for part in text.split(",")))


def profile_from_text(text: str, multiple_of: int) -> Profile:
    """A frame size "HxW", or "MIN:OPT:MAX" of them ("MIN:MAX" is tuned for the largest), for single frames.

    Sizes are rounded up to multiples of `multiple_of`: the runtime pads its frames in the same way.
    """
    sizes = [_shape(part, text, multiple_of) for part in text.split(":")]
    if len(sizes) > 3:
        raise BadInput(f"--size is '{text}', expected a size such as {DEFAULT_SIZE}, or MIN:OPT:MAX")
    minimum, optimum, maximum = sizes[0], sizes[len(sizes) // 2], sizes[-1]
    profile = Profile(minimum, optimum, maximum)
    if not (profile.holds(optimum) and profile.holds(maximum)):
        raise BadInput(f"--size is '{text}', expected no side of MIN above OPT, none of OPT above MAX")
    return profile


def _target(text: str) -> Target:
    rtx = _RTX_TARGET.fullmatch(text)
    if rtx:
        return Target("rtx", int(rtx[1]))
    if text == "tensorrt":
        return Target("tensorrt", None)
    raise BadInput(f"--target is '{text}', expected 'tensorrt' for this device or rtx-smNN such as rtx-sm86")


def _shape(text: str, whole: str, multiple_of: int) -> tuple[int, int, int, int]:
    match = _SIZE.fullmatch(text.strip())
    if match is None or 0 in (int(match[1]), int(match[2])):
        raise BadInput(f"--size is '{whole}', expected height x width such as {DEFAULT_SIZE}, or MIN:OPT:MAX")
    height, width = int(match[1]), int(match[2])
    return (1, 3, *Padding.to_multiple((height, width), multiple_of).padded_hw)
