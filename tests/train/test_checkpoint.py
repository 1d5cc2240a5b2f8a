"""Checkpoints carry their spec and refuse what does not fit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.fakes.small_networks import NARROW_U
from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.train.checkpoint import (
    load_checkpoint,
    load_state,
    resolve_checkpoint,
    save_checkpoint,
    shipped_checkpoint,
    start_from,
)
from unblur.train.networks import build_network
from unblur.train.recipe import Recipe


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    network = build_network("lprn-n", **NARROW_U)
    torch.nn.init.normal_(network.reconstruct.weight)
    save_checkpoint(tmp_path / "net.safetensors", network, Recipe(), ("gopro",))
    return tmp_path / "net.safetensors"


def test_a_checkpoint_rebuilds_its_network(checkpoint: Path) -> None:
    network = load_checkpoint(checkpoint)
    assert network.spec.preset == "lprn-n"
    assert network.spec.options["width"] == "8,8"
    assert network.spec.training_data == ("gopro",)
    assert not network.training
    assert load_checkpoint(checkpoint, steps=2).spec.steps == 2


def test_training_starts_from_weights(checkpoint: Path) -> None:
    trained, network = load_checkpoint(checkpoint), build_network("lprn-n", **NARROW_U)
    start_from(network, trained, checkpoint)
    images = torch.rand(1, 3, 32, 48)
    torch.testing.assert_close(network(images), trained(images), rtol=0, atol=0)
    assert network.spec.training_data == ("gopro",)


def test_residual_blocks_that_are_new_change_nothing_and_learn(checkpoint: Path) -> None:
    trained = load_checkpoint(checkpoint)
    network = build_network("lprn-n", **{**NARROW_U, "blocks": "2,3,2"})
    start_from(network, trained, checkpoint)
    images = torch.rand(1, 3, 32, 48)
    restored = network(images)
    torch.testing.assert_close(restored, trained(images), rtol=0, atol=0)
    restored.square().mean().backward()
    assert network.get_parameter("body.encoder.1.2.second.weight").grad.abs().max() > 0


def test_training_does_not_start_from_a_wider_network(checkpoint: Path) -> None:
    wider = build_network("lprn-n", width="8,16", blocks="1,1,1")
    with pytest.raises(SpecMismatch, match="does not fit preset 'lprn-n'"):
        start_from(wider, load_checkpoint(checkpoint), checkpoint)


@pytest.mark.parametrize("kept", [0, 7, 100, 5000])
def test_a_truncated_checkpoint_is_refused(checkpoint: Path, kept: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    with pytest.raises(BadInput, match="is not a whole safetensors file"):
        load_checkpoint(checkpoint)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent.safetensors does not exist"):
        load_checkpoint(tmp_path / "absent.safetensors")


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(SpecMismatch, match="no model spec in its header"):
        load_checkpoint(tmp_path / "foreign.safetensors")


def test_weights_of_another_network_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    spec = build_network("lprn-n", **NARROW_U).spec.to_json()
    other = build_network("lprn-n", width="8,16", blocks="1,1,1").state_dict()
    save_file(other, tmp_path / "other.safetensors", {"unblur.spec": spec})
    with pytest.raises(SpecMismatch, match="does not fit preset 'lprn-n'"):
        load_checkpoint(tmp_path / "other.safetensors")


def test_a_preset_of_another_version_is_named(tmp_path: Path) -> None:
    network = build_network("lprn-n", **NARROW_U)
    other = network.spec.to_json().replace("lprn-n", "lprn-xl")
    save_file(network.state_dict(), tmp_path / "other.safetensors", {"unblur.spec": other})
    with pytest.raises(SpecMismatch, match="unknown system 'lprn' or preset 'lprn-xl' in the model spec"):
        load_checkpoint(tmp_path / "other.safetensors")


def test_an_older_schema_is_refused(tmp_path: Path) -> None:
    network = build_network("lprn-n", **NARROW_U)
    old = network.spec.to_json().replace('"schema": 1', '"schema": 0')
    save_file(network.state_dict(), tmp_path / "old.safetensors", {"unblur.spec": old})
    with pytest.raises(SpecMismatch, match="schema 0, this version of unblur reads 2"):
        load_checkpoint(tmp_path / "old.safetensors")


@pytest.mark.parametrize("preset", ["lprn-n", "lprn-s"])
def test_shipped_weights_load(preset: str) -> None:
    assert load_checkpoint(shipped_checkpoint(preset)).spec.preset == preset


def test_a_checkpoint_is_readable_as_any_file(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    assert checkpoint.stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_network_is_not_a_training_state(checkpoint: Path) -> None:
    with pytest.raises(SpecMismatch, match="holds a network, not the state of a run"):
        load_state(checkpoint)


def test_a_preset_without_weights_says_which_have_some() -> None:
    with pytest.raises(BadInput, match="no weights ship for 'lprn'"):
        shipped_checkpoint("lprn")


def test_a_path_is_taken_as_it_is(checkpoint: Path) -> None:
    assert resolve_checkpoint(str(checkpoint)) == checkpoint
