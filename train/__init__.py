"""Training: networks, blur synthesis, losses and the loop. Needs the extra [train].

    from unblur.train import HoldOut, Length, build_network, load_checkpoint, open_training_data, recipe_of, train

    data = open_training_data(pairs=[Path("GoPro/train")], hold_out=HoldOut(pairs=8))
    weights = train(build_network("lprn-n"), recipe_of("lprn-n"), data, Length(minutes=60), Path("run"))
    network = load_checkpoint(weights)

Importing this package imports nothing heavy; a name does when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unblur.train.checkpoint import load_checkpoint, save_checkpoint
    from unblur.train.data import HoldOut, open_training_data
    from unblur.train.loop import Length, train
    from unblur.train.networks import build_network
    from unblur.train.recipe import Recipe, recipe_of

__all__ = [
    "HoldOut",
    "Length",
    "Recipe",
    "build_network",
    "load_checkpoint",
    "open_training_data",
    "recipe_of",
    "save_checkpoint",
    "train",
]

_MODULES = {
    "checkpoint": ("load_checkpoint", "save_checkpoint"),
    "data": ("HoldOut", "open_training_data"),
    "loop": ("Length", "train"),
    "networks": ("build_network",),
    "recipe": ("Recipe", "recipe_of"),
}
_HOMES = {name: f"unblur.train.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
