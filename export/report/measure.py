"""What a report still lacks, measured now: profiles at every number of steps, the quality of what was profiled."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from unblur.export.report.data import BundleReport, TruthQuality, read_report
from unblur.runtime.console import Stage, silent
from unblur.runtime.errors import BadInput, EngineMismatch
from unblur.runtime.model.bundle import SUFFIX, Bundle, read_bundle
from unblur.runtime.model.open_model import find_model, open_runner
from unblur.runtime.profile.document import Profile, read_profile
from unblur.runtime.profile.measure import Control, Plan
from unblur.runtime.profile.profile_model import ModelChoice, ProfileRequest, profile_model
from unblur.runtime.quality.pairs import Pair
from unblur.runtime.quality.parity import Ledger, measure
from unblur.runtime.runner import RunnerOptions
from unblur.runtime.spec import Precision
from unblur.runtime.strict_json import to_json
from unblur.runtime.tensorrt.engine_runner import EngineRunner

SCHEMA = 1


@dataclass(frozen=True)
class MeasuredBundle:
    """One bundle on the page.

    name: of the bundle's folder, or the preset. profiles: fewest steps first. judged: what it restores, as it was
    deployed or judged since; None if it was not.
    """

    name: str
    bundle: Bundle
    report: BundleReport
    profiles: tuple[Profile, ...]
    judged: TruthQuality | None

    def db(self, profile: Profile) -> float | None:
        """PSNR of the form that was profiled, None if it was not measured."""
        return None if self.judged is None else self.judged.db(profile.precision, profile.steps)

    @property
    def main(self) -> Profile | None:
        """The profile to look at closely: at all steps, one that looked inside before others, then the fastest."""

        def rank(profile: Profile) -> tuple[bool, bool, float]:
            return profile.steps != self.report.spec.steps, profile.layers is None, profile.latency_ms.p50

        return min(self.profiles, key=rank, default=None)

    def document(self) -> dict[str, object]:
        """For JSON, as docs/report_schema.json describes it."""
        return {
            "name": self.name,
            "report": to_json(self.report),
            "profiles": [profile.to_json() for profile in self.profiles],
            "judged": to_json(self.judged),
        }


def read_bundles(models: Sequence[str], profile_files: Sequence[Path]) -> list[MeasuredBundle]:
    """The bundles that `models` name, each with its profiles and the quality it was deployed with.

    Raises BadInput for what is no bundle or no profile, and for a profile that fits none of the bundles or several;
    BundleError for a bundle that is damaged or older than its report.
    """
    bundles = {_name(model): _open(model) for model in models}
    if len(bundles) < len(models):
        raise BadInput(f"two bundles have the same name ({', '.join(map(_name, models))}); rename one of them")
    profiles: dict[str, list[Profile]] = {name: [] for name in bundles}
    for file in profile_files:
        profile = read_profile(file)
        profiles[_owner(profile, bundles, file)].append(profile)
    return [_subject(name, bundle, profiles[name]) for name, bundle in bundles.items()]


def _name(model: str) -> str:
    return Path(model).resolve().name.removesuffix(SUFFIX)


def _open(model: str) -> Bundle:
    path = find_model(model)
    if not path.is_dir():
        raise BadInput(f"{path} is a single file; a report is made of bundles, see `unblur deploy`")
    return read_bundle(path)


def _owner(profile: Profile, bundles: dict[str, Bundle], file: Path) -> str:
    """The bundle that was profiled: by its name, or by its preset if only one has that."""
    presets = Counter(bundle.spec.preset for bundle in bundles.values())
    for name, bundle in bundles.items():
        same_name = profile.model.removesuffix(SUFFIX) == name or presets[profile.preset] == 1
        if bundle.spec.preset == profile.preset and same_name:
            return name
    raise BadInput(
        f"{file} is a profile of '{profile.model}' ({profile.preset}), which fits none, or more than one, of "
        f"{', '.join(bundles)}; name the bundle it was made of, or leave it out"
    )


def _subject(name: str, bundle: Bundle, profiles: Sequence[Profile]) -> MeasuredBundle:
    report = read_report(bundle)
    return MeasuredBundle(
        name=name,
        bundle=bundle,
        report=report,
        profiles=tuple(sorted(profiles, key=lambda profile: profile.steps)),
        judged=report.judged,
    )


_log = logging.getLogger(__name__)


def with_profiles(measured: MeasuredBundle, plan: Plan, stage: Stage = silent) -> MeasuredBundle:
    """Profile the fastest variant that runs here at every number of steps, and its layers at the last."""
    counts = sorted({model.steps for model in measured.report.models})
    advance = stage(f"profiling {measured.name}", len(counts))
    profiles = []
    for steps in counts:
        choice = ModelChoice(str(measured.bundle.path), RunnerOptions(steps=steps))
        request = ProfileRequest(choice, plan, layers=steps == counts[-1] and _tells_layers(choice))
        profiles.append(_profile(request))
        advance()
    return replace(measured, profiles=tuple(profiles))


def _profile(request: ProfileRequest) -> Profile:
    """Without layers where the engine was built to keep none of their details."""
    kept: list[Profile] = []
    try:
        return profile_model(request, Control(), keep=kept.append)
    except EngineMismatch as error:
        if not kept:
            raise
        _log.warning("the layers are left out: %s", error)
        return kept[-1]


def _tells_layers(choice: ModelChoice) -> bool:
    """Whether something can look into what runs it: not into ONNX Runtime on a GPU."""
    with choice.open() as runner:
        return isinstance(runner, EngineRunner) or runner.device.startswith("cpu")


def with_quality(measured: MeasuredBundle, pairs: Sequence[Pair], stage: Stage = silent) -> MeasuredBundle:
    """Measure the quality on pairs, of each variant that was profiled, or of fp32 at every number of steps."""
    profiled: set[tuple[Precision, int]] = {(profile.precision, profile.steps) for profile in measured.profiles}
    forms = profiled or {("fp32", model.steps) for model in measured.report.models}
    advance = stage(f"judging {measured.name}", len(forms) * len(pairs))
    ledgers = []
    for precision, steps in sorted(forms, key=lambda form: (-form[1], get_args(Precision).index(form[0]))):
        with open_runner(
            measured.bundle.path,
            RunnerOptions(
                precision=precision, steps=steps, graph_optimization=precision != "int8", device="cpu", quiet=True
            ),
        ) as runner:
            ledgers.append(measure([runner], pairs, advance))
    qualities = tuple(quality for ledger in ledgers for quality in ledger.qualities)
    return replace(measured, judged=TruthQuality.of(Ledger(len(pairs), ledgers[0].blurred_db, qualities, hops=())))
