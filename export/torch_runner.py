"""A torch network as a Runner: the reference that every exported form is compared with."""

from types import TracebackType

import torch

from unblur.runtime.frames import Batch
from unblur.runtime.spec import ModelSpec, Precision
from unblur.train.networks import DeblurringNetwork


class TorchRunner:
    """Runs a network, which is put in eval mode, where its weights are."""

    def __init__(self, network: DeblurringNetwork) -> None:
        self._network = network.eval()
        self._spec = network.spec
        self._device = next(network.parameters()).device

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
            restored: Batch = self._network(torch.from_numpy(batch).to(self._device)).cpu().numpy()
        return restored

    def close(self) -> None:
        """Nothing to free: the network belongs to the caller."""

    def __enter__(self) -> "TorchRunner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
