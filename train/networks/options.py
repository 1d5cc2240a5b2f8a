"""Options of networks as people type them: NAME=VALUE."""

import inspect
from collections.abc import Mapping, Sequence

from unblur.runtime.errors import BadInput
from unblur.runtime.spec import OptionValue
from unblur.train.networks import find_preset

_TRUTHS = {"true": True, "false": False}


def options_of(preset: str) -> Mapping[str, OptionValue]:
    """The options a preset's network takes, with the values the preset gives them."""
    chosen = find_preset(preset)
    parameters = inspect.signature(chosen.network).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if name != "preset"}
    return {**defaults, **chosen.options}


def parse_options(preset: str, assignments: Sequence[str]) -> dict[str, OptionValue]:
    """["width=8", "attention=none"] -> {"width": 8, "attention": "none"}, each of the type the preset has there.

    Raises BadInput for anything but NAME=VALUE, an option the network does not have, or a value of another type.
    """
    known = options_of(preset)
    parsed = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or name not in known:
            options = ", ".join(f"{option}={value}".lower() for option, value in known.items())
            raise BadInput(f"--set '{assignment}', expected NAME=VALUE; {preset} has {options}")
        parsed[name] = _parse(name, text, like=known[name])
    return parsed


def _parse(name: str, text: str, *, like: OptionValue) -> OptionValue:
    try:
        return _TRUTHS[text] if isinstance(like, bool) else type(like)(text)
    except (KeyError, ValueError) as error:
        wanted = "true or false" if isinstance(like, bool) else f"a value like {like}"
        raise BadInput(f"--set {name}={text}: '{text}' is not {wanted}") from error
