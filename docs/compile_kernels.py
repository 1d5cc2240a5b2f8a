"""Compile runtime/tensorrt/kernels.cu to runtime/tensorrt/kernels.ptx, with NVRTC and without a GPU.

    pip install nvidia-cuda-nvrtc-cu11==11.8.89
    python docs/compile_kernels.py

PTX is compiled for the GPU by its driver, so that a device needs no CUDA compiler and no cache of its own. A
driver refuses PTX of a later version than itself, and JetPack 5 has that of CUDA 11.4; the kernels use nothing
that is newer than PTX 6.3 (CUDA 10.0), so that is the version it declares.
"""

import argparse
import ctypes
import hashlib
import importlib.util
import re
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[1] / "runtime" / "tensorrt"
ARCHITECTURE = "compute_53"  # the oldest Jetson that CUDA 11 supports; newer ones run it unchanged
PTX_VERSION = "6.3"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Compile runtime/tensorrt/kernels.cu to runtime/tensorrt/kernels.ptx."
    )
    parser.add_argument("--nvrtc", type=Path, help="libnvrtc.so.11.2; default that of the installed wheel")
    source = (KERNELS / "kernels.cu").read_bytes()
    library = parser.parse_args().nvrtc or installed_nvrtc()
    ptx = compile_ptx(ctypes.CDLL(str(library)), source)
    lines = [line for line in ptx.splitlines() if not line.startswith("//")]
    text = re.sub(r"\.version [\d.]+", f".version {PTX_VERSION}", "\n".join(lines).strip())
    digest = hashlib.sha256(source).hexdigest()
    (KERNELS / "kernels.ptx").write_text(f"// docs/compile_kernels.py made this of kernels.cu {digest}\n{text}\n")


def installed_nvrtc() -> Path:
    spec = importlib.util.find_spec("nvidia.cuda_nvrtc")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("no NVRTC: pip install nvidia-cuda-nvrtc-cu11==11.8.89, or give --nvrtc")
    return Path(spec.submodule_search_locations[0]) / "lib" / "libnvrtc.so.11.2"


def compile_ptx(nvrtc: ctypes.CDLL, source: bytes) -> str:
    program = ctypes.c_void_p()
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None))
    options = (ctypes.c_char_p * 2)(f"--gpu-architecture={ARCHITECTURE}".encode(), b"--fmad=false")
    check(nvrtc.nvrtcCompileProgram(program, len(options), options))
    size = ctypes.c_size_t()
    check(nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetPTX(program, text))
    return text.value.decode()


def check(result: int) -> None:
    if result != 0:
        raise SystemExit(f"NVRTC failed with error {result}")


if __name__ == "__main__":
    main()
