"""A whole profile: the model opened and measured, then varied, compared and taken apart as far as is asked for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from unblur.runtime.profile.against import profile_against
from unblur.runtime.profile.document import Against, Profile
from unblur.runtime.profile.inside import add_layers
from unblur.runtime.profile.loop import Control
from unblur.runtime.profile.request import SweepRequest
from unblur.runtime.profile.runner import Plan, profile_runner
from unblur.runtime.profile.sweep import sweep
from unblur.runtime.runner import Device, Precision, Runner, open_runner


@dataclass(frozen=True)
class ModelChoice:
    """Which model to open and how; the fields are those of `open_runner`."""

    model: str
    precision: Precision | Literal["auto"] = "auto"
    steps: int | None = None
    threads: int | None = None
    device: Device = "auto"

    @property
    def name(self) -> str:
        """Without its folder."""
        return Path(self.model).name

    def open(self, *, quiet: bool = True) -> Runner:
        """See `open_runner`."""
        return open_runner(
            self.model,
            precision=self.precision,
            steps=self.steps,
            threads=self.threads,
            device=self.device,
            quiet=quiet,
        )


@dataclass(frozen=True)
class ProfileRequest:
    """What to measure of which model. against: the model to compare it with. layers: look inside."""

    choice: ModelChoice
    plan: Plan
    sweeps: SweepRequest | None = None
    against: ModelChoice | None = None
    layers: bool = False


def profile_model(
    request: ProfileRequest,
    control: Control,
    *,
    import_ms: float | None = None,
    keep: Callable[[Profile], object] = lambda profile: None,
) -> Profile:
    """Do what is asked for.

    import_ms: that importing the runners took. keep: given what there is after each section, so that an error in a
    later one, an engine that tells no layers, does not lose it. Raises what the sections raise.
    """
    began = control.clock()
    with request.choice.open(quiet=False) as runner:
        cold_ms = {"import": import_ms, "open": (control.clock() - began) / 1e6}
        profile = profile_runner(
            runner,
            request.plan,
            model=request.choice.name,
            cold_ms=cold_ms,
            threads=request.choice.threads,
            control=control,
        )
        keep(profile)
        if request.layers and not control.stop.is_set():
            profile = add_layers(profile, runner, request.choice.threads)
            keep(profile)
        if request.sweeps is not None and not control.stop.is_set():
            sweeps = sweep(request.sweeps, runner, request.choice.open, request.plan, control)
            profile = replace(profile, sweeps=sweeps)
            keep(profile)
        if request.against is not None and not control.stop.is_set():
            profile = replace(profile, against=_against(runner, request.against, request.plan, control))
    return replace(profile, interrupted=control.stop.is_set())


def _against(runner: Runner, choice: ModelChoice, plan: Plan, control: Control) -> Against | None:
    with choice.open(quiet=False) as other:
        return profile_against(runner, other, plan, model=choice.name, control=control)
