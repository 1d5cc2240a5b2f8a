"""What a bundle or an ONNX file is made from: a network of ours, any torch module, or an ONNX file from elsewhere.

source = find_source("lprn-s")
source = find_source("my_package.nets:build", weights=Path("best.pth"), settings={"width": 32})
graph = source.onnx(source.spec.steps)
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from torch import nn

from unblur.calibration.onnx_model import OnnxModel, described, onnx_bytes, read_onnx
from unblur.calibration.placement import gflop_720p as graph_gflop_720p
from unblur.calibration.placement import parameters_of
from unblur.export.module_spec import ModuleShape, shape_of_module
from unblur.export.onnx_from_network import onnx_from_module, onnx_from_network, simplify
from unblur.export.torch_module import is_factory, load_weights, module_from_factory
from unblur.export.torch_runner import TorchRunner
from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.files import scratch_folder
from unblur.runtime.model.inspect_onnx import inspect_onnx
from unblur.runtime.model.open_model import check_overrides
from unblur.runtime.runner import Runner
from unblur.runtime.spec import FOREIGN, ModelSpec, SpecOverrides
from unblur.train.checkpoint import load_checkpoint, resolve_checkpoint
from unblur.train.networks import DeblurringNetwork
from unblur.train.networks.base import count_parameters, gflop_720p

_log = logging.getLogger(__name__)


class SourceModel(ABC):
    """A trained network, whatever holds it. simplification: what onnxsim changed in the last graph."""

    name: str
    simplification: str = ""

    @property
    @abstractmethod
    def spec(self) -> ModelSpec: ...

    @abstractmethod
    def onnx(self, steps: int) -> OnnxModel:
        """The fp32 graph that runs `steps` recursion steps."""

    @abstractmethod
    def reference(self, steps: int) -> Runner | None:
        """The network as torch computes it; None where there is only a graph."""

    @property
    def parameters(self) -> int:
        """Number of trained scalars."""
        return parameters_of(self._graph)

    @property
    def gflop_720p(self) -> float:
        """GFLOP (2 x multiply-accumulates of the convolutions) of a 1280 x 720 frame."""
        return graph_gflop_720p(self._graph)

    @cached_property
    def _graph(self) -> OnnxModel:
        return self.onnx(self.spec.steps)

    def _simplified(self, graph: OnnxModel) -> OnnxModel:
        result = simplify(graph)
        self.simplification = result.reason
        return result.model


class NetworkSource(SourceModel):
    """A network that unblur trained."""

    def __init__(self, network: DeblurringNetwork) -> None:
        self.network = network
        self.name = network.spec.preset

    @property
    def spec(self) -> ModelSpec:
        return self.network.spec

    def onnx(self, steps: int) -> OnnxModel:
        return self._simplified(onnx_from_network(self.network.at_steps(steps)))

    def reference(self, steps: int) -> Runner:
        return TorchRunner(self.network.at_steps(steps))

    @property
    def parameters(self) -> int:
        return count_parameters(self.network)

    @property
    def gflop_720p(self) -> float:
        return gflop_720p(
            self.network.at_steps(self.spec.steps)
        )  # on a copy: it leaves the network without weights


class ModuleSource(SourceModel):
    """Any torch module from a blurred image to a restored one; its spec is found by exporting and inspecting it.

    spec: where the caller knows it. overrides: what the caller states about the network.
    Raises what `shape_of_module`, `onnx_from_module` and `inspect_onnx` raise.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        spec: ModelSpec | None = None,
        overrides: SpecOverrides = SpecOverrides(),
    ) -> None:
        self.module, self.name = module.eval(), name
        multiple_of = overrides.multiple_of if spec is None else spec.multiple_of
        self._shape = shape_of_module(module, name, output=_index(overrides.output_name), multiple_of=multiple_of)
        if self._shape.outputs > 1:
            _log.info(
                "%s: of its %d outputs number %d is the image; --output-name states another",
                name,
                self._shape.outputs,
                self._shape.output,
            )
        stated = replace(overrides, input_name=None, output_name=None, multiple_of=self._shape.multiple_of)
        exported = self._simplified(
            onnx_from_module(module, spec or _provisional(name, self._shape), self._shape.output)
        )
        if spec is None:
            exported = _inspected(exported, name, stated)
        self._exported = exported

    @property
    def spec(self) -> ModelSpec:
        return self._exported.spec

    def onnx(self, steps: int) -> OnnxModel:
        return self._exported

    def reference(self, steps: int) -> Runner:
        return TorchRunner(self.module, self.spec, self._shape.output)


class OnnxSource(SourceModel):
    """An fp32 ONNX file; there is no torch module that it could be compared with."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self.name = model.spec.preset

    @property
    def spec(self) -> ModelSpec:
        return self._model.spec

    def onnx(self, steps: int) -> OnnxModel:
        return self._model

    def reference(self, steps: int) -> None:
        return None


def find_source(
    model: str,
    *,
    weights: Path | None = None,
    settings: Mapping[str, object] | None = None,
    steps: int | None = None,
    overrides: SpecOverrides = SpecOverrides(),
) -> SourceModel:
    """What `model` names: a shipped preset, a checkpoint, a factory "package.module:name", or an fp32 .onnx file.

    weights, settings: of a factory. steps: recursion steps, if not the network's own. overrides: what is stated of
    a network that unblur did not train.
    Raises BadInput or SpecMismatch for what cannot be used.
    """
    if is_factory(model):
        _check_steps(model, steps)
        module = module_from_factory(model, settings)
        if weights is not None:
            load_weights(module, weights)
        return ModuleSource(module, model.partition(":")[2], overrides=overrides)
    if weights is not None or settings:
        raise BadInput(f"--weights and --set belong to a factory such as my_package.nets:build, not to {model}")
    if model.endswith(".onnx"):
        _check_steps(model, steps)
        return _onnx_source(Path(model), overrides)
    checkpoint = resolve_checkpoint(model)
    check_overrides(checkpoint, overrides)
    return NetworkSource(load_checkpoint(checkpoint, steps=steps))


def _check_steps(model: str, steps: int | None) -> None:
    if steps not in (None, 1):
        raise BadInput(f"{model} has no recursion steps to choose, --steps asks for {steps}; leave it out")


def _onnx_source(path: Path, overrides: SpecOverrides) -> OnnxSource:
    model = read_onnx(path, overrides)
    if model.precision != "fp32":
        raise SpecMismatch(f"{path} is {model.precision}; a bundle is made from the fp32 model")
    return OnnxSource(model)


def _index(output_name: str | None) -> int | None:
    """The outputs of a module have no names: they are counted from 0."""
    if output_name is None or output_name.isdecimal():
        return None if output_name is None else int(output_name)
    raise BadInput(f"--output-name is '{output_name}'; the outputs of a torch network are numbered, 0 is the first")


def _provisional(name: str, shape: ModuleShape) -> ModelSpec:
    """Enough of a spec to export with."""
    return ModelSpec(FOREIGN, name, 1, shape.multiple_of, 0, "global", scale=shape.scale, licence="unknown")


def _inspected(exported: OnnxModel, name: str, stated: SpecOverrides) -> OnnxModel:
    """The exported graph with the spec that was found in it."""
    with scratch_folder() as folder:
        file = folder / "exported.onnx"
        bare = exported.copied()
        del bare.metadata_props[:]
        file.write_bytes(onnx_bytes(bare))
        found = inspect_onnx(file, stated)
    _log.info("%s was exported and inspected: %s", name, "; ".join(found.lines))
    return described(bare, replace(found.spec, preset=name, input_name="", output_name=""), "fp32")
