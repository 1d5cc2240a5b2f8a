"""Several sinks as one."""

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest
from live_sources import FakeSink

from unblur.runtime.errors import BadInput
from unblur.runtime.media.interfaces import MediaInfo, TimedFrame
from unblur.runtime.media.open_media import TeeSink, open_sinks

FRAME = TimedFrame(np.zeros((4, 4, 3), np.uint8), Fraction(0))


@dataclass
class LogSink(FakeSink):
    """Notes what is done to it. fails: at finish."""

    name: str = ""
    log: list[str] = field(default_factory=list)
    fails: bool = False

    def finish(self, *, complete: bool) -> None:
        self.log.append(f"{self.name} finished {'whole' if complete else 'early'}")
        if self.fails:
            raise BadInput(f"{self.name} has failed")


def test_every_frame_goes_to_all() -> None:
    sinks = [FakeSink(), FakeSink()]
    with TeeSink(sinks) as tee:
        tee.write(FRAME)
        tee.write(FRAME)
        tee.finish(complete=True)
    assert [(len(sink.frames), sink.finished) for sink in sinks] == [(2, True)] * 2


def test_all_are_finished_though_one_fails() -> None:
    log: list[str] = []
    sinks = [LogSink(name=name, log=log, fails=name == "b") for name in "abc"]
    with TeeSink(sinks) as tee, pytest.raises(BadInput, match=r"^b has failed$"):
        tee.finish(complete=False)
    assert log == ["a finished early", "b finished early", "c finished early"]


def test_the_first_that_cannot_write_ends_it() -> None:
    sinks = [FakeSink(), FakeSink(fails_at=1), FakeSink()]
    with TeeSink(sinks) as tee:
        tee.write(FRAME)
        with pytest.raises(BadInput, match="the disk is full"):
            tee.write(FRAME)
    assert [len(sink.frames) for sink in sinks] == [2, 1, 1]


def test_none_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no sink was given"):
        open_sinks([], MediaInfo(None, "live", (4, 4)))
