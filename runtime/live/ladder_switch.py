"""A ladder that can change its precision while the loop runs."""

import logging
from collections.abc import Callable
from types import TracebackType

from unblur.runtime.errors import UnblurError
from unblur.runtime.frames import Frame
from unblur.runtime.live.ladder import Ladder, Restored
from unblur.runtime.runner import Precision

_log = logging.getLogger(__name__)


class LadderSwitch:
    """Restores with one ladder and opens another between two frames, when asked to.

    Any thread may ask; the one that restores opens and closes, since a runner belongs to one thread. Its loop
    stands still meanwhile: a ladder is timed when it is opened.
    """

    def __init__(self, ladder: Ladder, open_ladder: Callable[[Precision], Ladder]) -> None:
        """ladder: to begin with; closed here, like every other. open_ladder: raises UnblurError if it cannot."""
        self.ladder = ladder
        self.error: str | None = None
        self._open_ladder = open_ladder
        self._asked: Precision | None = None

    @property
    def precision(self) -> Precision:
        """Of the ladder in use."""
        return self.ladder.top.runner.precision

    @property
    def asked(self) -> Precision | None:
        """The precision that is being opened; None if there is nothing to do."""
        return self._asked

    def ask(self, precision: Precision) -> None:
        """Change to `precision` before the next frame. If that fails all stays as it is, and `error` tells why."""
        self.error = None
        self._asked = None if precision == self.precision else precision

    def restore(
        self, frame_rgb: Frame, out: Frame, *, deadline_ms: float | None = None, most_steps: int | None = None
    ) -> Restored:
        """See `Ladder.restore`."""
        if self._asked is not None:
            self._change(self._asked)
        return self.ladder.restore(frame_rgb, out, deadline_ms=deadline_ms, most_steps=most_steps)

    def _change(self, precision: Precision) -> None:
        try:
            opened = self._open_ladder(precision)
        except UnblurError as error:
            self.error = str(error)
            _log.warning("cannot change to %s: %s", precision, error)
        else:
            self.ladder.close()
            self.ladder = opened
        if self._asked == precision:  # nobody asked for another one meanwhile
            self._asked = None

    def __enter__(self) -> "LadderSwitch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ladder.close()
