"""kill -9 at random moments of every command that works for a while; then it is run again, to its end.

    python -m tests.fuzz.kills --moments 100

Whatever the moment: what was there before is there and whole, or what was to be; the next run works, and nothing of
the killed ones is left. A resumed training ends with the bits of one that was not killed. The processes are forks of
this one, which has loaded everything, so that the moments fall into the work and not into the start.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))  # as pytest does

import av
import numpy as np
import typer
from av.error import FFmpegError
from safetensors.torch import load_file
from tiny_network import TinyNetwork

from tests.runtime.conftest import Clip, make_frame_of
from unblur.calibration.cli import calibrate as _calibrate  # noqa: F401 - loaded before the first fork
from unblur.calibration.onnx_model import read_onnx, write_onnx
from unblur.export.cli import build as _build  # noqa: F401
from unblur.export.cli import deploy as _deploy  # noqa: F401
from unblur.runtime.cli import run as _run  # noqa: F401
from unblur.runtime.cli.main import main as unblur
from unblur.runtime.images import write_image
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.tensorrt.engine_file import find_engines, read_engine, read_record
from unblur.train.cli import train as _train  # noqa: F401
