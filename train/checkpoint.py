"""Checkpoints: safetensors files whose header carries the spec and the recipe. Nothing is ever unpickled.

Two kinds share the format: a *network* (what ships and what export reads) and a *training state* (network, EMA,
optimiser, the same of a discriminator, and counters: what `--resume` reads).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.files import atomic_file
from unblur.runtime.spec import SPEC_KEY, ModelSpec
from unblur.runtime.strict_json import from_json, parse_json
from unblur.train.networks import PRESETS, DeblurringNetwork, network_from_spec
from unblur.train.networks.blocks import ResidualBlock, start_at_zero
from unblur.train.recipe import Recipe

_RECIPE_KEY = "unblur.recipe"
_PROGRESS_KEY = "unblur.progress"
_GROUPS = ("network", "ema", "optimizer", "discriminator", "discriminator_optimizer")  # fields of TrainingState


@dataclass(frozen=True)
class TrainingState:
    """Everything a run needs to go on. What is random is a function of (seed, iteration): no random state is kept.

    discriminator, discriminator_optimizer: empty if the run has none. threads: of torch, on which rounding depends.
    """

    network: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    discriminator: Mapping[str, Tensor]
    discriminator_optimizer: Mapping[str, Tensor]
    spec: ModelSpec
    recipe: Recipe
    iteration: int
    elapsed_s: float
    threads: int | None = None


def save_checkpoint(path: Path, network: DeblurringNetwork, recipe: Recipe, training_data: tuple[str, ...]) -> None:
    """Write weights, spec (with `training_data`) and recipe, whole or not at all."""
    spec = replace(network.spec, training_data=training_data)
    metadata = {SPEC_KEY: spec.to_json(), _RECIPE_KEY: recipe.to_json()}
    with atomic_file(path) as temporary:
        temporary.write_bytes(save(_contiguous(network.state_dict()), metadata))


def load_checkpoint(path: Path, *, steps: int | None = None) -> DeblurringNetwork:
    """Rebuild the network a checkpoint holds, in eval mode; its `spec` keeps the recorded data and licence.

    steps: run the same weights for another number of recursion steps.
    Raises BadInput for a missing or damaged file, SpecMismatch if weights and spec do not fit.
    """
    tensors, metadata = _read(path)
    recorded = _spec(metadata, path)
    spec = recorded if steps is None else replace(recorded, steps=steps)
    with torch.device("meta"):  # takes no memory, whatever the spec says
        _check_fits(network_from_spec(spec), tensors, path)
    network = network_from_spec(spec)
    network.load_state_dict(dict(tensors))
    network.training_data, network.licence = recorded.training_data, recorded.licence
    return network.eval()


def start_from(network: DeblurringNetwork, trained: DeblurringNetwork, path: Path) -> None:
    """Give a network the weights of one that was loaded from `path`, and note what these were trained on.

    It may have more residual blocks than that: those begin as the identity, so that it computes the same
    (Net2DeeperNet, Chen et al. 2016). Raises SpecMismatch if they differ otherwise.
    """
    tensors = trained.state_dict()
    added = [
        (name, block)
        for name, block in network.named_modules()
        if isinstance(block, ResidualBlock) and f"{name}.second.weight" not in tensors
    ]
    for name, block in added:
        start_at_zero(block.second)
        tensors |= {f"{name}.{part}": tensor for part, tensor in block.state_dict().items()}
    _check_fits(network, tensors, path)
    network.load_state_dict(tensors)
    network.training_data, network.licence = trained.training_data, trained.licence


def shipped_checkpoint(preset: str) -> Path:
    """The weights that come with this package; BadInput if this preset has none."""
    path = Path(str(files("unblur.train"))) / "weights" / f"{preset}.safetensors"
    if not path.is_file():
        shipped = sorted(file.stem for file in path.parent.glob("*.safetensors"))
        raise BadInput(
            f"no weights ship for '{preset}' (there are: {', '.join(shipped) or 'none'}); "
            "give the path of a checkpoint"
        )
    return path


def resolve_checkpoint(preset_or_path: str) -> Path:
    """What the command line calls PRESET: the path of a checkpoint, or the name of a shipped preset."""
    if preset_or_path.endswith(".safetensors") or (preset_or_path not in PRESETS and Path(preset_or_path).exists()):
        return Path(preset_or_path)
    return shipped_checkpoint(preset_or_path)


def save_state(path: Path, state: TrainingState) -> None:
    """Write a training state, whole or not at all: a kill at any moment leaves the one before."""
    tensors: dict[str, Tensor] = {}
    for group in _GROUPS:
        tensors |= {f"{group}.{name}": tensor for name, tensor in _contiguous(getattr(state, group)).items()}
    metadata = {
        SPEC_KEY: state.spec.to_json(),
        _RECIPE_KEY: state.recipe.to_json(),
        _PROGRESS_KEY: json.dumps(
            {"iteration": state.iteration, "elapsed_s": state.elapsed_s, "threads": state.threads}
        ),
    }
    with atomic_file(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))  # `save_file` would hide it from the group


def load_state(path: Path) -> TrainingState:
    """Read what `save_state` wrote; BadInput or SpecMismatch as `load_checkpoint`."""
    tensors, metadata = _read(path)
    if _PROGRESS_KEY not in metadata:
        raise SpecMismatch(f"{path} holds a network, not the state of a run; --resume needs RUN/state.safetensors")
    progress = _progress(metadata[_PROGRESS_KEY], path)
    return TrainingState(
        **{group: _group(tensors, f"{group}.") for group in _GROUPS},
        spec=_spec(metadata, path),
        recipe=Recipe.from_json(metadata.get(_RECIPE_KEY, "")),
        iteration=progress.iteration,
        elapsed_s=progress.elapsed_s,
        threads=progress.threads,
    )


@dataclass(frozen=True)
class _Progress:
    """The fields of TrainingState that are numbers."""

    iteration: int
    elapsed_s: float
    threads: int | None


def _progress(text: str, path: Path) -> _Progress:
    try:
        raw = parse_json(text)
        known = {"threads": None, **raw} if isinstance(raw, dict) else raw  # the first states had no threads
        return from_json(_Progress, known, f"{path}: its progress")
    except ValueError as error:
        raise SpecMismatch(f"{error}; it was not written by this version of unblur") from error


def flat_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments as named tensors: "3.exp_avg" belongs to its fourth parameter."""
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def restore_optimizer_state(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    """Undo `flat_optimizer_state`; learning rates and such stay those of `optimizer`.

    Fused optimisers go through memory in its order, so moments get the strides of their parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        index, _, name = key.partition(".")
        like = parameters[int(index)]
        has_strides = tensor.shape == like.shape
        state.setdefault(int(index), {})[name] = torch.empty_like(like).copy_(tensor) if has_strides else tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise BadInput(f"{path} does not exist; expected a checkpoint (.safetensors)")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} is not a whole safetensors file: {error}") from error


def _spec(metadata: Mapping[str, str], path: Path) -> ModelSpec:
    if SPEC_KEY not in metadata:
        raise SpecMismatch(f"{path} has no model spec in its header; it was not written by unblur")
    return ModelSpec.from_json(metadata[SPEC_KEY], where=str(path))


def _check_fits(network: DeblurringNetwork, tensors: Mapping[str, Tensor], path: Path) -> None:
    expected = network.state_dict()
    wrong = sorted(expected.keys() ^ tensors.keys()) or [
        name for name, tensor in expected.items() if tensor.shape != tensors[name].shape
    ]
    if wrong:
        raise SpecMismatch(
            f"{path} does not fit preset '{network.spec.preset}': tensor '{wrong[0]}' is missing, unexpected or "
            "of another shape; it is a training state or a checkpoint of another network"
        )


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
