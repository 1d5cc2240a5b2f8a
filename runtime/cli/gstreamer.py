"""`unblur gstreamer`: where GStreamer finds the element `unblur`."""

import os
import re
import subprocess
from pathlib import Path

import typer

from unblur.runtime import gstreamer as package
from unblur.runtime.errors import BadInput, DeviceError
from unblur.runtime.model.deblurrer import DEFAULT_MODEL
from unblur.runtime.model.open_model import find_model

_TRIAL_S = 120
_PACKAGES = "apt-get install gstreamer1.0-tools gstreamer1.0-python3-plugin-loader"


def gstreamer() -> None:
    """Print the folder to set GST_PLUGIN_PATH to, once GStreamer has started the element unblur from it.

    export GST_PLUGIN_PATH="$(unblur gstreamer)" makes it known to gst-launch-1.0 and to every program with a
    pipeline. Exit code 2 if GStreamer cannot load or start it here.
    """
    folder = Path(package.__file__).parent
    others = os.environ.get("GST_PLUGIN_PATH", "")
    paths = [str(folder), *(path for path in others.split(os.pathsep) if path not in ("", str(folder)))]
    model = find_model(DEFAULT_MODEL) / "fp32.onnx"  # of a file no variant is timed
    trial = ("gst-launch-1.0", "fakesrc", "num-buffers=0", "!", "unblur", f"model={model}", "!", "fakesink")
    environment = os.environ | {"GST_PLUGIN_PATH": os.pathsep.join(paths), "LC_ALL": "C"}
    try:
        done = subprocess.run(trial, env=environment, capture_output=True, text=True, check=False, timeout=_TRIAL_S)
    except FileNotFoundError as error:
        raise BadInput(f"gst-launch-1.0 is not installed; on Debian and Ubuntu: {_PACKAGES}") from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"GStreamer took more than {_TRIAL_S} s to start the element") from error
    if done.returncode != 0:
        raise DeviceError(_reason(done.stderr))
    typer.echo(folder)


def _reason(stderr: str) -> str:
    """What the element says, or what to do where it was not loaded at all."""
    said = re.search(r"^ERROR: from element \S*unblur0: (.+)$", stderr, re.MULTILINE)
    if said is not None:
        return said[1]
    return (
        f"GStreamer does not load the element: on Debian and Ubuntu {_PACKAGES}, activate no environment but one "
        "made with /usr/bin/python3 -m venv --system-site-packages, and remove ~/.cache/gstreamer-1.0"
    )
