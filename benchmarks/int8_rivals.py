"""INT8 by the tools that `unblur calibrate` is measured against; run by `benchmarks/int8.py`, each in a process.

    python -m benchmarks.int8_rivals ort:percentile:tensorrt MODEL.onnx IMAGES.npy INT8.onnx

Imports nothing of unblur: ModelOpt has an environment of its own, with older packages. Prints the seconds that the
tool took, without its imports, and the peak memory in MiB. ModelOpt writes into MODEL.onnx, so give it a copy.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

from benchmarks.memory import peak_mib

CONVOLUTIONS = ["Conv", "ConvTranspose"]
TENSORRT: dict[str, Any] = {
    "per_channel": True,
    "activation_type": QuantType.QInt8,
    "weight_type": QuantType.QInt8,
    "extra_options": {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": CONVOLUTIONS,
    },
}
"""What TensorRT takes as it is; the other settings are ONNX Runtime's defaults."""


class Images(CalibrationDataReader):  # type: ignore[misc]
    """One image after the other, from a .npy of float32 (N, 3, H, W)."""

    def __init__(self, file: Path, feed: str) -> None:
        self.images = np.load(file, mmap_mode="r")
        self.feed = feed
        self.rewind()

    def rewind(self) -> None:
        """Start again, for a second pass."""
        self.left = iter(range(len(self.images)))

    def get_next(self) -> dict[str, Any] | None:
        """As ONNX Runtime calls it."""
        index = next(self.left, None)
        return None if index is None else {self.feed: np.ascontiguousarray(self.images[index : index + 1])}

    def get_first(self) -> dict[str, Any]:
        """As ModelOpt calls it."""
        return {self.feed: np.ascontiguousarray(self.images[:1])}


def by_onnx_runtime(method: str, settings: str, model: Path, images: Images, out: Path) -> None:
    """settings: "default" or "tensorrt"; both quantise convolutions only."""
    quantize_static(
        model,
        out,
        images,
        calibrate_method=CalibrationMethod[{"minmax": "MinMax"}.get(method, method.capitalize())],
        op_types_to_quantize=CONVOLUTIONS,
        **(TENSORRT if settings == "tensorrt" else {}),
    )


def by_modelopt(method: str, model: Path, images: Images, out: Path) -> None:
    """ModelOpt's ONNX PTQ, convolutions only, the rest left in float32."""
    from modelopt.onnx.quantization import quantize

    quantize(
        str(model),
        calibration_method={"minmax": "max"}.get(method, method),
        calibration_data_reader=images,
        calibration_eps=["cpu"],
        op_types_to_quantize=CONVOLUTIONS,
        high_precision_dtype="fp32",
        output_path=str(out),
        log_level="ERROR",
    )


def main(what: str, model: Path, images: Path, out: Path) -> None:
    """what: "ort:METHOD:SETTINGS" or "modelopt:METHOD"."""
    tool, method, *settings = what.split(":")
    reader = Images(images, onnx.load(model).graph.input[0].name)
    if tool == "modelopt":
        import modelopt.onnx.quantization  # noqa: F401

    began = time.monotonic()
    if tool == "ort":
        by_onnx_runtime(method, settings[0], model, reader, out)
    else:
        by_modelopt(method, model, reader, out)
    seconds = time.monotonic() - began
    print(seconds, peak_mib())


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:5]))
