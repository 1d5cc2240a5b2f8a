"""How fast a model runs on this device, as a document: what `unblur profile` writes and the report reads.

    profile = read_profile(Path("profile.json"))
    profile.latency_ms.p50, profile.stationary, profile.environment.cpu.model

docs/profile_schema.json describes the JSON. All times are milliseconds unless the name says otherwise, all sizes
(height, width). What was not measured is None, never zero.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from unblur.runtime.errors import BadInput
from unblur.runtime.files import atomic_file
from unblur.runtime.machine.facts import Environment
from unblur.runtime.machine.telemetry import TelemetrySummary
from unblur.runtime.profile.comparison import Verdict
from unblur.runtime.profile.int8_advice import Advice
from unblur.runtime.profile.latency import Latency
from unblur.runtime.profile.layers import Layer
from unblur.runtime.profile.roofline import Bound, Peaks
from unblur.runtime.profile.stationarity import Sustained
from unblur.runtime.runner import InferenceTiming
from unblur.runtime.spec import Precision
from unblur.runtime.strict_json import check_schema, from_json, parse_json, to_json

SCHEMA = 2

Intervals = Mapping[str, tuple[float | None, ...]]
"""(low, high), 95 %, of a statistic, by its name; high is None where there are too few samples to bound it."""


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds that 50, 90, 99 and 99.9 percent of the inferences took at most, and their mean."""

    p50: float
    p90: float
    p99: float
    p999: float
    mean: float

    @classmethod
    def of(cls, latency: Latency) -> "Percentiles":
        """Those of a summary."""
        return cls(latency.p50, latency.p90, latency.p99, latency.p999, latency.mean)


def intervals_of(latency: Latency) -> Intervals:
    """Those of a summary."""
    return {name: (interval.low, interval.high) for name, interval in latency.intervals.items()}


@dataclass(frozen=True)
class WarmUpRun:
    """Inferences and seconds after the first one until the latency had settled, or until that was given up."""

    samples: int
    seconds: float
    settled: bool


@dataclass(frozen=True)
class Inputs:
    """The random batches that were fed in turn. bytes: of all together, more than the last-level cache holds."""

    buffers: int
    bytes: int
    seed: int


@dataclass(frozen=True)
class Point:
    """One stop of a sweep. value: what was varied, "360x640", "4". pixels: of one batch. latency_ms: of one batch.
    fps: frames per second, over all streams.
    """

    value: str
    pixels: int
    samples: int
    latency_ms: Percentiles
    intervals_ms: Intervals
    fps: float


@dataclass(frozen=True)
class SizeSweep:
    """The median latency over sizes, as pixels ** exponent. exponent_interval: (low, high), 95 %, from the noise of
    the medians. fit_error: the largest factor by which a size departs from that law, at least 1. None with fewer
    than three different sizes.
    """

    points: tuple[Point, ...]
    exponent: float | None
    exponent_interval: tuple[float, ...] | None
    fit_error: float | None


@dataclass(frozen=True)
class Sweeps:
    """Each None unless it was asked for."""

    sizes: SizeSweep | None = None
    batches: tuple[Point, ...] | None = None
    streams: tuple[Point, ...] | None = None


@dataclass(frozen=True)
class Placement:
    """Where the layer of that name lies on the roofline; see `unblur.runtime.profile.roofline.Placed`."""

    name: str
    intensity: float
    bound: Bound
    attained: float


@dataclass(frozen=True)
class Roofline:
    """What the device can do at most, and how much of it each layer reached."""

    peaks: Peaks
    layers: tuple[Placement, ...]


@dataclass(frozen=True)
class Against:
    """Another model, measured in turn with this one. ratio: the typical time of the other over that of this one;
    ratio_interval: (low, high), 99 %. verdict: what the other is.
    """

    model: str
    precision: Precision
    steps: int
    device: str
    samples: int
    latency_ms: Percentiles
    intervals_ms: Intervals
    ratio: float
    ratio_interval: tuple[float | None, ...]
    verdict: Verdict


@dataclass(frozen=True)
class Profile:
    """All that was measured of one model at one size.

    size: as asked for; padded_size: as the network saw it. tensor: floats were fed to the network alone, not frames
    through the path of `unblur run`. threads: of the CPU, None for one a core. fps: frames per second. cv: standard
    deviation over mean. stationary: the latency kept its level.
    cold_ms: what the first inference waits for: "import" of the modules (None if that was done before),
    "open" of the model, and the "first" inference itself. timing: medians, of inferences of their own. times_ms:
    of the inferences in order, every `times_every`-th. interrupted: before the time asked for.
    """

    model: str
    preset: str
    precision: Precision
    steps: int
    device: str
    size: tuple[int, ...]
    padded_size: tuple[int, ...]
    tensor: bool
    batch: int
    threads: int | None
    inputs: Inputs
    latency_ms: Percentiles
    intervals_ms: Intervals
    cv: float
    fps: float
    samples: int
    stationary: bool
    interrupted: bool
    warmup: WarmUpRun
    cold_ms: Mapping[str, float | None]
    timing: InferenceTiming | None
    times_ms: tuple[float, ...]
    times_every: int
    environment: Environment
    sustained: Sustained | None = None
    sweeps: Sweeps | None = None
    layers: tuple[Layer, ...] | None = None
    roofline: Roofline | None = None
    int8_advice: tuple[Advice, ...] | None = None
    against: Against | None = None
    telemetry: TelemetrySummary | None = None
    schema: int = SCHEMA

    def to_json(self) -> dict[str, object]:
        """A document that `json.dumps` takes."""
        return cast("dict[str, object]", to_json(self))

    @classmethod
    def from_json(cls, raw: object, *, where: str) -> "Profile":
        """Read what `to_json` gave. where: names the document. BadInput names the first field at fault."""
        try:
            check_schema(raw, where, SCHEMA)
            return from_json(cls, raw, where)
        except ValueError as error:
            raise BadInput(f"{error}; make the file with `unblur profile -o`") from error


def read_profile(path: Path) -> Profile:
    """Read a profile that `write_profile` wrote; BadInput otherwise."""
    try:
        raw = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not a profile ({error}); make one with `unblur profile -o`") from error
    return Profile.from_json(raw, where=str(path))


def write_profile(path: Path, profile: Profile) -> None:
    """Write the document as a file, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(profile.to_json(), indent=1) + "\n", "utf-8")
