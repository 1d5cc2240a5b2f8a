"""Runs GStreamer pipelines one after the other in the system's Python; prints what became of each as JSON.

gst_pipelines.py PIPELINE...: the element named `u` or `late` is watched. The sink of one named `late` reports after
the 5th buffer that it runs 10 seconds behind.
"""

import json
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

ENDS = Gst.MessageType.EOS | Gst.MessageType.ERROR


def memory_mb():
    with open("/proc/self/statm") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * 4096 / 1e6


def latency_ms(pad):
    query = Gst.Query.new_latency()
    assert pad.query(query)
    return query.parse_latency()[1] / Gst.MSECOND


def run(text):
    pipeline = Gst.parse_launch(text)
    element = pipeline.get_by_name("u") or pipeline.get_by_name("late")
    source, result = element.get_static_pad("src"), {"buffers": 0, "warnings": [], "error": None}

    def count(pad, info):
        result["buffers"] += 1
        if result["buffers"] == 200:
            result["early_mb"] = memory_mb()
        if result["buffers"] == 5 and element.get_name() == "late":
            pts = info.get_buffer().pts
            source.send_event(Gst.Event.new_qos(Gst.QOSType.UNDERFLOW, 2.0, 10 * Gst.SECOND, pts))
        return Gst.PadProbeReturn.OK

    source.add_probe(Gst.PadProbeType.BUFFER, count)
    pipeline.set_state(Gst.State.PLAYING)
    bus = pipeline.get_bus()
    while message := bus.timed_pop_filtered(60 * Gst.SECOND, ENDS | Gst.MessageType.WARNING):
        if message.type == Gst.MessageType.WARNING:
            result["warnings"].append(message.parse_warning()[0].message)
            continue
        if message.type == Gst.MessageType.ERROR:
            result["error"] = f"{message.src.get_name()}: {message.parse_error()[0].message}"
        else:
            result["latency_ms"] = latency_ms(source) - latency_ms(element.get_static_pad("sink").get_peer())
        break
    result["late_mb"] = memory_mb()
    pipeline.set_state(Gst.State.NULL)
    return result


Gst.init(None)
print(json.dumps([run(text) for text in sys.argv[1:]]))
