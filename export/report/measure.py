"""What a report still lacks, measured now: profiles at every number of steps, the quality of what was profiled."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from unblur.export.report.data import Judged
from unblur.export.report.subject import Subject
from unblur.runtime.console import Stage, silent
from unblur.runtime.engine.runner import EngineRunner
from unblur.runtime.errors import EngineMismatch
from unblur.runtime.pairs import Pair
from unblur.runtime.parity import Ledger, measure
from unblur.runtime.profile.document import Profile
from unblur.runtime.profile.loop import Control
from unblur.runtime.profile.runner import Plan
from unblur.runtime.profile.session import ModelChoice, ProfileRequest, profile_model
from unblur.runtime.runner import Precision, open_runner

_log = logging.getLogger(__name__)


def with_profiles(subject: Subject, plan: Plan, stage: Stage = silent) -> Subject:
    """The subject profiled in the fastest form that runs here, at every number of steps; at all with its layers."""
    counts = sorted({model.steps for model in subject.report.models})
    advance = stage(f"profiling {subject.name}", len(counts))
    profiles = []
    for steps in counts:
        choice = ModelChoice(str(subject.bundle.path), steps=steps)
        request = ProfileRequest(choice, plan, layers=steps == counts[-1] and _tells_layers(choice))
        profiles.append(_profile(request))
        advance()
    return replace(subject, profiles=tuple(profiles))


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


def with_quality(subject: Subject, pairs: Sequence[Pair], stage: Stage = silent) -> Subject:
    """The subject judged on pairs: each form that was profiled, or fp32 at every number of steps."""
    profiled: set[tuple[Precision, int]] = {(profile.precision, profile.steps) for profile in subject.profiles}
    forms = profiled or {("fp32", model.steps) for model in subject.report.models}
    advance = stage(f"judging {subject.name}", len(forms) * len(pairs))
    ledgers = []
    for precision, steps in sorted(forms, key=lambda form: (-form[1], get_args(Precision).index(form[0]))):
        with open_runner(
            subject.bundle.path,
            precision=precision,
            steps=steps,
            graph_optimization=precision != "int8",
            device="cpu",
            quiet=True,
        ) as runner:
            ledgers.append(measure([runner], pairs, advance))
    qualities = tuple(quality for ledger in ledgers for quality in ledger.qualities)
    return replace(subject, judged=Judged.of(Ledger(len(pairs), ledgers[0].blurred_db, qualities, hops=())))
