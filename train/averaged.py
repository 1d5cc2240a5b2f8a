"""The averaged weights of a run, and how well they restore."""

import copy
from collections.abc import Sequence

import numpy as np
import torch

from unblur.runtime.frames import Frame, Padding, batch_from_frame, frame_from_batch
from unblur.runtime.metrics import MIN_SSIM_SIDE, psnr_db, ssim
from unblur.train.data import PairOfFrames
from unblur.train.networks import DeblurringNetwork


class AveragedNetwork:
    """Exponential moving average of a network's weights; the decay ramps up so that early weights are forgotten.

    network: a copy with the averaged weights, in eval mode. Its buffers (statistics of batch norm, vectors of
    spectral norm) are those of the last step.
    """

    def __init__(self, network: DeblurringNetwork, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: DeblurringNetwork, iteration: int) -> None:
        """Move the averages towards the weights after `iteration` steps."""
        decay = min(self._decay, (1 + iteration) / (10 + iteration))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - decay)
        for kept, current in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(current)

    @torch.no_grad()
    def validate(self, frames: Sequence[PairOfFrames]) -> tuple[float, float | None]:
        """Mean PSNR in dB and mean SSIM over pairs of (blurred, sharp); None if all are too small for SSIM."""
        pairs = [(self._restore(blurred), sharp) for blurred, sharp in frames]
        similarities = [ssim(*pair) for pair in pairs if min(pair[1].shape[:2]) >= MIN_SSIM_SIDE]
        mean_psnr_db = float(np.mean([psnr_db(*pair) for pair in pairs]))
        return mean_psnr_db, float(np.mean(similarities)) if similarities else None

    def _restore(self, blurred: Frame) -> Frame:
        padding = Padding.to_multiple(blurred.shape[:2], self.network.spec.multiple_of)
        device = next(self.network.parameters()).device
        output = self.network(torch.from_numpy(batch_from_frame(blurred, padding)).to(device))
        return frame_from_batch(output.float().cpu().numpy(), padding)
