"""What runs on the device: open a model, restore images and video, verify, measure.

    from unblur.runtime import Deblurrer, RunnerOptions, read_image, write_image

    with Deblurrer("lprn-s", RunnerOptions(precision="fp32")) as deblur:
        write_image(Path("sharp.png"), deblur(read_image(Path("blurred.jpg"))))

Needs numpy, onnxruntime, av, pillow, typer and rich; never torch or onnx. Importing this package imports none of
them; a name does when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unblur.runtime.errors import (
        BadInput,
        BundleError,
        CalibrationError,
        DeviceError,
        EngineMismatch,
        MissingExtra,
        ParityError,
        SpecMismatch,
        UnblurError,
    )
    from unblur.runtime.images import read_image, write_image
    from unblur.runtime.model.bundle import read_bundle
    from unblur.runtime.model.deblurrer import Deblurrer, deblur
    from unblur.runtime.model.open_model import open_runner
    from unblur.runtime.runner import RunnerOptions

__all__ = [
    "BadInput",
    "BundleError",
    "CalibrationError",
    "Deblurrer",
    "DeviceError",
    "EngineMismatch",
    "MissingExtra",
    "ParityError",
    "RunnerOptions",
    "SpecMismatch",
    "UnblurError",
    "deblur",
    "open_runner",
    "read_bundle",
    "read_image",
    "write_image",
]

_MODULES = {
    "images": ("read_image", "write_image"),
    "model.bundle": ("read_bundle",),
    "model.deblurrer": ("Deblurrer", "deblur"),
    "model.open_model": ("open_runner",),
    "runner": ("RunnerOptions",),
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, f"{__name__}.errors")), name)


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
