"""The power rails of a Jetson, through the INA3221 and INA238 monitors on its board. Anybody may read them.

The kernel shows each chip as a folder of hwmon, on JetPack 5, 6 and 7 alike:
https://docs.kernel.org/hwmon/ina3221.html and ina238.html. In microwatts is what the chip or mV times mA tells.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from unblur.runtime.telemetry.sensor import Channel, FileSensor, number_in, text_in

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
