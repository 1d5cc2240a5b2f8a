"""What the preview page may ask for, checked: nothing that arrives from a network is taken as it is."""

import json
from dataclasses import dataclass
from typing import TypeGuard

from unblur.runtime.errors import BadInput
from unblur.runtime.live.ladder_switch import LadderSwitch
from unblur.runtime.live.loop import LiveControls
from unblur.runtime.live.sharpness import BlurGate
from unblur.runtime.runner import Precision

_MOST_DEADLINE_MS = 60_000.0
_MOST_STEPS = 1000


@dataclass(frozen=True)
class Panel:
    """The controls of one loop. precisions: those that may be chosen. gate: what to switch on, once it is."""

    controls: LiveControls
    switch: LadderSwitch
    precisions: tuple[Precision, ...]
    gate: BlurGate

    def set(self, name: str, value: object) -> None:
        """Change one control. Raises BadInput, and changes nothing, if there is no such control or value."""
        if name == "most_steps" and (value is None or _is_count(value)):
            self.controls.most_steps = value
        elif name == "deadline_ms" and (value is None or _is_deadline(value)):
            self.controls.deadline_ms = value
        elif name == "gate" and isinstance(value, bool):
            self.controls.gate = self.gate if value else None
        elif name == "precision" and value in self.precisions:
            self.switch.ask(value)
        else:
            raise BadInput(f"no control {name!a:.20} takes {value!a:.40}")

    def describe(self) -> dict[str, object]:
        """What the controls stand at, for the page."""
        controls, switch = self.controls, self.switch
        rungs = [{"steps": cost.steps, "ms": round(cost.ms, 1), "db": cost.db} for cost in switch.ladder.costs]
        return {
            "most_steps": controls.most_steps,
            "deadline_ms": controls.deadline_ms,
            "gate": controls.gate is not None,
            "precision": switch.precision,
            "precisions": self.precisions,
            "opening": switch.asked,
            "error": switch.error,
            "rungs": rungs,
            "device": switch.ladder.top.runner.device,
        }


def read_request(text: str) -> tuple[str, object]:
    """The name and the value of a message like `{"most_steps": 3}`. Raises BadInput if it is none."""
    try:
        message = json.loads(text)
    except ValueError as error:
        raise BadInput(f"expected JSON, got {text!a:.40}") from error
    if not isinstance(message, dict) or len(message) != 1:
        raise BadInput(f"expected an object of one item, got {text!a:.40}")
    return next(iter(message.items()))


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_STEPS


def _is_deadline(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _MOST_DEADLINE_MS
