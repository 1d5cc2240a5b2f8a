import numpy as np
import torch

from unblur.export.torch_runner import TorchRunner
from unblur.runtime.runner import Runner
from unblur.train.networks import DeblurringNetwork


def test_it_is_a_runner_that_gives_what_the_network_gives(network: DeblurringNetwork) -> None:
    images = np.random.default_rng(0).random((2, 3, 32, 48), np.float32)
    runner: Runner = TorchRunner(network)
    with runner:
        restored = runner.infer(images)
        again = runner.infer(images * np.float32(0.5))
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    assert np.array_equal(restored, expected)
    assert restored.dtype == np.float32
    assert not np.shares_memory(restored, again)
    assert runner.spec == network.spec
    assert runner.precision == "fp32"
    assert runner.device.startswith("cpu (torch ")


def test_a_network_in_training_is_put_in_eval_mode(network: DeblurringNetwork) -> None:
    network.train()
    with TorchRunner(network):
        assert not network.training
