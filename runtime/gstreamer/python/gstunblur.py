"""The GStreamer element `unblur` for gst-python's plugin loader: video/x-raw in RGB or NV12, restored in place.

It runs in the Python that GStreamer is linked to, not in the one that unblur was installed with. What it needs of
unblur is therefore imported when the element starts, from the installation that this file belongs to.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gi

gi.require_version("GstBase", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GObject, Gst, GstBase, GstVideo  # noqa: E402

FORMATS = ("RGB", "NV12")
CAPS = Gst.Caps.from_string(
    f"video/x-raw, format={{ {', '.join(FORMATS)} }}, width=[1, 2147483647], height=[1, 2147483647], "
    "framerate=[0/1, 2147483647/1]"
)
FULL_RANGE = 1  # GST_VIDEO_COLOR_RANGE_0_255, which has no name in Python
AT_START = int(GObject.ParamFlags.READWRITE) | Gst.PARAM_MUTABLE_READY
AT_ANY_TIME = int(GObject.ParamFlags.READWRITE) | Gst.PARAM_MUTABLE_PLAYING

PROPERTIES = {  # (type, nick, help, range, default, flags)
    "model": (str, "Model", "A shipped preset, a bundle, an .onnx file or an engine", "lprn-s", AT_START),
    "steps": (
        *(
            int,
            "Recursion steps",
            "Recursion steps of every frame; 0: the model's own, or what deadline-ms allows",
        ),
        *(0, 1000, 0, AT_START),
    ),
    "deadline-ms": (
        *(float, "Deadline", "Milliseconds for a frame: as many steps as fit are taken; 0: no deadline"),
        *(0.0, 1e6, 0.0, AT_ANY_TIME),
    ),
    "precision": (
        *(str, "Precision", "Variant of a bundle: fp32, fp16, int8, or auto, the fastest here"),
        *("auto", AT_START),
    ),
}


def import_unblur() -> None:
    """Make `unblur` importable. Raises ImportError with one line that says what to do."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    remedy = (
        f"install unblur into an environment made by /usr/bin/python3 (of Python {running}), see docs/camera.md"
    )
    packages = Path(__file__).parents[4]
    installed_for = re.fullmatch(r"python(\d+\.\d+)", packages.parent.name)
    if packages.name in ("site-packages", "dist-packages"):
        if installed_for is not None and installed_for[1] != running:
            raise ImportError(
                f"GStreamer runs Python {running}, but unblur is of Python {installed_for[1]}; {remedy}"
            )
        if str(packages) not in sys.path:
            sys.path.insert(0, str(packages))
    try:
        import unblur.runtime.gstreamer.restore_buffers  # noqa: F401
    except ImportError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ImportError(f"GStreamer's Python {running} cannot import unblur: {reason}; {remedy}") from error


