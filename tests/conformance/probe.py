"""Runs in a process of its own: imports one version of TensorRT and says in JSON what it has.

    python probe.py MODULE JSON     where JSON lists [owner, name] pairs; prints what `Answer` holds

Of a class or an enum that is not there, nothing is there. A signature is the first line of the docstring, for each
overload; pybind11 writes them.
"""

import importlib
import json
import sys
from typing import Any


def look_up(module: Any, path: str) -> Any:
    for name in path.split(".") if path else ():
        module = getattr(module, name, None)
    return module


def signatures(thing: Any) -> list[str]:
    lines = (getattr(thing, "__doc__", None) or "").splitlines()
    return [line.strip() for line in lines if "->" in line and "self:" in line]


def behaviour(flavour: str) -> dict[str, object]:
    """Our own code on the real module."""
    from unblur.export import trt_api
    from unblur.runtime.errors import DeviceError

    class Watch:
        def phase(self, name: str, steps: int) -> None: ...
        def step(self) -> None: ...
        def stopped(self) -> bool:
            return True

    api = trt_api.load_api("rtx" if flavour == "tensorrt_rtx" else "tensorrt")
    answer: dict[str, object] = {
        "version": api.version,
        "architectures": api.architectures,
    }
    monitor = trt_api._monitor(sys.modules[flavour], Watch())
    monitor.phase_start("phase", None, 3)
    answer["monitor_stops"] = monitor.step_complete("phase", 0) is False
    if api.can_read_calibration:
        calibrator = trt_api._calibrator(sys.modules[flavour], "TRT-100300")
        algorithm = calibrator.get_algorithm()
        answer["calibration"] = [calibrator.read_calibration_cache().decode(), algorithm.name]
    if flavour == "tensorrt":  # its library is a stand-in that gives null
        try:
            api.create_builder()
        except DeviceError as error:
            answer["no_builder"] = str(error)
    return answer


def main() -> None:
    name, flavour = sys.argv[1], sys.argv[2]
    sys.modules[flavour] = module = importlib.import_module(name)
    things = [(owner, member, look_up(module, owner)) for owner, member in json.load(sys.stdin)]
    missing = [(owner, member) for owner, member, found in things if found is None or not hasattr(found, member)]
    known = {f"{owner}.{member}": signatures(getattr(found, member, None)) for owner, member, found in things}
    json.dump({"missing": missing, "signatures": known, **behaviour(flavour)}, sys.stdout)


if __name__ == "__main__":
    main()
