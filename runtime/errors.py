"""Every error that unblur raises on purpose, on one page.

    UnblurError
      MissingExtra      an optional dependency is not installed; the message names the extra
      BadInput          a file, folder, frame or stream given by the user cannot be used
      BundleError       a bundle is incomplete, altered, or of an unknown schema
      SpecMismatch      a model without our spec, or a spec that does not fit what is asked of it
      EngineMismatch    a TensorRT engine that cannot run here
      CalibrationError  calibration data or a calibration table that cannot be used
      ParityError       two variants of one model differ by more than the threshold
      DeviceError       the accelerator or its driver failed

Wrong arguments from a programmer stay ValueError and TypeError. Messages are one line: what was found, what
was expected, what to do. The command line prints that line and exits with 2 (1 for ParityError: the work was
done and the verdict is no).
"""

from collections.abc import Iterator
from contextlib import contextmanager


class UnblurError(Exception):
    """Base of every error raised on purpose; `exit_code` is what the command line exits with."""

    exit_code = 2


class MissingExtra(UnblurError):
    """An optional dependency is not installed."""


class BadInput(UnblurError):
    """A file, folder, frame or stream given by the user cannot be used."""


class BundleError(UnblurError):
    """A bundle is incomplete, altered, or of an unknown schema."""


class SpecMismatch(UnblurError):
    """A model without our spec, or a spec that does not fit what is asked of it."""


class EngineMismatch(UnblurError):
    """A TensorRT engine that cannot run on this device."""


class CalibrationError(UnblurError):
    """Calibration data or a calibration table that cannot be used."""


class ParityError(UnblurError):
    """Two variants of one model differ by more than the threshold."""

    exit_code = 1


class DeviceError(UnblurError):
    """The accelerator or its driver failed."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn an import that fails inside the block into a `MissingExtra` that names the extra.

    Only third-party modules count: a missing module of unblur itself is a bug and passes through.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "?").partition(".")[0]
        if module == "unblur":
            raise
        raise MissingExtra(
            f"this command needs the Python package '{module}': pip install 'unblur[{extra}]'"
        ) from error


def printable(text: str) -> str:
    """One line that changes nothing on a terminal: foreign names may hold line breaks and escape sequences."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