class Unblur(GstBase.BaseTransform):  # type: ignore[misc]
    """Restores every frame; late ones are dropped when the sink reports that it runs behind (QoS)."""

    __gtype_name__ = "GstUnblur"
    __gstmetadata__ = (
        "Motion deblurring",
        "Filter/Effect/Video",
        "Removes motion blur from RGB and NV12 video with a network; for other formats put videoconvert before it",
        "The authors of unblur",
    )
    __gsttemplates__ = tuple(
        Gst.PadTemplate.new(name, direction, Gst.PadPresence.ALWAYS, CAPS)
        for name, direction in (("sink", Gst.PadDirection.SINK), ("src", Gst.PadDirection.SRC))
    )
    __gproperties__ = PROPERTIES

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[str, Any] = {name: row[-2] for name, row in PROPERTIES.items()}
        self._restorer: Any = None
        self._failed = False
        self._refused = ""
        self.set_in_place(True)
        self.set_qos_enabled(True)
        # Not `do_query`: GstElement and GstBaseTransform both have one, and PyGObject does not choose.
        self.srcpad.add_probe(Gst.PadProbeType.QUERY_UPSTREAM | Gst.PadProbeType.PULL, self._add_latency)

    def do_get_property(self, spec: Any) -> object:
        return self._values[spec.name]

    def do_set_property(self, spec: Any, value: Any) -> None:
        self._values[spec.name] = value
        if spec.name == "deadline-ms":
            self.post_message(Gst.Message.new_latency(self))

    def do_start(self) -> bool:
        self._failed = False
        return self._attempt(self._start)

    def do_stop(self) -> bool:
        restorer, self._restorer = self._restorer, None
        return restorer is None or self._attempt(restorer.close)

    def do_accept_caps(self, direction: Any, caps: Any) -> bool:
        accepted = GstBase.BaseTransform.do_accept_caps(self, direction, caps)
        found = caps.get_structure(0).get_string("format") or caps.get_structure(0).get_name()
        if not accepted and direction == Gst.PadDirection.SINK and found != self._refused:
            self._refused = found
            self._post(
                Gst.MessageType.WARNING, f"unblur takes RGB and NV12, not {found}; put videoconvert before it"
            )
        return bool(accepted)

    def do_set_caps(self, incaps: Any, outcaps: Any) -> bool:
        return self._attempt(self._set_caps, GstVideo.VideoInfo.new_from_caps(incaps))

    def do_transform_ip(self, buffer: Any) -> Any:
        return Gst.FlowReturn.OK if self._attempt(self._restore, buffer) else Gst.FlowReturn.ERROR

    def _start(self) -> None:
        import_unblur()
        from unblur.runtime.gstreamer.restore_buffers import BufferRestorer, options_of

        options = options_of(self._values["precision"], self._values["steps"])
        self._restorer = BufferRestorer(self._values["model"], options)

    def _set_caps(self, info: Any) -> None:
        from unblur.runtime.gstreamer.restore_buffers import BufferLayout

        layout = BufferLayout(
            info.finfo.name,
            (info.height, info.width),
            tuple(info.stride),
            tuple(info.offset),
            GstVideo.VideoColorMatrix.to_iso(info.colorimetry.matrix),
            int(info.colorimetry.range) == FULL_RANGE,
        )
        self._restorer.set_layout(layout)
        self.post_message(Gst.Message.new_latency(self))

    def _restore(self, buffer: Any) -> None:
        layout, meta = self._restorer.layout, GstVideo.buffer_get_video_meta(buffer)
        if meta is not None:
            layout = replace(layout, strides=tuple(meta.stride), offsets=tuple(meta.offset))
        with buffer.map(Gst.MapFlags.READ | Gst.MapFlags.WRITE) as mapped:
            self._restorer.restore(mapped.data, layout=layout, deadline_ms=self._deadline_ms)

    @property
    def _deadline_ms(self) -> float | None:
        return float(self._values["deadline-ms"]) or None

    def _add_latency(self, pad: Any, probe: Any) -> Any:
        """Add what a frame takes to what the elements before this one have answered."""
        query, restorer = probe.get_query(), self._restorer
        if query.type == Gst.QueryType.LATENCY and restorer is not None:
            own = round(restorer.latency_ms(self._deadline_ms) * Gst.MSECOND)
            live, least, most = query.parse_latency()
            query.set_latency(live, least + own, most if most == Gst.CLOCK_TIME_NONE else most + own)
        return Gst.PadProbeReturn.OK

    def _attempt(self, action: Callable[..., None], *arguments: object) -> bool:
        """False, and the pipeline has an error of one line, if `action` raised something.

        Nothing may pass: PyGObject would print a traceback and return 0, which is OK to GStreamer.
        """
        try:
            action(*arguments)
        except Exception as error:  # noqa: BLE001
            if not self._failed:  # GStreamer tries again and again
                self._post(Gst.MessageType.ERROR, str(error) or type(error).__name__)
            self._failed = True
            return False
        return True

    def _post(self, kind: Any, text: str) -> None:
        line = text.strip().partition("\n")[0]
        where = ("gstunblur.py", "", 0)
        self.message_full(kind, Gst.StreamError.quark(), Gst.StreamError.FAILED, line, None, *where)


__gstelementfactory__ = ("unblur", Gst.Rank.NONE, Unblur)
