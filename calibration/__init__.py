"""INT8: observe activations, choose ranges, place Q/DQ, measure the loss in dB. Needs the extra [export].

    from unblur.calibration import calibrate, find_sample, read_onnx, write_onnx

    made = calibrate(read_onnx(Path("lprn-s.onnx")), find_sample(Path("photos"), synthetic_blur=True))
    write_onnx(Path("lprn-s-int8.onnx"), made.model)
    print(made.cost.delta_db, made.int8_macs)

Importing this package imports nothing else, so a program can afford it at start-up.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from unblur.runtime.errors import needs_extra

if TYPE_CHECKING:
    from unblur.calibration.images import Sample, find_sample
    from unblur.calibration.int8_from_fp32 import Calibrated, Settings, calibrate
    from unblur.calibration.onnx_model import OnnxModel, read_onnx, write_onnx
    from unblur.runtime.model.calibration_table import CalibrationTable

__all__ = [
    "Calibrated",
    "CalibrationTable",
    "OnnxModel",
    "Sample",
    "Settings",
    "calibrate",
    "find_sample",
    "read_onnx",
    "write_onnx",
]

_HOMES = {
    "unblur.calibration.images": ("Sample", "find_sample"),
    "unblur.calibration.int8_from_fp32": ("Calibrated", "Settings", "calibrate"),
    "unblur.calibration.onnx_model": ("OnnxModel", "read_onnx", "write_onnx"),
    "unblur.runtime.model.calibration_table": ("CalibrationTable",),
}


def __getattr__(name: str) -> object:
    """Import a public name on first use; MissingExtra without the extra that it needs."""
    for module, names in _HOMES.items():
        if name in names:
            with needs_extra("export"):
                return getattr(import_module(module), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
