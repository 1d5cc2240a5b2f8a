"""From a network to what a device executes: ONNX, precisions, parity, bundles, engines. Needs the extra [export].

    from unblur.export import build_engine, export_onnx

    export_onnx(network, output=Path("lprn-s.onnx"))
    build_engine("lprn-s", "rtx-sm89", precision="fp16")

Importing this package imports nothing heavy; a name does when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unblur.export.build import build_engine
    from unblur.export.deployment import Deployment, DeployPlan, RejectedBundle, deploy
    from unblur.export.onnx_file import ExportedOnnx, export_onnx
    from unblur.export.report.data import read_report
    from unblur.export.source_model import find_source

__all__ = [
    "DeployPlan",
    "Deployment",
    "ExportedOnnx",
    "RejectedBundle",
    "build_engine",
    "deploy",
    "export_onnx",
    "find_source",
    "read_report",
]

_MODULES = {
    "build": ("build_engine",),
    "source_model": ("find_source",),
    "deployment": ("DeployPlan", "Deployment", "RejectedBundle", "deploy"),
    "onnx_file": ("ExportedOnnx", "export_onnx"),
    "report.data": ("read_report",),
}
_HOMES = {name: f"unblur.export.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
