import subprocess
import sys

import pytest

import unblur.calibration
from unblur.runtime.errors import MissingExtra


def test_every_public_name_is_there_and_they_are_few() -> None:
    assert len(unblur.calibration.__all__) < 10
    assert dir(unblur.calibration) == sorted(unblur.calibration.__all__)
    for name in unblur.calibration.__all__:
        assert getattr(unblur.calibration, name).__name__ == name
        assert getattr(unblur.calibration, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'unblur\.calibration' has no attribute 'calibrat'"):
        unblur.calibration.calibrat  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, unblur.calibration; print(*{'onnx', 'onnxruntime', 'numpy', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("unblur.calibration.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"pip install 'unblur\[export\]'"):
        unblur.calibration.read_onnx  # noqa: B018
