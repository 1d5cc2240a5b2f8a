"""The resident memory of a process, as Linux reports it. Imports nothing, so that it adds nothing."""

from pathlib import Path


def peak_mib(process: int | str = "self") -> float:
    """The most so far; getrusage would count what the parent had when it forked."""
    return _status_mib(process, "VmHWM")


def resident_mib(process: int | str = "self") -> float:
    """At this moment."""
    return _status_mib(process, "VmRSS")


def _status_mib(process: int | str, field: str) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kibibytes) / 1024
