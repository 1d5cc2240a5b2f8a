"""A torch module that unblur did not write: built by a factory, with weights from a file.

module = module_from_factory("my_package.nets:build", {"width": 32})
load_weights(module, Path("best.pth"))
"""

import ast
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unblur.runtime.errors import BadInput, SpecMismatch

_NESTINGS = ("params_ema", "params", "state_dict", "model", "net", "network", "generator")
_PREFIX = "module."  # torch.nn.DataParallel's
_LISTED = 5


def is_factory(text: str) -> bool:
    """Whether `text` names a factory, "my_package.nets:build", rather than a file or a preset."""
    module, colon, name = text.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def settings_from_text(settings: Sequence[str]) -> dict[str, object]:
    """ "width=32" as {"width": 32}; a value that is not a Python literal is text. BadInput without "="."""
    parsed = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (equals and name.isidentifier()):
            raise BadInput(f"--set is '{setting}', expected NAME=VALUE such as width=32")
        parsed[name] = _literal(value)
    return parsed


def module_from_factory(factory: str, settings: Mapping[str, object] | None = None) -> nn.Module:
    """Call "package.module:name" with `settings` and return its module in eval mode, with seeded weights.

    The working directory is searched first, as `python -m` does. Raises BadInput if there is no such factory, it
    does not take these settings, or what it returns is not a torch.nn.Module.
    """
    make = _import_factory(factory)
    torch.manual_seed(0)  # a network without weights is the same in every run
    try:
        module = make(**(settings or {}))
    except Exception as error:  # the user's code: any
        raise BadInput(f"{factory} failed: {_one_line(error)}; check it and --set") from error
    if not isinstance(module, nn.Module):
        raise BadInput(f"{factory} returned a {type(module).__name__}, expected a torch.nn.Module")
    return module.eval()


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a .safetensors file, or what torch.save wrote of a state dict.

    The state dict may be nested ("state_dict", "params", "params_ema", "model") and its names may begin with
    "module.". Raises BadInput for a file that is damaged or holds a whole pickled module, SpecMismatch that lists
    the names that do not match.
    """
    tensors = _without_prefix(_read_tensors(path))
    expected = module.state_dict()
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    shapes = [name for name in expected if name in tensors and expected[name].shape != tensors[name].shape]
    found = (("missing", missing), ("unexpected", extra), ("of another shape", shapes))
    problems = [f"{_listed(names)} {kind}" for kind, names in found if names]
    if problems:
        raise SpecMismatch(f"{path} does not match the network: {'; '.join(problems)}; check --weights and --set")
    module.load_state_dict(tensors)


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _import_factory(factory: str) -> Callable[..., object]:
    name, _, attribute = factory.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: object = getattr(import_module(name), attribute)
    except ModuleNotFoundError as error:
        raise BadInput(f"cannot import {factory}: {error}; install it, or run in its folder") from error
    except AttributeError as error:
        raise BadInput(f"cannot import {factory}: {error}") from error
    except Exception as error:  # the user's code: any
        raise BadInput(f"{name} failed when it was imported: {_one_line(error)}") from error
    if not callable(found):
        raise BadInput(f"{factory} is a {type(found).__name__}, expected a class or a function")
    return found


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise BadInput(f"{path} does not exist; expected weights (.safetensors, .pth)")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path} is not a whole safetensors file: {error}") from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"{path} holds more than tensors, perhaps a whole pickled module, which unblur does not load; where "
            "its code is installed, save the weights alone: torch.save(network.state_dict(), 'weights.pth')"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise BadInput(f"{path} is damaged or not a file of torch.save: {_one_line(error)}") from error
    return _tensors_in(loaded, path)


def _tensors_in(loaded: object, path: Path) -> dict[str, Tensor]:
    """The innermost mapping of names to tensors."""
    if isinstance(loaded, Mapping):
        for key in _NESTINGS:
            if isinstance(loaded.get(key), Mapping):
                return _tensors_in(loaded[key], path)
        tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    keys = f" with the keys {_listed(list(map(str, loaded)))}" if isinstance(loaded, Mapping) else ""
    raise BadInput(f"{path} holds a {type(loaded).__name__}{keys}, expected a state dict: names and tensors")


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(name.startswith(_PREFIX) for name in tensors):
        return {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    return tensors


def _listed(names: Sequence[str]) -> str:
    """The first few names, and how many there are in all."""
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{rest}"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
