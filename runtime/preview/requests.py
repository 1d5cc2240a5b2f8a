"""Who may look at the preview: a page that shows what a camera sees is not for everybody.

On the loopback address anyone who runs programs on the machine may look; elsewhere only who has the token.
Web pages of others are kept out on both: by the name they were reached by (DNS rebinding) and by their origin.
"""

import hmac
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass
from typing import TypeGuard
from urllib.parse import urlsplit

from unblur.runtime.blur import BlurGate
from unblur.runtime.errors import BadInput
from unblur.runtime.loops.ladder import LadderSwitch
from unblur.runtime.loops.live_loop import LiveControls
from unblur.runtime.spec import Precision
from unblur.runtime.strict_json import parse_json

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")


@dataclass(frozen=True)
class Access:
    """host: the address the server binds, as the user gave it. token: None where none is needed."""

    host: str
    token: str | None

    def refusal(self, host: str, origin: str | None, token: str | None) -> str | None:
        """Why a request may not pass, in one line; None if it may.

        host, origin: the headers; a browser sends the origin whenever a page of another site may be behind it.
        token: as the cookie or the address has it.
        """
        if not self._is_ours(host):
            return f"this page is not served as '{host}': open it by the address that unblur preview printed"
        if origin is not None and _netloc(origin) != host:
            return f"pages of {origin} may not use this one"
        if not self._has_token(token):
            return "wrong or missing token: open the address that unblur preview printed"
        return None

    def url(self, port: int) -> str:
        """What to open in a browser, with the token."""
        name = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        address = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
        return address if self.token is None else f"{address}?token={self.token}"

    def _is_ours(self, header: str) -> bool:
        """A page of evil.example whose name was made to point here still says evil.example; no number can do that.

        The port is not compared: it is another one behind `ssh -L`.
        """
        try:
            name = (urlsplit(f"//{header}").hostname or "").removesuffix(".")
        except ValueError:  # an unclosed bracket
            return False
        own = socket.gethostname().lower()
        return _is_number(name) or name in {"localhost", self.host.lower(), own, f"{own}.local"}

    def _has_token(self, token: str | None) -> bool:
        if self.token is None:
            return True
        return hmac.compare_digest((token or "").encode(), self.token.encode())


def access_for(host: str, token: str | None = None) -> Access:
    """Access to a server on `host`: with the token given, or with a new one wherever others can reach it.

    Raises BadInput if the token is short enough to be guessed, or does not fit in an address.
    """
    if token is not None and not _TOKEN.fullmatch(token):
        raise BadInput("the token must be 16 or more of A-Z a-z 0-9 _ -; without one a random token is made")
    if token is None and not _is_loopback(host):
        token = secrets.token_urlsafe(24)
    return Access(host, token)


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # an unclosed bracket
        return None


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_number(host) and ipaddress.ip_address(host).is_loopback)


_MOST_DEADLINE_MS = 60_000.0
_MOST_RUNGS = 1000


@dataclass(frozen=True)
class Panel:
    """The controls of one loop. precisions: those that may be chosen. gate: what to switch on, once it is."""

    controls: LiveControls
    switch: LadderSwitch
    precisions: tuple[Precision, ...]
    gate: BlurGate

    def set(self, name: str, value: object) -> None:
        """Change one control. Raises BadInput, and changes nothing, if there is no such control or value."""
        if name == "highest_rung" and (value is None or _is_count(value)):
            self.controls.highest_rung = value
        elif name == "deadline_ms" and (value is None or _is_deadline(value)):
            self.controls.deadline_ms = value
        elif name == "strength" and _is_share(value):
            self.controls.strength = value
        elif name == "gate" and isinstance(value, bool):
            self.controls.gate = self.gate if value else None
        elif name == "precision" and value in self.precisions:
            self.switch.ask(value)
        else:
            raise BadInput(f"no control {name!a:.20} takes {value!a:.40}")

    def describe(self) -> dict[str, object]:
        """What the controls stand at, for the page."""
        controls, switch = self.controls, self.switch
        rungs = [{"name": cost.name, "ms": round(cost.ms, 1), "db": cost.db} for cost in switch.ladder.costs]
        return {
            "highest_rung": controls.highest_rung,
            "deadline_ms": controls.deadline_ms,
            "gate": controls.gate is not None,
            "strength": controls.strength,
            "precision": switch.precision,
            "precisions": self.precisions,
            "opening": switch.asked,
            "error": switch.error,
            "rungs": rungs,
            "device": switch.runner.device,
        }


def read_request(text: str) -> tuple[str, object]:
    """The name and the value of a message like `{"highest_rung": 3}`. Raises BadInput if it is none."""
    try:
        message = parse_json(text)
    except ValueError as error:
        raise BadInput(f"expected JSON, got {text!a:.40}") from error
    if not isinstance(message, dict) or len(message) != 1:
        raise BadInput(f"expected an object of one item, got {text!a:.40}")
    return next(iter(message.items()))


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_RUNGS


def _is_share(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _is_deadline(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _MOST_DEADLINE_MS
