"""`unblur.train`: a few names, loaded when they are used."""

import subprocess
import sys

import pytest

import unblur.train


def test_every_name_is_there_and_they_are_few() -> None:
    assert len(unblur.train.__all__) < 10
    assert set(unblur.train.__all__) <= set(dir(unblur.train))
    for name in unblur.train.__all__:
        assert callable(getattr(unblur.train, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        unblur.train.trian  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    program = "import sys, unblur.train; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
