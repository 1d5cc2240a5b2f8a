"""Write the table of docs/devices.md: the least time that arithmetic alone takes on a device.

    python docs/device_floors.py

Rates come from `unblur.runtime.profile.roofline`; the devices below add what NVIDIA's data sheets say of their
multiprocessors and clocks.
"""

from pathlib import Path
from typing import NamedTuple, get_args

from unblur.runtime.profile.roofline import OPERATIONS_A_CLOCK
from unblur.runtime.spec import Precision

PAGE = Path(__file__).with_name("devices.md")
BEGIN, END = "<!-- written by docs/device_floors.py -->\n", "<!-- end -->\n"
GFLOP = 100


class Gpu(NamedTuple):
    """A device in its fastest power mode, or at its boost clock."""

    name: str
    sm: int
    multiprocessors: int
    mhz: float


GPUS = (
    Gpu("Jetson Nano", 53, 1, 921.6),
    Gpu("Jetson TX2", 62, 2, 1300),
    Gpu("Jetson Xavier NX", 72, 6, 1100),
    Gpu("Jetson AGX Xavier", 72, 8, 1377),
    Gpu("Jetson Orin Nano 4GB", 87, 4, 625),
    Gpu("Jetson Orin Nano 8GB", 87, 8, 625),
    Gpu("Jetson Orin Nano 8GB Super", 87, 8, 1020),
    Gpu("Jetson Orin NX 16GB", 87, 8, 918),
    Gpu("Jetson AGX Orin 32GB", 87, 14, 930.75),
    Gpu("Jetson AGX Orin 64GB", 87, 16, 1301),
    Gpu("Jetson T4000", 110, 12, 1530),
    Gpu("Jetson AGX Thor", 110, 20, 1575),
    Gpu("T4", 75, 40, 1590),
    Gpu("RTX 3060", 86, 28, 1777),
    Gpu("RTX 4060", 89, 24, 2460),
    Gpu("RTX 4090", 89, 128, 2520),
    Gpu("L4", 89, 58, 2040),
    Gpu("RTX 5090", 120, 170, 2407),
    Gpu("H200", 90, 132, 1830),
)


def floor_ms(gpu: Gpu, precision: Precision) -> float | None:
    """Milliseconds for `GFLOP` at the published rate; None where the GPU has no units for that precision."""
    operations = OPERATIONS_A_CLOCK[gpu.sm].get(precision)
    return None if operations is None else GFLOP * 1e6 / (operations * gpu.multiprocessors * gpu.mhz)


def table() -> str:
    """The Markdown table, one row a device."""
    precisions = get_args(Precision)
    lines = [
        f"| Device | SM | multiprocessors x MHz | {' | '.join(f'{precision} ms' for precision in precisions)} |",
        f"|-|-:|-:|{'-:|' * len(precisions)}",
    ]
    for gpu in GPUS:
        cells = [_cell(floor_ms(gpu, precision)) for precision in precisions]
        lines.append(f"| {gpu.name} | {gpu.sm} | {gpu.multiprocessors} x {gpu.mhz:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.2g}" if milliseconds < 10 else f"{milliseconds:.0f}"


def page(text: str) -> str:
    """The page with its table written anew."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
