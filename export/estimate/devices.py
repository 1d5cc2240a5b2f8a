"""Devices that `unblur estimate` knows: what NVIDIA publishes of them, none of it measured by us.

Peaks are counted, not copied: streaming multiprocessors x operations a clock x clock. What is advertised for a
Jetson is the sum of its GPU and its DLAs, with half of all weights zero ("sparse"), so that 67 TOPS are 33 for a
network as it is trained. The tests hold the counted peaks against the advertised ones of the GPU alone.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from unblur.runtime.errors import BadInput
from unblur.runtime.profile.roofline import Peaks
from unblur.runtime.runner import Precision


@dataclass(frozen=True)
class Rate:
    """Operations that a streaming multiprocessor does in a clock, dense; a multiply-add is two.

    slow is below fast where the units are half as fast if they sum in fp32, as GeForce's tensor cores are: which
    way TensorRT takes is not known beforehand. units: what does it, for people.
    """

    slow: int
    fast: int
    units: str


@dataclass(frozen=True)
class Architecture:
    """A generation of GPUs. rates: what is not in it, the hardware has no units for. source: of the rates.

    fp32 is done by CUDA cores everywhere: unblur turns TF32 off, see `trt_api`.
    """

    name: str
    rates: Mapping[Precision, Rate]
    source: str


@dataclass(frozen=True)
class PowerMode:
    """A power mode of a Jetson, or the boost clock of a card. mhz: of the GPU."""

    name: str
    multiprocessors: int
    mhz: float
    gbytes_per_s: float


@dataclass(frozen=True)
class Device:
    """One device.

    modes: the fastest first, which is the default. memory_gib: all there is; shared: the CPU and the system live in
    it too. advertised: NVIDIA's own figure, to be recognised by. source: of all of these.
    """

    name: str
    title: str
    architecture: Architecture
    modes: tuple[PowerMode, ...]
    memory_gib: float
    shared: bool
    advertised: str
    source: str

    def mode(self, name: str | None = None) -> PowerMode:
        """The power mode of that name in any case, the fastest without one; BadInput if there is none."""
        if name is None:
            return self.modes[0]
        names = {mode.name.lower(): mode for mode in self.modes}
        if name.lower() not in names:
            raise BadInput(
                f"{self.name} has no power mode '{name}'; it has {', '.join(m.name for m in self.modes)}"
            )
        return names[name.lower()]


@dataclass(frozen=True)
class PeakRange:
    """The published peaks of a device in one mode, at the slow and at the fast rate of its units."""

    slow: Peaks
    fast: Peaks


def peaks_of(device: Device, mode: PowerMode) -> PeakRange:
    """What `device` can do at most in that mode."""
    rates = device.architecture.rates.items()
    source = f"{device.source}; {device.architecture.source}"
    gclocks = mode.multiprocessors * mode.mhz / 1000
    slow = {str(precision): rate.slow * gclocks for precision, rate in rates}
    fast = {str(precision): rate.fast * gclocks for precision, rate in rates}
    return PeakRange(Peaks(slow, mode.gbytes_per_s, source), Peaks(fast, mode.gbytes_per_s, source))


def find_device(name: str) -> Device:
    """The device of that name; BadInput with the nearest name if there is none."""
    if name.lower() in DEVICES:
        return DEVICES[name.lower()]
    near = difflib.get_close_matches(name.lower(), DEVICES, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise BadInput(f"unknown device '{name}'; {hint}`unblur estimate --list` shows all {len(DEVICES)}")


_CUDA, _TENSOR = "CUDA cores", "tensor cores"

_MAXWELL = Architecture(
    "Maxwell",
    {"fp32": Rate(256, 256, _CUDA), "fp16": Rate(512, 512, _CUDA)},
    "CUDA Programming Guide, throughput of native arithmetic instructions, 5.3 and 6.2",
)
_PASCAL = Architecture("Pascal", _MAXWELL.rates, _MAXWELL.source)
_VOLTA = Architecture(
    "Volta",
    {"fp32": Rate(128, 128, _CUDA), "fp16": Rate(1024, 1024, _TENSOR), "int8": Rate(2048, 2048, _TENSOR)},
    "NVIDIA Jetson AGX Xavier and the New Era of Autonomous Machines, 2018",
)
_TURING = Architecture("Turing", _VOLTA.rates, "NVIDIA Turing GPU Architecture whitepaper, table 1 (Tesla T4)")
_ORIN = Architecture(
    "Ampere, Orin",
    {"fp32": Rate(256, 256, _CUDA), "fp16": Rate(2048, 2048, _TENSOR), "int8": Rate(4096, 4096, _TENSOR)},
    "NVIDIA Jetson AGX Orin Series technical brief",
)
_GEFORCE: Mapping[Precision, Rate] = {
    "fp32": Rate(256, 256, _CUDA),
    "fp16": Rate(512, 1024, _TENSOR),
    "int8": Rate(2048, 2048, _TENSOR),
}
_GEFORCE_AMPERE = Architecture("Ampere, GeForce", _GEFORCE, "NVIDIA Ampere GA102 whitepaper, appendix A")
_GEFORCE_ADA = Architecture("Ada, GeForce", _GEFORCE, "NVIDIA Ada GPU Architecture whitepaper, appendix A")
_GEFORCE_BLACKWELL = Architecture("Blackwell, GeForce", _GEFORCE, "NVIDIA RTX Blackwell whitepaper, appendix A")
_SERVER: Mapping[Precision, Rate] = {**_GEFORCE, "fp16": Rate(1024, 1024, _TENSOR)}
_SERVER_AMPERE = Architecture("Ampere, A series", _SERVER, "NVIDIA A2 data sheet")
_SERVER_ADA = Architecture("Ada, L series", _SERVER, "NVIDIA L4 data sheet")
_HOPPER = Architecture(
    "Hopper",
    {"fp32": Rate(256, 256, _CUDA), "fp16": Rate(4096, 4096, _TENSOR), "int8": Rate(8192, 8192, _TENSOR)},
    "NVIDIA H100 Tensor Core GPU Architecture whitepaper",
)
_THOR = Architecture(
    "Blackwell, Thor",
    {"fp32": Rate(256, 256, _CUDA), "fp16": Rate(8192, 8192, _TENSOR), "int8": Rate(16384, 16384, _TENSOR)},
    "a quarter of FP4 for INT8 (as FP8) and an eighth for FP16, both dense",
)


def _jetson(
    name: str,
    title: str,
    architecture: Architecture,
    memory_gib: float,
    modes: tuple[PowerMode, ...],
    advertised: str,
    source: str,
) -> Device:
    return Device(name, f"Jetson {title}", architecture, modes, memory_gib, True, advertised, source)


def _card(
    name: str,
    architecture: Architecture,
    boost: tuple[int, float, float],
    memory_gib: float,
    advertised: str,
) -> Device:
    """boost: multiprocessors, MHz, GB/s."""
    modes = (PowerMode("boost", *boost),)
    title = name.upper().replace("-", " ")
    return Device(
        name, title, architecture, modes, memory_gib, False, advertised, f"NVIDIA, {title} specifications"
    )


_NVPMODEL = "clocks of the power modes: nvpmodel of L4T 36"
_ORIN_NANO = f"NVIDIA Jetson Orin Nano Series data sheet; {_NVPMODEL}"
_ORIN_NX = f"NVIDIA Jetson Orin NX Series data sheet; {_NVPMODEL}"
_AGX_ORIN = f"NVIDIA Jetson AGX Orin Series data sheet; {_NVPMODEL}"
_LOW_MODES_NX = (PowerMode("15W", 4, 612, 102.4), PowerMode("10W", 4, 612, 68.3))

_ALL = (
    _jetson(
        "nano",
        "Nano",
        _MAXWELL,
        4,
        (PowerMode("MAXN", 1, 921.6, 25.6), PowerMode("5W", 1, 640, 25.6)),
        "472 GFLOPS: FP16",
        "NVIDIA Jetson Nano data sheet; clocks of the power modes: nvpmodel of L4T 32",
    ),
    _jetson(
        "tx2",
        "TX2",
        _PASCAL,
        8,
        (PowerMode("MAXN", 2, 1300, 59.7),),
        "1.33 TFLOPS: FP16",
        "NVIDIA Jetson TX2 Series data sheet",
    ),
    _jetson(
        "xavier-nx",
        "Xavier NX",
        _VOLTA,
        8,
        (PowerMode("MAXN", 6, 1100, 59.7),),
        "21 TOPS: INT8 of the GPU and two DLAs",
        "NVIDIA Jetson Xavier NX Series data sheet",
    ),
    _jetson(
        "agx-xavier",
        "AGX Xavier",
        _VOLTA,
        32,
        (PowerMode("MAXN", 8, 1377, 136.5),),
        "32 TOPS: INT8 of the GPU and two DLAs",
        "NVIDIA Jetson AGX Xavier Series data sheet",
    ),
    _jetson(
        "orin-nano-4gb",
        "Orin Nano 4GB",
        _ORIN,
        4,
        (PowerMode("10W", 4, 625, 34.1), PowerMode("7W_AI", 4, 408, 34.1)),
        "20 TOPS: INT8, sparse",
        _ORIN_NANO,
    ),
    _jetson(
        "orin-nano",
        "Orin Nano 8GB",
        _ORIN,
        8,
        (PowerMode("15W", 8, 625, 68.3), PowerMode("7W", 4, 408, 68.3)),
        "40 TOPS: INT8, sparse",
        _ORIN_NANO,
    ),
    _jetson(
        "orin-nano-super",
        "Orin Nano 8GB Super",
        _ORIN,
        8,
        (PowerMode("MAXN_SUPER", 8, 1020, 102.4), PowerMode("25W", 8, 918, 102.4), PowerMode("15W", 8, 612, 68.3)),
        "67 TOPS: INT8, sparse",
        _ORIN_NANO,
    ),
    _jetson(
        "orin-nx-8",
        "Orin NX 8GB",
        _ORIN,
        8,
        (PowerMode("MAXN", 8, 765, 102.4), PowerMode("20W", 8, 408, 102.4), *_LOW_MODES_NX),
        "70 TOPS: INT8, sparse, of the GPU and a DLA",
        _ORIN_NX,
    ),
    _jetson(
        "orin-nx-8-super",
        "Orin NX 8GB, Super modes",
        _ORIN,
        8,
        (PowerMode("MAXN_SUPER", 8, 1173, 102.4), PowerMode("20W", 8, 408, 102.4), *_LOW_MODES_NX),
        "117 TOPS: INT8, sparse, of the GPU and a DLA",
        _ORIN_NX,
    ),
    _jetson(
        "orin-nx",
        "Orin NX 16GB",
        _ORIN,
        16,
        (PowerMode("MAXN", 8, 918, 102.4), PowerMode("25W", 8, 408, 102.4), *_LOW_MODES_NX),
        "100 TOPS: INT8, sparse, of the GPU and two DLAs",
        _ORIN_NX,
    ),
    _jetson(
        "orin-nx-super",
        "Orin NX 16GB, Super modes",
        _ORIN,
        16,
        (PowerMode("MAXN_SUPER", 8, 1173, 102.4), PowerMode("25W", 8, 408, 102.4), *_LOW_MODES_NX),
        "157 TOPS: INT8, sparse, of the GPU and two DLAs",
        _ORIN_NX,
    ),
    _jetson(
        "agx-orin-32",
        "AGX Orin 32GB",
        _ORIN,
        32,
        (
            PowerMode("MAXN", 14, 930.75, 204.8),
            PowerMode("40W", 14, 816, 204.8),
            PowerMode("30W", 8, 612, 204.8),
            PowerMode("15W", 6, 408, 136.5),
        ),
        "200 TOPS: INT8, sparse, of the GPU and two DLAs",
        _AGX_ORIN,
    ),
    _jetson(
        "agx-orin",
        "AGX Orin 64GB",
        _ORIN,
        64,
        (
            PowerMode("MAXN", 16, 1301, 204.8),
            PowerMode("50W", 16, 816, 204.8),
            PowerMode("30W", 8, 612, 204.8),
            PowerMode("15W", 6, 408, 136.5),
        ),
        "275 TOPS: INT8, sparse, of the GPU and two DLAs",
        _AGX_ORIN,
    ),
    _jetson(
        "t4000",
        "T4000",
        _THOR,
        64,
        (PowerMode("MAXN", 12, 1530, 273),),
        "1200 TFLOPS: FP4, sparse",
        "NVIDIA Jetson Thor Series modules data sheet",
    ),
    _jetson(
        "thor",
        "AGX Thor (T5000)",
        _THOR,
        128,
        (PowerMode("MAXN", 20, 1575, 273),),
        "2070 TFLOPS: FP4, sparse",
        "NVIDIA Jetson Thor Series modules data sheet",
    ),
    _card("rtx-3060", _GEFORCE_AMPERE, (28, 1777, 360), 12, "102 TOPS: INT8, dense"),
    _card("rtx-3090", _GEFORCE_AMPERE, (82, 1695, 936), 24, "284 TOPS: INT8, dense"),
    _card("rtx-4060", _GEFORCE_ADA, (24, 2460, 272), 8, "242 TOPS: INT8, sparse"),
    _card("rtx-4090", _GEFORCE_ADA, (128, 2520, 1008), 24, "661 TOPS: INT8, dense"),
    _card("rtx-5090", _GEFORCE_BLACKWELL, (170, 2407, 1792), 32, "838 TOPS: INT8, dense"),
    _card("t4", _TURING, (40, 1590, 320), 16, "130 TOPS: INT8, dense"),
    _card("a2", _SERVER_AMPERE, (10, 1770, 200), 16, "36 TOPS: INT8, dense"),
    _card("l4", _SERVER_ADA, (58, 2040, 300), 24, "242 TOPS: INT8, dense"),
    _card("h200", _HOPPER, (132, 1830, 4800), 141, "1979 TOPS: INT8, dense"),
)

DEVICES: Mapping[str, Device] = {device.name: device for device in _ALL}
