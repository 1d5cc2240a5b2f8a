"""Which binding stands behind the seam of cuda.py: pycuda where it is installed, else the driver through ctypes."""

import importlib.util
import logging

from unblur.runtime.tensorrt.cuda import Cuda
from unblur.runtime.tensorrt.cuda_ctypes import CtypesDevice
from unblur.runtime.tensorrt.cuda_driver import probe

_log = logging.getLogger(__name__)


def open_cuda(index: int = 0) -> Cuda:
    """The GPU with that index. Raises DeviceError if there is no driver or no such GPU.

    A pycuda that is installed but cannot be imported (built for another CUDA or Python) is logged and not used.
    """
    device = probe(index)
    if importlib.util.find_spec("pycuda") is not None:
        try:
            from unblur.runtime.tensorrt.cuda_pycuda import PycudaDevice
        except ImportError as error:
            _log.warning("pycuda cannot be imported, so the CUDA driver is called directly: %s", error)
        else:
            return PycudaDevice(device)
    return CtypesDevice(device)
