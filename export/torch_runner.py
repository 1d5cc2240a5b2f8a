"""A torch network as a Runner: the reference that every exported variant is compared with."""

from types import TracebackType

import numpy as np
import torch
from torch import nn

from unblur.export.module_spec import outputs_of
from unblur.runtime.frames import Batch, NetworkValues
from unblur.runtime.spec import ModelSpec, Precision
from unblur.train.networks import DeblurringNetwork


class TorchRunner:
    """Runs a network, in eval mode, where its weights are. output: which of its outputs is the image."""

    def __init__(self, network: nn.Module, spec: ModelSpec | None = None, output: int = 0) -> None:
        if spec is None:
            if not isinstance(network, DeblurringNetwork):
                raise TypeError(f"a {type(network).__name__} has no spec of its own; give one")
            spec = network.spec
        self._network, self._spec, self._output = network.eval(), spec, output
        self._values = NetworkValues(spec)
        self._device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    @property
    def device(self) -> str:
        return f"{self._device} (torch {torch.__version__})"

    @property
    def precision(self) -> Precision:
        return "fp32"

    def infer(self, batch: Batch) -> Batch:
        """See Runner; every call gives a new array."""
        with torch.inference_mode():
            outputs = outputs_of(self._network(torch.from_numpy(self._taken(batch)).to(self._device)))
        given: Batch = outputs[self._output].cpu().numpy()
        if self._values.is_identity:
            return given
        restored = np.empty_like(given)
        self._values.to_rgb(given, batch, restored)
        return restored

    def _taken(self, batch: Batch) -> Batch:
        """The values that the network takes."""
        if self._values.is_identity:
            return batch
        taken = np.empty_like(batch)
        self._values.from_rgb(batch, taken)
        return taken

    def close(self) -> None:
        """Nothing to free: the network belongs to the caller."""

    def __enter__(self) -> "TorchRunner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
