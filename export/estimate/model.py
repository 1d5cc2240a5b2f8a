"""What `unblur estimate` is given -> the fp32 graph that it reads; a network need not be trained for that."""

import difflib
from pathlib import Path

from onnx import ModelProto

from unblur.calibration.onnx_file import precision_of, read_onnx, spec_of
from unblur.export.onnx_from_checkpoint import onnx_from_checkpoint, onnx_from_network
from unblur.runtime.bundle import read_bundle
from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.runner import find_model, shipped_presets
from unblur.train.networks import PRESETS, build_network


def graph_of(model: str, steps: int | None = None) -> ModelProto:
    """The graph of a shipped or a trainable preset, a checkpoint, a bundle or an .onnx file.

    steps: recursion steps, by default the model's own. Raises BadInput or SpecMismatch if there is no such model,
    or if it cannot run that many.
    """
    if model.endswith(".safetensors"):
        return onnx_from_checkpoint(Path(model), steps=steps)
    if model in PRESETS and not _ships(model, steps):
        return _untrained(model, steps)
    path = _find(model)
    if path.is_dir():
        bundle = read_bundle(path)
        return read_onnx(path / bundle.variant("fp32", steps).file)
    if path.suffix != ".onnx":
        raise BadInput(f"{path} is an engine, whose layers are decided; give the model that it was built from")
    return _checked(read_onnx(path), path, steps)


def _ships(preset: str, steps: int | None) -> bool:
    """Whether a bundle of that preset is here and runs that many steps."""
    shipped = shipped_presets()
    if preset not in shipped:
        return False
    variants = read_bundle(shipped[preset]).manifest.variants
    return steps is None or ("fp32", steps) in {(variant.precision, variant.steps) for variant in variants}


def _untrained(preset: str, steps: int | None) -> ModelProto:
    """Its time does not depend on the weights."""
    network = build_network(preset)
    try:
        return onnx_from_network((network if steps is None else network.at_steps(steps)).eval())
    except ValueError as error:
        raise BadInput(f"{error}; leave --steps out") from error


def _find(model: str) -> Path:
    path = Path(model)
    if model in shipped_presets() or path.exists() or path.suffix in (".onnx", ".engine"):
        return find_model(model)
    near = difflib.get_close_matches(model, PRESETS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else "`unblur train --list` shows the presets."
    raise BadInput(f"there is no model '{model}'; {hint} A bundle, a checkpoint or an .onnx file serves too")


def _checked(model: ModelProto, path: Path, steps: int | None) -> ModelProto:
    if precision_of(model) != "fp32":
        raise BadInput(
            f"{path} is {precision_of(model)}; give the fp32 model, all precisions are estimated from it"
        )
    own = spec_of(model).steps
    if steps not in (None, own):
        raise SpecMismatch(f"{path} runs {own} steps, asked for {steps}; export it with --steps {steps}")
    return model
