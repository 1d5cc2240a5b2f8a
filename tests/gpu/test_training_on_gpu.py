"""A few steps of training on a GPU, in bfloat16 where it is fast, and its weights on the CPU again."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from unblur.runtime.images import write_image
from unblur.runtime.tensorrt.cuda_driver import Device


def test_a_network_is_trained(device: Device, frame: NDArray[np.uint8], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="not run, since it needs the extra [train]")
    if not torch.cuda.is_available():
        pytest.skip(f"not run, since torch {torch.__version__} does not see {device}: install its build for CUDA")
    from unblur.train import HoldOut, Length, build_network, load_checkpoint, open_training_data, recipe_of, train

    stills = tmp_path / "stills"
    stills.mkdir()
    for index in range(4):
        write_image(stills / f"{index}.png", np.tile(np.roll(frame, 9 * index, axis=1), (2, 2, 1)))
    network = build_network("lprn-n", width="16,32", blocks="1,1,1")
    data = open_training_data(stills=(stills,), hold_out=HoldOut(stills=1))
    weights = train(network, recipe_of("lprn-n"), data, Length(iterations=4), tmp_path / "run", workers=0)
    assert next(network.parameters()).is_cuda
    restored = load_checkpoint(weights)(torch.rand(1, 3, 64, 64))
    assert torch.isfinite(restored).all()
