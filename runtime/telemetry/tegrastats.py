"""NVIDIA's tegrastats as a sensor, for a Jetson whose rails Linux does not show, such as from within a container.

Every release changed its line a little. A power is `VDD_IN 4067/4067` up to JetPack 4 and has mW from 5 on, and on
7.2 its maximum as a third number; a temperature is `GPU@43C`, from Orin on `gpu@43C`, and on 7.2 `gpu@43C/45C`.
"""

import re
import subprocess
import threading
import time
from collections.abc import Collection, Iterator

from unblur.runtime.errors import DeviceError
from unblur.runtime.telemetry.sensor import Channel, Quantity

_POWER = re.compile(r"\b([A-Z][A-Z0-9_]+) (-?\d+)(?:mW)?(?:/-?\d+(?:mW)?)+(?=\s|$)")
_TEMPERATURE = re.compile(r"\b([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C\b")
_CORES = re.compile(r"\bCPU \[([^]]*)\](?:@(\d+))?")
_UNIT = re.compile(r"\b(EMC|GR3D)_FREQ (?:(\d+)%)?(?:@\[?(\d+))?")
_UNIT_NAMES = {"EMC": "EMC", "GR3D": "GPU"}
_W_FROM_MW = 1e-3


def parse_line(line: str) -> dict[Channel, float]:
    """What a line tells, in our units; cores that are off and zones that are asleep or a dummy are left out."""
    values = {Channel("power_w", name): int(told) * _W_FROM_MW for name, told in _POWER.findall(line)}
    for name, told in _TEMPERATURE.findall(line):
        if float(told) > 0 and name != "PMIC":
            values[Channel("temperature_c", name)] = float(told)
    for name, load, clock in [*_cores(line), *_units(line)]:
        if load:
            values[Channel("load_percent", name)] = float(load)
        if clock:
            values[Channel("clocks_mhz", name)] = float(clock)
    return values


def _cores(line: str) -> Iterator[tuple[str, str, str]]:
    """`[2%@1190,off]`, or `[0%,5%]@2601` where they share a clock -> (name, load, clock)."""
    found = _CORES.search(line)
    if found is None:
        return
    for number, core in enumerate(found[1].split(",")):
        load, _, clock = core.partition("%")
        if core != "off":
            yield f"CPU {number}", load, clock.removeprefix("@") or found[2] or ""


def _units(line: str) -> Iterator[tuple[str, str, str]]:
    """`EMC_FREQ 10%@1600`, and `GR3D_FREQ @[314,314,314]` with a clock for each of its clusters."""
    for name, load, clock in _UNIT.findall(line):
        yield _UNIT_NAMES[name], load, clock


class Tegrastats:
    """Runs tegrastats until it is closed. leave_out: quantities that better sensors tell.

    patience_s: how long it may be silent. Raises DeviceError if there is no such program.
    """

    name = "tegrastats"

    def __init__(
        self,
        leave_out: Collection[Quantity] = (),
        *,
        interval_s: float = 0.5,
        patience_s: float = 5.0,
        program: str = "tegrastats",
    ) -> None:
        self._leave_out = leave_out
        self._patience_s = patience_s
        self._values: dict[Channel, float] = {}
        self._told = threading.Event()
        self._told_at_s = 0.0
        self._ended = False
        command = [program, "--interval", str(round(interval_s * 1e3))]
        try:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError as error:
            raise DeviceError(f"cannot run tegrastats: {error.strerror}") from error
        self._thread = threading.Thread(target=self._listen, name="tegrastats", daemon=True)
        self._thread.start()

    def read(self) -> dict[Channel, float]:
        """What its last line told; waits for the first."""
        told = self._told.wait(self._patience_s)
        if self._ended:
            raise DeviceError(f"tegrastats ended with exit status {self._process.wait()}")
        if not told or time.monotonic() - self._told_at_s > self._patience_s:
            raise DeviceError(f"tegrastats was silent for {self._patience_s:g} s")
        values = {
            channel: value for channel, value in self._values.items() if channel.quantity not in self._leave_out
        }
        if not values:
            raise DeviceError("tegrastats tells nothing that is known here")
        return values

    def close(self) -> None:
        """End it; again is harmless."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            self._values = parse_line(line)
            self._told_at_s = time.monotonic()
            self._told.set()
        self._ended = True
        self._told.set()  # nobody shall wait for a first line any longer
