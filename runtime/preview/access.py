"""Who may look at the preview: a page that shows what a camera sees is not for everybody.

On the loopback address whoever can run programs on the machine may look; on any other only who has the token.
Web pages of others are kept out on both: by the name they were reached by (DNS rebinding) and by their origin.
"""

import hmac
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from unblur.runtime.errors import BadInput

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
        if origin is not None and urlsplit(origin).netloc != host:
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
        raise BadInput("the token must be 16 or more of A-Z a-z 0-9 _ -; without --token a good one is made")
    if token is None and not _is_loopback(host):
        token = secrets.token_urlsafe(24)
    return Access(host, token)


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_number(host) and ipaddress.ip_address(host).is_loopback)
