"""Who may look at the preview."""

import socket

import pytest

from unblur.runtime.errors import BadInput
from unblur.runtime.preview.requests import access_for

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_no_token(host: str) -> None:
    access = access_for(host)
    assert access.token is None
    assert access.refusal("localhost:9000", None, None) is None  # another port behind `ssh -L`


def test_any_other_address_makes_a_token_of_its_own() -> None:
    first, second = access_for("0.0.0.0"), access_for("0.0.0.0")
    assert first.token is not None
    assert len(first.token) >= 32
    assert first.token != second.token
    assert first.url(8000) == f"http://{socket.gethostname()}:8000/?token={first.token}"
    assert access_for("192.168.0.7", TOKEN).url(80) == f"http://192.168.0.7:80/?token={TOKEN}"
    assert access_for("::1", TOKEN).url(80) == f"http://[::1]:80/?token={TOKEN}"


@pytest.mark.parametrize("given", [None, "", TOKEN[:-1], f"{TOKEN}0", "ü" * 16])
def test_only_the_token_opens(given: str | None) -> None:
    access = access_for("0.0.0.0", TOKEN)
    assert access.refusal("10.0.0.7:8000", None, TOKEN) is None
    refusal = access.refusal("10.0.0.7:8000", None, given)
    assert refusal == "wrong or missing token: open the address that unblur preview printed"


def test_a_guessable_token_is_refused() -> None:
    for token in ("", "short", "spaces do not fit here", "0123456789abcde;"):
        with pytest.raises(BadInput, match="must be 16 or more of A-Z a-z 0-9 _ -; without one"):
            access_for("127.0.0.1", token)


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("jetson.lan:8000", True),
        ("JETSON.LAN", True),
        (f"{socket.gethostname()}.local", True),
        ("192.168.0.7", True),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_a_name_that_points_here_is_not_enough(host: str, passes: bool) -> None:
    assert (access_for("jetson.lan", TOKEN).refusal(host, None, TOKEN) is None) == passes


@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        (None, True),
        ("http://localhost:8000", True),
        ("https://localhost:8000", True),  # behind a proxy that speaks TLS
        ("http://localhost:9000", False),
        ("http://evil.example", False),
        ("null", False),
        ("http://[", False),
        ("http://[::1]]:8000", False),
    ],
)
def test_pages_of_others_are_refused(origin: str | None, passes: bool) -> None:
    assert (access_for("127.0.0.1").refusal("localhost:8000", origin, None) is None) == passes
