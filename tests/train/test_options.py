"""NAME=VALUE as typed."""

import pytest

from unblur.runtime.errors import BadInput
from unblur.train.networks.options import options_of, parse_options


def test_options_get_the_types_of_the_network() -> None:
    assert parse_options("lprn-n", ["width=8,16", "attention=both"]) == {"width": "8,16", "attention": "both"}
    assert parse_options("lprn", ["width=8"]) == {"width": 8}
    assert parse_options("msrm-dffm", ["dffm=false"]) == {"dffm": False}


def test_the_options_of_a_preset_are_its_networks_with_its_values() -> None:
    options = options_of("lprn-n")
    assert (options["grid"], options["attention"]) == (4, "none")
    assert "preset" not in options


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (
            "depth=3",
            r"--set 'depth=3', expected NAME=VALUE; lprn has base=plain, width=64, .*pooling=global",
        ),
        ("width", "--set 'width', expected NAME=VALUE"),
        ("width=wide", "--set width=wide: 'wide' is not a value like 64"),
    ],
)
def test_what_is_no_option_is_told(assignment: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_options("lprn", [assignment])


def test_a_switch_is_true_or_false() -> None:
    with pytest.raises(BadInput, match="--set dffm=no: 'no' is not true or false"):
        parse_options("msrm-dffm", ["dffm=no"])
