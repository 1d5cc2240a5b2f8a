"""Sensors of a Jetson: power rails, throttle alerts, power mode, and tegrastats where Linux hides the rails.

In a container the rails may be hidden. The line of tegrastats differs by release: a power is `VDD_IN 4067/4067` up
to JetPack 4 and has mW from 5 on, and on 7.2 its maximum as a third number; a temperature is `GPU@43C`, from Orin
on `gpu@43C`, and on 7.2 `gpu@43C/45C`.
"""

import re
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from unblur.runtime.errors import DeviceError
from unblur.runtime.machine.sensors import (
    Channel,
    FileSensor,
    Quantity,
    cpu_policies,
    jetson_gpus,
    number_in,
    text_in,
)

_POWER = re.compile(r"\b([A-Z][A-Z0-9_]+) (-?\d+)(?:mW)?(?:/-?\d+(?:mW)?)+(?=\s|$)")
_TEMPERATURE = re.compile(r"\b([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C\b")
_CORES = re.compile(r"\bCPU \[([^]]*)\](?:@(\d+))?")
_UNIT = re.compile(r"\b(EMC|GR3D)_FREQ (?:(\d+)%)?(?:@\[?(\d+))?")
_UNIT_NAMES = {"EMC": "EMC", "GR3D": "GPU"}
_W_FROM_MW = 1e-3


def parse_line(line: str) -> dict[Channel, float]:
    """The values in a line, in our units. Cores that are off, and zones that sleep or are dummies, are left out."""
    values = {Channel("power_w", name): int(text) * _W_FROM_MW for name, text in _POWER.findall(line)}
    for name, text in _TEMPERATURE.findall(line):
        if float(text) > 0 and name != "PMIC":
            values[Channel("temperature_c", name)] = float(text)
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
    """Runs tegrastats until closed. leave_out: quantities that other sensors measure.

    patience_s: how long it may be silent. Raises DeviceError if the program is missing.
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
        self._has_line = threading.Event()
        self._read_at_s = 0.0
        self._ended = False
        command = [program, "--interval", str(round(interval_s * 1e3))]
        try:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError as error:
            raise DeviceError(f"cannot run tegrastats: {error.strerror}") from error
        self._thread = threading.Thread(target=self._listen, name="tegrastats", daemon=True)
        self._thread.start()

    def read(self) -> dict[Channel, float]:
        """The values of its last line; waits for the first line."""
        answered = self._has_line.wait(self._patience_s)
        if self._ended:
            raise DeviceError(f"tegrastats ended with exit status {self._process.wait()}")
        if not answered or time.monotonic() - self._read_at_s > self._patience_s:
            raise DeviceError(f"tegrastats was silent for {self._patience_s:g} s")
        values = {
            channel: value for channel, value in self._values.items() if channel.quantity not in self._leave_out
        }
        if not values:
            raise DeviceError("no readable value from tegrastats; expected 'VDD_IN 4067mW/4067mW'")
        return values

    def close(self) -> None:
        """Stop tegrastats; may be called again."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            self._values = parse_line(line)
            self._read_at_s = time.monotonic()
            self._has_line.set()
        self._ended = True
        self._has_line.set()  # wake whoever waits for the first line


_ALERT = "-throttle-alert"


def throttle_alerts(root: Path) -> FileSensor:
    """100 while "gpu", "cpu" and the like are throttled, else 0. Orin and later have them."""
    devices = sorted((root / "sys/class/thermal").glob("cooling_device*"))
    kinds = ((text_in(device / "type"), device / "cur_state") for device in devices)
    alerts = {
        Channel("throttled_percent", kind.removesuffix(_ALERT)): _reader(state)
        for kind, state in kinds
        if kind.endswith(_ALERT)
    }
    return FileSensor("throttle alerts", alerts)


def _reader(state: Path) -> Callable[[], float]:
    read = number_in(state)
    return lambda: 100.0 if read() else 0.0


_MODE = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>")
_DEFAULT = re.compile(r"<\s*PM_CONFIG\s+DEFAULT=(\d+)\s*>")
_STATUS = re.compile(r"\bpmode:(\d+)")


def is_jetson(root: Path) -> bool:
    """By the chip that the device tree names; containers see it too."""
    return "nvidia,tegra" in text_in(root / "proc/device-tree/compatible")


def power_mode(root: Path) -> str:
    """ "MAXN", "15W" or "MAXN_SUPER": of nvpmodel. DeviceError where there is none."""
    known = text_in(root / "etc/nvpmodel.conf")
    if not known:
        raise DeviceError("/etc/nvpmodel.conf does not exist" if is_jetson(root) else "not a Jetson")
    chosen = _STATUS.search(text_in(root / "var/lib/nvpmodel/status")) or _DEFAULT.search(known)
    names: dict[int, str] = {int(number): name for number, name in _MODE.findall(known)}
    if chosen is None or int(chosen[1]) not in names:
        raise DeviceError("/etc/nvpmodel.conf does not name the mode in /var/lib/nvpmodel/status")
    return names[int(chosen[1])]


def jetson_clocks(root: Path) -> bool:
    """Whether the lowest clock that CPU and GPU may take is the highest. DeviceError elsewhere than on a Jetson."""
    if not is_jetson(root):
        raise DeviceError("not a Jetson")
    limits = [(text_in(cpu / "scaling_min_freq"), text_in(cpu / "scaling_max_freq")) for cpu in cpu_policies(root)]
    limits += [(text_in(gpu / "min_freq"), text_in(gpu / "max_freq")) for gpu in jetson_gpus(root)]
    known = [(low, high) for low, high in limits if low and high]
    if not known:
        raise DeviceError("the limits of the clocks cannot be read here")
    return all(low == high for low, high in known)


_FROM_MILLI, _W_FROM_UW = 1e-3, 1e-6
_NOT_CONNECTED = "NC"


def rails(root: Path) -> FileSensor:
    """Every rail by the name on its board, "VDD_IN"."""
    chips = sorted((root / "sys/class/hwmon").glob("hwmon*"))
    monitors = [chip for chip in chips if text_in(chip / "name").startswith("ina")]
    return FileSensor(
        "power rails",
        {Channel("power_w", name): read for chip in monitors for name, read in _rails_of(chip)},
    )


def _rails_of(chip: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    """An INA3221 has three rails with a label each; an INA238 has one, and the label is the chip's."""
    labels = sorted(chip.glob("in[0-9]*_label"))
    named = [(text_in(file), file.name[2 : -len("_label")]) for file in labels] or [(text_in(chip / "label"), "1")]
    for name, number in named:
        volts, amps, power = (chip / f"{kind}{number}_input" for kind in ("in", "curr", "power"))
        if name in ("", _NOT_CONNECTED):
            continue
        if power.is_file():
            yield name, number_in(power, _W_FROM_UW)
        elif amps.is_file():  # the sum of the shunts' voltages has a label too, and no current
            yield name, _product_of(volts, amps)


def _product_of(millivolts: Path, milliamperes: Path) -> Callable[[], float]:
    volts, amperes = number_in(millivolts, _FROM_MILLI), number_in(milliamperes, _FROM_MILLI)
    return lambda: volts() * amperes()
