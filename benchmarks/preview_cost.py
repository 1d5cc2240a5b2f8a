"""What watching costs: `unblur preview` with four viewers against the same without any.

    python -m benchmarks.preview_cost

Both run in turn, several times; each ratio is of neighbours in time. Compared is the time of a frame in the
network, of which the encoder and the web server may take a share. The viewers take every image they can get and
throw it away; they run on the same machine, so on few cores their own work is in the figure too. Expected: at most
5 percent.
"""

import re
import signal
import subprocess
import threading
import time
from json import dumps, loads
from typing import Annotated

import typer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from benchmarks.command import Json, Model, NotMeasured, log, print_report, run, unblur
from benchmarks.figures import Report, of_repeats

MOST_COST_PERCENT = 5.0


def main(
    model: Model = "lprn-n",
    size: str = "360x640",
    viewers: int = 4,
    seconds: float = 10,
    repeats: Annotated[int, typer.Option(min=2)] = 5,
    json: Json = False,
) -> None:
    """Measure what watching costs and the time of a frame without it; exit 1 above 5 percent."""
    alone, watched = list[float](), list[float]()
    for number in range(1, repeats + 1):
        alone.append(mean_ms(model, size, 0, seconds))
        watched.append(mean_ms(model, size, viewers, seconds))
        log(f"{number}: {alone[-1]:.2f} ms alone, {watched[-1]:.2f} ms with {viewers} viewers")
    costs = [100 * (with_all / without - 1) for with_all, without in zip(watched, alone, strict=True)]
    figures = (
        of_repeats(f"cost of {viewers} viewers", "%", costs, "lower", asked=MOST_COST_PERCENT),
        of_repeats("a frame without viewers, mean", "ms", alone, "lower"),
    )
    print_report(Report("preview_cost", figures), json=json)


def mean_ms(model: str, size: str, viewers: int, seconds: float) -> float:
    """Mean time of a frame in the network while so many watch."""
    source = f"test://moving?size={size}&fps=30&blur=12"
    command = unblur("preview", model, "--source", source, "--port", "0", "--json")
    command += ["--deadline-ms", "100000"]  # every frame with all steps, so that they compare
    preview = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    port = _port(preview)
    watchers = [threading.Thread(target=_watch, args=(port,)) for _ in range(viewers)]
    for watcher in watchers:
        watcher.start()
    time.sleep(seconds)
    preview.send_signal(signal.SIGTERM)
    summary = loads(preview.communicate(timeout=60)[0])
    for watcher in watchers:
        watcher.join()
    return float(summary["stages_ms"]["restore"]["mean"])


def _port(preview: "subprocess.Popen[str]") -> int:
    """Of the address that the preview prints once it is served."""
    line = ""
    for line in preview.stderr or ():
        if match := re.search(r"watch it at http://127\.0\.0\.1:(\d+)", line):
            return int(match[1])
    raise NotMeasured(f"the preview ended before it was served: {line.strip()}")


def _watch(port: int) -> None:
    """What a page does, without drawing: every image is acknowledged at once."""
    with connect(f"ws://127.0.0.1:{port}/live", compression=None, max_size=None) as socket:
        try:
            for message in socket:
                if isinstance(message, bytes):
                    socket.send(dumps({"drawn": True}))
        except ConnectionClosed:
            return


if __name__ == "__main__":
    run(main)
