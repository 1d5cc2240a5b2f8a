"""A file that lost its end is told from a whole one, in each container."""

from collections.abc import Callable
from pathlib import Path

import pytest

from unblur.runtime.media.container import is_truncated

MakeClip = Callable[..., Path]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_every_missing_byte_is_noticed(make_clip: MakeClip, suffix: str) -> None:
    clip = make_clip(f"a{suffix}")
    data = clip.read_bytes()
    assert not is_truncated(clip)
    for missing in (1, 100, len(data) // 2):
        clip.write_bytes(data[:-missing])
        assert is_truncated(clip)


def test_bytes_behind_the_end_do_not_matter(make_clip: MakeClip) -> None:
    clip = make_clip("a.mkv")
    clip.write_bytes(clip.read_bytes() + b"more")
    assert not is_truncated(clip)


@pytest.mark.parametrize("suffix", [".avi", ".ts"])
def test_other_formats_are_not_judged(make_clip: MakeClip, suffix: str) -> None:
    clip = make_clip(f"a{suffix}")
    clip.write_bytes(clip.read_bytes()[:-100])
    assert not is_truncated(clip)


def box(size: int, kind: bytes, content: bytes = b"") -> bytes:
    return size.to_bytes(4, "big") + kind + content


@pytest.mark.parametrize(
    ("last_box", "expected"),
    [
        (box(16, b"mdat", bytes(8)), False),
        (box(17, b"mdat", bytes(8)), True),
        (box(1, b"mdat", (24).to_bytes(8, "big") + bytes(8)), False),
        (box(1, b"mdat", (25).to_bytes(8, "big") + bytes(8)), True),
        (box(0, b"mdat", bytes(8)), False),
        (box(7, b"free"), False),
        (b"\0\0\0", False),
    ],
    ids=["exact", "short", "64-bit exact", "64-bit short", "to the end", "no box", "stray bytes"],
)
def test_box_sizes(tmp_path: Path, last_box: bytes, expected: bool) -> None:
    (tmp_path / "a.mp4").write_bytes(box(8, b"ftyp") + last_box)
    assert is_truncated(tmp_path / "a.mp4") is expected


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ("185380678400000000", False),
        ("185380678500000000", True),
        ("18538067400400000000", False),
        ("18538067400500000000", True),
        ("1853806701ffffffffffffff0000", False),
        ("18538067", False),
        ("ec8100", False),
    ],
    ids=["exact", "short", "two bytes exact", "two bytes short", "live: unknown size", "no size", "no segment"],
)
def test_segment_sizes(tmp_path: Path, tail: str, expected: bool) -> None:
    (tmp_path / "a.mkv").write_bytes(bytes.fromhex("1a45dfa3820000" + tail))
    assert is_truncated(tmp_path / "a.mkv") is expected


@pytest.mark.parametrize("data", [b"", b"RIFF", bytes.fromhex("1a45dfa3"), bytes.fromhex("1a45dfa300")])
def test_what_is_no_container_is_not_judged(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    assert not is_truncated(tmp_path / "a")
