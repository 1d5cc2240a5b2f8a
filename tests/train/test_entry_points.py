"""Networks that another package adds to `unblur train`."""

import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType

import pytest

from unblur.runtime.errors import BadInput
from unblur.train import networks
from unblur.train.networks import PRESETS, Preset, build_network, find_preset, preset_names
from unblur.train.recipe import Recipe, recipe_of


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package with entry points: a preset, and two that are wrong."""
    module = ModuleType("their_package")
    monkeypatch.setitem(sys.modules, "their_package", module)
    names = {"mine": "their_package:MINE", "gone": "their_package:GONE", "wrong": "their_package:WRONG"}
    found = EntryPoints(EntryPoint(name, value, networks.GROUP) for name, value in names.items())
    monkeypatch.setattr(networks, "entry_points", lambda **wanted: found.select(**wanted))
    lprn = PRESETS["lprn"]
    vars(module).update(MINE=Preset("mine", lprn.network, {"width": 8, "blocks": 1, "steps": 2}, "mine"), WRONG=3)
    return module


@pytest.mark.usefixtures("package")
def test_a_preset_of_a_package_is_a_preset_like_ours() -> None:
    assert preset_names() == (*PRESETS, "mine", "gone", "wrong")
    network = build_network("mine", steps=1)
    assert network.spec.preset == "mine"
    assert recipe_of("mine") == Recipe()


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "preset 'gone' of their_package:GONE does not load: .*GONE"),
        ("wrong", "preset 'wrong' of their_package:WRONG is a int, expected a Preset"),
        ("mien", "unknown preset 'mien'; did you mean 'mine'"),
    ],
)
def test_presets_that_do_not_load(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        find_preset(name)
