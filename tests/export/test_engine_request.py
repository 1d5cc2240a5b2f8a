"""What a user may type after --target and --size."""

import pytest

from unblur.export.engine_from_onnx import Target, profile_from_text, targets_from_text
from unblur.runtime.errors import BadInput
from unblur.runtime.tensorrt.engine_file import Profile


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("tensorrt", [Target("tensorrt", None)]),
        ("rtx-sm86", [Target("rtx", 86)]),
        ("rtx-sm89, rtx-sm120,rtx-sm89", [Target("rtx", 89), Target("rtx", 120)]),
    ],
)
def test_targets(text: str, targets: list[Target]) -> None:
    assert list(targets_from_text(text)) == targets


def test_a_target_reads_as_it_is_typed() -> None:
    assert [str(target) for target in targets_from_text("tensorrt,rtx-sm86")] == ["tensorrt", "rtx-sm86"]


@pytest.mark.parametrize("text", ["", "rtx", "rtx-86", "cuda", "rtx-sm86;rtx-sm89"])
def test_no_target(text: str) -> None:
    with pytest.raises(BadInput, match=r"--target is '.*', expected 'tensorrt' for this device or rtx-smNN"):
        targets_from_text(text)


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("720x1280", ((720, 1280),) * 3),
        ("1080x1920", ((1088, 1920),) * 3),
        ("64x96:720x1280", ((64, 96), (720, 1280), (720, 1280))),
        ("64x96:480x640:720x1280", ((64, 96), (480, 640), (720, 1280))),
    ],
)
def test_sizes_are_rounded_up_to_what_the_network_takes(text: str, sides: tuple[tuple[int, int], ...]) -> None:
    assert profile_from_text(text, 16) == Profile(*((1, 3, *side) for side in sides))


@pytest.mark.parametrize("text", ["", "720", "720p", "720x", "x1280", "0x1280", "720*1280", "720x1280:", "-8x8"])
def test_no_size(text: str) -> None:
    with pytest.raises(BadInput, match=r"--size is '.*', expected height x width such as 720x1280"):
        profile_from_text(text, 16)


def test_too_many_sizes() -> None:
    with pytest.raises(BadInput, match=r"expected a size such as 720x1280, or MIN:OPT:MAX"):
        profile_from_text("8x8:16x16:32x32:64x64", 8)


@pytest.mark.parametrize("text", ["64x64:32x128", "32x32:96x96:64x128"])
def test_sizes_in_the_wrong_order(text: str) -> None:
    with pytest.raises(BadInput, match="expected no side of MIN above OPT, none of OPT above MAX"):
        profile_from_text(text, 8)
