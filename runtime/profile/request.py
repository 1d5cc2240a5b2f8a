"""What a user asks a profile for, in words: `--size 720x1280`, `--device cuda`, `--sweep batches=1,2,8`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast, get_args

from unblur.runtime.errors import BadInput
from unblur.runtime.runner import Device

Size = tuple[int, int]

COUNTS = (1, 2, 4)
"""Batches and streams that a sweep goes through unless told."""

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_KINDS = ("sizes", "batches", "streams")


@dataclass(frozen=True)
class SweepRequest:
    """What to vary; None is not at all. sizes: (height, width); empty for some up to that of the profile."""

    sizes: tuple[Size, ...] | None = None
    batches: tuple[int, ...] | None = None
    streams: tuple[int, ...] | None = None


def size_from_text(text: str, option: str = "--size") -> Size:
    """ "720x1280" as (height, width); BadInput, which names the option, if it is no size."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or 0 in (size_hw := (int(match[1]), int(match[2]))):
        raise BadInput(f"{option} is '{text}', expected height x width such as 720x1280")
    return size_hw


def device_from_text(text: str) -> Device:
    """One of the devices that `open_runner` takes; BadInput if it is none."""
    known = get_args(Device)
    if text not in known:
        raise BadInput(f"there is no device '{text}', expected one of {', '.join(known)}")
    return cast("Device", text)


def sweeps_from_text(texts: Iterable[str]) -> SweepRequest:
    """From "sizes", "streams=1,2", ...; BadInput if one is neither."""
    found: dict[str, tuple[Size, ...] | tuple[int, ...]] = {}
    for text in texts:
        kind, _, values = text.partition("=")
        if kind not in _KINDS:
            raise BadInput(f"--sweep is '{text}', expected one of {', '.join(_KINDS)}, or batches=1,2,8")
        parts = values.split(",") if values else []
        if kind == "sizes":
            found[kind] = tuple(size_from_text(part, "--sweep sizes") for part in parts)
        else:
            found[kind] = tuple(_count(part, kind) for part in parts) or COUNTS
    return SweepRequest(**found)  # type: ignore[arg-type]


def _count(text: str, kind: str) -> int:
    if not text.strip().isdecimal() or int(text) == 0:
        raise BadInput(f"--sweep {kind} has '{text}', expected whole numbers from 1, such as {kind}=1,2,8")
    return int(text)
