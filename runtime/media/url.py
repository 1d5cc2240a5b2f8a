"""The options of a source, as in `v4l2:///dev/video0?size=720x1280&fps=30`."""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple, TypeVar, get_type_hints
from urllib.parse import parse_qsl

from unblur.runtime.errors import BadInput
from unblur.runtime.spec import parse_size_hw

Options = TypeVar("Options")


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """("/dev/video0", {"size": "720x1280"}) for "/dev/video0?size=720x1280"."""
    address, _, query = text.partition("?")
    return address, dict(parse_qsl(query, keep_blank_values=True))


def read_options(kind: type[Options], given: dict[str, str], where: str) -> Options:
    """Fill a dataclass of options; a field says by its type how its text is read.

    where: the whole address, for messages. Raises BadInput for an unknown name, listing the known ones, or a value
    that cannot be read.
    """
    types = get_type_hints(kind)
    values: dict[str, object] = {}
    for name, text in given.items():
        if name not in types:
            raise BadInput(f"{where} has the unknown option '{name}'; there are {', '.join(types)}")
        reader, expected = _READERS[types[name]]
        try:
            values[name] = reader(text)
        except (ValueError, BadInput) as error:
            raise BadInput(f"{where} has {name}={text!r}, expected {expected}") from error
    return kind(**values)


class Size(NamedTuple):
    """Height and width in pixels, written 720x1280."""

    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Raises BadInput; see `parse_size_hw`."""
        return cls(*parse_size_hw(text))


def _rate(text: str) -> Fraction:
    rate = Fraction(text).limit_denominator(1001)
    if not 0 < rate <= 1000:
        raise ValueError(text)
    return rate


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError(text)
    return count


_READERS: Mapping[type, tuple[Callable[[str], object], str]] = {
    Size: (Size.parse, "height x width, as in 720x1280"),
    Fraction: (_rate, "frames per second above 0, at most 1000"),
    int: (_count, "a whole number of at least 0"),
    str: (str, "a word"),
}


_PASSWORD = re.compile(r"(?<=://)([^/?#@:]*):[^/?#]*@")
_OPTION = re.compile(r"([?&][^=&#]*(?:pass|pwd|token|key|secret|auth)[^=&#]*=)[^&#]+", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """`rtsp://admin@camera/1?token=***` for `rtsp://admin:hunter2@camera/1?token=abc`."""
    return _OPTION.sub(r"\1***", _PASSWORD.sub(r"\1@", text))
