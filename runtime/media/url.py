"""The options of a source, as in `v4l2:///dev/video0?size=720x1280&fps=30`."""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple, TypeVar, get_type_hints
from urllib.parse import parse_qsl, quote

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
        except (ValueError, ArithmeticError, BadInput) as error:
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


# What may be shown. Anything else in a query may be a secret, whatever its name: pw, sig, X-Amz-Credential, ...
_HARMLESS = {"blur", "camera", "channel", "codec", "flip", "format", "fps", "frames", "height", "profile"}
_HARMLESS |= {"quality", "resolution", "seed", "size", "stream", "subtype", "width"}
_SECRET = r"(?:pass|pwd|pw\b|token|key|secret|auth|sig|cred|cookie|user-agent)"
_VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s!]+)"""
_PROPERTY = re.compile(rf"([\w-]*{_SECRET}[\w-]*\s*=\s*(?:\(\w+\))?\s*){_VALUE}", re.IGNORECASE)
_NETWORK = r"(?:rtsps?|rtspu|rtspt|rtmp\w*|https?|udp|tcp|tls|rtp|srtp?|ftp|mms\w*|ws|wss)"
_SCHEME = re.compile(rf"(?:[a-z][\w+.-]*:/+|\b{_NETWORK}:/*)", re.IGNORECASE)
_ADDRESS = re.compile(rf"(?:\b[a-z][\w+.-]*://|\b{_NETWORK}:(?=[^\s/]))[^\s\"'<>]*", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """An address, a GStreamer pipeline or a sentence with addresses in it, without what may be secret.

    By structure rather than by name: of an address only scheme, user, host, path and query options known to be
    harmless are left, and of an rtmp path not the stream key. Where an unescaped password makes it ambiguous where
    the host begins, more is hidden rather than less. `rtsp://admin@camera/1?token=***` for
    `rtsp://admin:hunter2@camera/1?token=abc`.
    """
    scheme = _SCHEME.match(text)
    if scheme is not None and not text.lower().startswith("gst:"):
        return _address(text)
    return _PROPERTY.sub(r"\1***", _ADDRESS.sub(lambda found: _address(found[0]), text))


def _address(text: str) -> str:
    scheme = _SCHEME.match(text)
    start = 0 if scheme is None else scheme.end()
    userinfo, at, rest = text[start:].rpartition("@")
    if at and re.search(r"[/?#]", userinfo) and not re.match(r"[^/?#]*(?::|%3a)", userinfo, re.IGNORECASE):
        userinfo, at, rest = "", "", text[start:]  # an @ in a path or a query, of an address without a user
    user, colon, _ = re.sub("%3a", ":", userinfo, flags=re.IGNORECASE).partition(":")
    shown = f"{user if colon else '***'}@" if at else ""
    return text[:start] + shown + _path(rest, stream_key=text[:4].lower() == "rtmp")


def _path(text: str, *, stream_key: bool) -> str:
    """Host, path and query without the values of options."""
    path, *options = re.split(r"(?=[?&#;])", text)
    if stream_key:
        path = re.sub(r"^(/*[^/]*/[^/]+/).+", r"\1***", path)
    return path + "".join(map(_option, options))


def _option(text: str) -> str:
    """`?fps=5` as it is, `&sig=***` without its value; a part without a name may be a value itself."""
    name, equals, _ = text[1:].partition("=")
    if name.lower() in _HARMLESS:
        return text
    return f"{text[0]}{name}=***" if equals else f"{text[0]}***"


_TAKES_CREDENTIALS = re.compile(r"(rtsps?|https?)://([^/?#]*)", re.IGNORECASE)


def takes_credentials(url: str) -> bool:
    """True of an address that may carry a user and a password and does not yet."""
    match = _TAKES_CREDENTIALS.match(url)
    return match is not None and "@" not in match[2]


def with_credentials(url: str, credentials: str) -> str:
    """`rtsp://USER:PASSWORD@HOST/...` of an address without them and "USER:PASSWORD", escaped as needed.

    Raises BadInput if the address cannot carry them, has some already, or they are not of that form.
    """
    name = without_secrets(url)
    match = _TAKES_CREDENTIALS.match(url)
    if match is None:
        raise BadInput(f"{name} takes no credentials; only rtsp:// and http(s):// do")
    if "@" in match[2]:
        raise BadInput(f"{name} has credentials in it already; leave them out of the address or out of the file")
    user, colon, password = credentials.strip().partition(":")
    if not user or not colon:
        raise BadInput(f"the credentials of {name} are not of the form USER:PASSWORD")
    start = match.start(2)
    return f"{url[:start]}{quote(user, safe='')}:{quote(password, safe='')}@{url[start:]}"
