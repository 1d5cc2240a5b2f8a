"""What training takes from the machine."""

import time

import pytest
import torch
from torch import nn

from unblur.train import compute
from unblur.train.compute import fastest_threads, in_float32, spare_workers, thread_count


def test_the_fastest_number_of_threads_is_measured_and_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_TRIAL_S", 0.02)
    with thread_count(4):
        assert fastest_threads(lambda: time.sleep(0.002 * abs(torch.get_num_threads() - 2))) == 2
        assert torch.get_num_threads() == 2


def test_one_thread_is_not_measured() -> None:
    with thread_count(1):
        assert fastest_threads(lambda: pytest.fail("measured")) == 1


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), thread_count(before + 1):
        raise KeyError
    assert torch.get_num_threads() == before


def test_at_least_one_worker_is_left() -> None:
    assert spare_workers(10**6) == 1


def test_chosen_layers_stay_in_float32_under_autocast() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3))
    images = torch.rand((1, 3, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert network(images).dtype == torch.bfloat16
        with in_float32([network[1]], "cpu"):
            assert network(images).dtype == torch.float32
        assert network(images).dtype == torch.bfloat16
