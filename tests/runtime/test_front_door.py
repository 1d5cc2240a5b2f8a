"""`unblur.runtime` exports the public API, each name loaded when it is used."""

import importlib.util
import inspect
import subprocess
import sys

import pytest

import unblur.runtime
from unblur.runtime import errors


def test_every_public_name_is_there() -> None:
    for name in unblur.runtime.__all__:
        assert getattr(unblur.runtime, name).__name__ == name
    assert set(unblur.runtime.__all__) <= set(dir(unblur.runtime))


def test_every_error_is_public() -> None:
    tree = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert tree <= set(unblur.runtime.__all__)


def test_a_name_that_is_not_exported() -> None:
    with pytest.raises(AttributeError, match=r"module 'unblur\.runtime' has no attribute 'Deblurer'"):
        unblur.runtime.Deblurer  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'blurrer'"):
        from unblur.runtime import blurrer  # noqa: F401


@pytest.mark.parametrize(("name", "heavy"), [("RunnerOptions", "onnxruntime"), ("read_image", "onnxruntime")])
def test_a_name_loads_only_what_it_needs(name: str, heavy: str) -> None:
    code = f"import sys\nfrom unblur.runtime import {name}\nprint({heavy!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert importlib.util.find_spec(heavy) is not None
    assert done.stdout == "False\n"
