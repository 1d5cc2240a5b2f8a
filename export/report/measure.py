"""What a report still lacks, measured now: profiles at every number of steps, the quality of what was profiled."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

from unblur.calibration.onnx_model import OnnxModel, read_onnx
from unblur.calibration.placement import gflop_720p, parameters_of
from unblur.export.report.data import BundleReport, ModelFile, TruthQuality, read_report
from unblur.runtime.console import Stage, silent
from unblur.runtime.errors import BadInput, EngineMismatch
from unblur.runtime.model.bundle import SUFFIX, read_bundle
from unblur.runtime.model.open_model import check_overrides, find_model, open_runner
from unblur.runtime.profile.document import Profile, read_profile
from unblur.runtime.profile.measure import Control, Plan
from unblur.runtime.profile.profile_model import ModelChoice, ProfileRequest, profile_model
from unblur.runtime.quality.pairs import Pair
from unblur.runtime.quality.parity import Ledger, measure
from unblur.runtime.runner import RunnerOptions
from unblur.runtime.spec import Precision, SpecOverrides
from unblur.runtime.strict_json import to_json
from unblur.runtime.tensorrt.engine_runner import EngineRunner

SCHEMA = 1


@dataclass(frozen=True)
class MeasuredBundle:
    """One bundle, or one ONNX file, on the page.

    name: of the bundle's folder, or the preset. profiles: fewest steps first. judged: what it restores, as it was
    deployed or judged since; None if it was not. overrides: what is stated of a file from elsewhere.
    """

    name: str
    path: Path
    report: BundleReport
    profiles: tuple[Profile, ...]
    judged: TruthQuality | None
    overrides: SpecOverrides = SpecOverrides()

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


def read_bundles(
    models: Sequence[str], profile_files: Sequence[Path], overrides: SpecOverrides = SpecOverrides()
) -> list[MeasuredBundle]:
    """The bundles and ONNX files that `models` name, each with its profiles and the quality it was deployed with.

    Raises BadInput for what is no bundle or no profile, and for a profile that fits none of the bundles or several;
    BundleError for a bundle that is damaged or older than its report.
    """
    bundles = {_name(model): _open(model, overrides) for model in models}
    if len(bundles) < len(models):
        raise BadInput(f"two bundles have the same name ({', '.join(map(_name, models))}); rename one of them")
    profiles: dict[str, list[Profile]] = {name: [] for name in bundles}
    for file in profile_files:
        profile = read_profile(file)
        profiles[_owner(profile, bundles, file)].append(profile)
    return [replace(each, profiles=_by_steps(profiles[name])) for name, each in bundles.items()]


def _name(model: str) -> str:
    return Path(model).resolve().name.removesuffix(SUFFIX)


def _open(model: str, overrides: SpecOverrides) -> MeasuredBundle:
    path = find_model(model)
    if path.suffix == ".engine":
        raise BadInput(f"{path} is an engine; a report is made of bundles and .onnx files")
    check_overrides(path, overrides)
    report = read_report(read_bundle(path)) if path.is_dir() else _report_of_file(read_onnx(path, overrides))
    return MeasuredBundle(_name(model), path, report, (), report.judged, overrides)


def _report_of_file(model: OnnxModel) -> BundleReport:
    """What can be known of an ONNX file alone."""
    assert model.path is not None  # noqa: S101
    precision = cast(Precision, model.precision)
    return BundleReport(
        spec=model.spec,
        parameters=parameters_of(model),
        gflop_720p=gflop_720p(model),
        models=(ModelFile(precision, model.spec.steps, model.path.stat().st_size),),
        ledger=Ledger(0, None, (), ()),
        int8=None,
        truth="pairs",
        images=(),
        latency=(),
        versions={},
        created="",
    )


def _owner(profile: Profile, bundles: Mapping[str, MeasuredBundle], file: Path) -> str:
    """The bundle that was profiled: by its name, or by its preset if only one has that."""
    presets = Counter(each.report.spec.preset for each in bundles.values())
    for name, each in bundles.items():
        same_name = profile.model.removesuffix(SUFFIX) == name or presets[profile.preset] == 1
        if each.report.spec.preset == profile.preset and same_name:
            return name
    raise BadInput(
        f"{file} is a profile of '{profile.model}' ({profile.preset}), which fits none, or more than one, of "
        f"{', '.join(bundles)}; name the bundle it was made of, or leave it out"
    )


def _by_steps(profiles: Sequence[Profile]) -> tuple[Profile, ...]:
    return tuple(sorted(profiles, key=lambda profile: profile.steps))


_log = logging.getLogger(__name__)


def with_profiles(measured: MeasuredBundle, plan: Plan, stage: Stage = silent) -> MeasuredBundle:
    """Profile the fastest variant that runs here at every number of steps, and its layers at the last."""
    counts = sorted({model.steps for model in measured.report.models})
    advance = stage(f"profiling {measured.name}", len(counts))
    profiles = []
    for steps in counts:
        choice = ModelChoice(str(measured.path), RunnerOptions(steps=steps, overrides=measured.overrides))
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
    forms = profiled or {(measured.report.models[0].precision, each.steps) for each in measured.report.models}
    advance = stage(f"judging {measured.name}", len(forms) * len(pairs))
    ledgers = []
    for precision, steps in sorted(forms, key=lambda form: (-form[1], get_args(Precision).index(form[0]))):
        with open_runner(
            measured.path,
            RunnerOptions(
                precision=precision,
                steps=steps,
                graph_optimization=precision != "int8",
                device="cpu",
                quiet=True,
                overrides=measured.overrides,
            ),
        ) as runner:
            ledgers.append(measure([runner], pairs, advance))
    qualities = tuple(quality for ledger in ledgers for quality in ledger.qualities)
    return replace(measured, judged=TruthQuality.of(Ledger(len(pairs), ledgers[0].blurred_db, qualities, hops=())))
