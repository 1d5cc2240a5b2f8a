"""What watching costs: `unblur preview` with four viewers against the same without any.

    python -m benchmarks.preview_cost

Both run in turn, several times; each ratio is of neighbours in time. Compared is the time of a frame in the
network, of which the encoder and the web server may take a share. The viewers take every picture they can get and
throw it away; they run on the same machine, so on few cores their own work is in the figure too. Expected: at most
5 percent.
"""

import json
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from typing import Annotated

import typer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

MOST_COST = 0.05


def main(
    model: Annotated[str, typer.Option(help="A shipped preset or a bundle.")] = "lprn-n",
    size: str = "360x640",
    viewers: int = 4,
    seconds: float = 10,
    repeats: int = 5,
) -> None:
    """Print the time of a frame of each run and the median of the ratios; exit 1 above 5 percent."""
    costs = []
    for number in range(1, repeats + 1):
        alone, watched = (mean_ms(model, size, count, seconds) for count in (0, viewers))
        costs.append(watched / alone - 1)
        print(
            f"{number}: {alone:.2f} ms alone, {watched:.2f} ms with {viewers} viewers: {costs[-1]:+.1%}", flush=True
        )
    median = statistics.median(costs)
    print(
        f"cost: median {median:+.1%}, from {min(costs):+.1%} to {max(costs):+.1%}; expected at most {MOST_COST:.0%}"
    )
    sys.exit(0 if median <= MOST_COST else 1)


def mean_ms(model: str, size: str, viewers: int, seconds: float) -> float:
    """Mean time of a frame in the network while so many watch."""
    source = f"test://moving?size={size}&fps=30&blur=12"
    command = [sys.executable, "-m", "unblur.runtime.cli", "preview", model, "--source", source, "--port", "0"]
    command += ["--deadline-ms", "100000", "--json"]  # every frame with all steps, so that they compare
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    port = _port(run)
    watchers = [threading.Thread(target=_watch, args=(port,)) for _ in range(viewers)]
    for watcher in watchers:
        watcher.start()
    time.sleep(seconds)
    run.send_signal(signal.SIGTERM)
    summary = json.loads(run.communicate(timeout=60)[0])
    for watcher in watchers:
        watcher.join()
    return float(summary["stages_ms"]["restore"]["mean"])


def _port(run: "subprocess.Popen[str]") -> int:
    """Of the address that the preview prints once it is served."""
    for line in run.stderr or ():
        if match := re.search(r"watch it at http://127\.0\.0\.1:(\d+)", line):
            return int(match[1])
    raise SystemExit("the preview ended before it was served")


def _watch(port: int) -> None:
    """What a page does, without drawing: every picture is acknowledged at once."""
    with connect(f"ws://127.0.0.1:{port}/live", compression=None, max_size=None) as socket:
        try:
            for message in socket:
                if isinstance(message, bytes):
                    socket.send(json.dumps({"drawn": True}))
        except ConnectionClosed:
            return


if __name__ == "__main__":
    typer.run(main)
