"""What our code touches of TensorRT, read from its source, so that nothing can be forgotten.

TensorRT has no types; a name in our code stands for one class of it wherever it is used, which `CLASSES` says.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = ("export/trt_api.py", "runtime/tensorrt/trt.py")

MODULE = ""
ROOTS = {"self._trt", "trt", "module", "trt.module", "self._trt.module"}
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "sizes": "IOptimizationProfile",
    "cache": "ITimingCache",
    "layer": "ILayer",
    "tensor": "ITensor",
    "error": "ParserError",
    "inspector": "EngineInspector",
    "opened": "ICudaEngine",
    "self._engine": "ICudaEngine",
    "self._context": "IExecutionContext",
    "self._runtime": "Runtime",
}
"""One name, one class, in all of `FILES`."""


@dataclass(frozen=True, order=True)
class Touch:
    """owner: a class or an enum, "" for the module. arguments: how many a call gives; None if it is no call."""

    owner: str
    name: str
    arguments: int | None = None


def touched() -> list[Touch]:
    """Everything of TensorRT that `FILES` use, each once."""
    return sorted(
        {touch for file in FILES for function in _functions(file) for touch in _in_function(function, file)},
        key=str,
    )


def _functions(file: str) -> Iterator[ast.FunctionDef]:
    tree = ast.parse((ROOT / file).read_text())
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _in_function(function: ast.FunctionDef, file: str) -> Iterator[Touch]:
    aliases = _aliases(function, file)
    calls = {id(node.func): node for node in ast.walk(function) if isinstance(node, ast.Call)}
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute):
            owner = _owner(node.value, aliases, file)
            if owner is not None:
                yield Touch(owner, node.attr, _arguments(calls.get(id(node)), node.attr))


def _arguments(call: ast.Call | None, name: str) -> int | None:
    """`Class.__init__(self)` gives `self` as an argument, the others do not."""
    return None if call is None else len(call.args) + len(call.keywords) - (name == "__init__")


def _aliases(function: ast.FunctionDef, file: str) -> dict[str, str]:
    """`flags = self._trt.BuilderFlag`, alone or in a tuple."""
    found: dict[str, str] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target, value in _pairs(node.targets[0], node.value):
                if not (isinstance(target, ast.Name) and isinstance(value, ast.Attribute)):
                    continue
                if _owner(value.value, {}, file) == MODULE:
                    found[target.id] = value.attr
    return found


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        yield from zip(target.elts, value.elts, strict=True)
    else:
        yield target, value


def _owner(node: ast.expr, aliases: dict[str, str], file: str) -> str | None:
    """The class or enum whose attribute is read: "" is the module, None nothing of TensorRT."""
    text = ast.unparse(node)
    if text in aliases:
        return aliases[text]
    if file == "runtime/tensorrt/trt.py" and text in ("trt", "self._trt"):  # our own object, which holds the module
        return None
    if text in ROOTS:
        return MODULE
    if text in CLASSES:
        return CLASSES[text]
    if isinstance(node, ast.Attribute):
        outer = _owner(node.value, aliases, file)
        if outer == MODULE:
            return node.attr
        if outer is not None and node.attr[:1].isupper():
            return f"{outer}.{node.attr}"
    return None
