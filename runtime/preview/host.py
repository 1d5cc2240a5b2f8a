"""What `unblur preview` does: the live loop, with a web page that shows its frames and holds its controls."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

from unblur.runtime.bundle import read_bundle
from unblur.runtime.errors import BadInput, needs_extra
from unblur.runtime.live.ladder import Ladder
from unblur.runtime.live.ladder_switch import LadderSwitch
from unblur.runtime.live.loop import LiveSummary
from unblur.runtime.live.session import LiveRequest, LiveSession, open_rungs, open_session
from unblur.runtime.live.sharpness import BlurGate
from unblur.runtime.preview.access import Access
from unblur.runtime.preview.controls import Panel
from unblur.runtime.runner import Precision, find_model
from unblur.runtime.video import is_live


def preview_camera(
    request: LiveRequest, access: Access, port: int, stop: threading.Event, tell: Callable[[str], object]
) -> LiveSummary:
    """Serve the page and run the loop until `stop` is set or the camera is gone for good.

    tell: called with the address to open, once the page is served.
    Raises MissingExtra without the packages of the web server, BadInput if the port is taken or the source is a
    file, and what opening and running the loop raises.
    """
    with needs_extra("preview"):
        from unblur.runtime.preview.app import Facts, Preview, make_app
        from unblur.runtime.preview.server import listen, serve
    if not is_live(request.source):
        raise BadInput(f"{request.source} is no camera and no stream; restore files with unblur run")
    with (
        listen(access.host, port) as listening,
        open_session(request) as session,
        LadderSwitch(session.ladder, _opener(request, session)) as switch,
    ):
        info = session.feed.info
        panel = Panel(session.controls, switch, _precisions(request, switch), request.gate or BlurGate())
        preview = Preview(Facts(str(request.model), info.name, info.size_hw), panel, session.stats)
        with serve(make_app(preview, access), listening):
            tell(access.url(listening.getsockname()[1]))
            return session.run(stop, preview.offer, restorer=switch)


def _opener(request: LiveRequest, session: LiveSession) -> Callable[[Precision], Ladder]:
    def open_at(precision: Precision) -> Ladder:
        other = replace(request, choice=replace(request.choice, precision=precision))
        return open_rungs(other, session.feed.info)

    return open_at


def _precisions(request: LiveRequest, switch: LadderSwitch) -> tuple[Precision, ...]:
    """Those of a bundle; a file has one."""
    path = find_model(request.model)
    if not path.is_dir():
        return (switch.precision,)
    there = {variant.precision for variant in read_bundle(path).manifest.variants}
    return tuple(precision for precision in get_args(Precision) if precision in there)
