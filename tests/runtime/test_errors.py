"""One tree of errors, and a missing package named with the extra that brings it."""

import pytest

from unblur.runtime import errors
from unblur.runtime.errors import MissingExtra, ParityError, UnblurError, needs_extra


def test_every_error_is_in_the_tree_and_on_the_page() -> None:
    found = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
    }
    assert all(issubclass(getattr(errors, name), UnblurError) for name in found)
    assert all(name in (errors.__doc__ or "") for name in found)


def test_only_a_verdict_exits_with_1() -> None:
    codes = {
        error.__name__: error.exit_code
        for error in UnblurError.__subclasses__()
        if error.__module__ == errors.__name__
    }
    assert {name for name, code in codes.items() if code == 1} == {ParityError.__name__}
    assert set(codes.values()) == {1, 2}


def test_a_missing_package_names_its_extra() -> None:
    with (
        pytest.raises(
            MissingExtra, match=r"needs the Python package 'no_such_package': pip install 'unblur\[train\]'"
        ),
        needs_extra("train"),
    ):
        import no_such_package.inner  # noqa: F401


def test_a_missing_module_of_our_own_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"unblur\.no_such_room"), needs_extra("train"):
        import unblur.no_such_room  # noqa: F401
