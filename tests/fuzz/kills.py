"""kill -9 at random moments of every command that works for a while, which is then run again to its end.

    python -m tests.fuzz.kills --moments 100

Whatever the moment: what was there is there and whole, or what was to be; the next run works, and nothing is left
of those that were killed. A resumed training ends with the bits of one that was not. The processes are forks of
this one, which has loaded everything: so the moments fall into the work, not into the start.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))  # as pytest does

import av
import numpy as np
import torch
import typer
from safetensors.torch import load_file
from small_networks import small_network

from tests.runtime.conftest import Clip, make_frame_of
from unblur.calibration.onnx_model import read_onnx, write_onnx
from unblur.export.onnx_from_network import onnx_from_network
from unblur.export.trt_api import load_api
from unblur.runtime.cli.main import COMMANDS, main
from unblur.runtime.images import write_image
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.tensorrt.engine_file import find_engines, read_engine, read_record

_RUN_TO_THE_END_EVERY = 5
_ITERATIONS = 40
_RECORDED_S = 3.0
_UNREADABLE_BYTES = 16 * 1024  # of a recording that has just begun


@dataclass
class Job:
    """A command. check: what must hold of its folder after any kill. whole: what else when it came to its end.

    ending: other arguments of the run to the end; None for the same.
    """

    folder: Path
    arguments: tuple[object, ...]
    check: Callable[[Path], object]
    whole: Callable[[Path], object]
    ending: tuple[object, ...] | None = None
    longest_s: float | None = None

    def run(self, *, kill_after_s: float | None = None) -> bool:
        """True if it came to its end."""
        child = os.fork()
        if child == 0:
            _become(self.arguments if kill_after_s is not None or self.ending is None else self.ending)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code not in (0, 1, -signal.SIGKILL):  # 1: the verdict on the bundle of a network without training
            raise AssertionError(f"{self.folder}: it ended with {code}: {Path(_LOG).read_text()[-2000:]}")
        return code >= 0


_LOG = Path("log")


def _become(arguments: tuple[object, ...]) -> None:
    """Be the command `unblur`, in this fork."""
    log = os.open(_LOG, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["unblur", *map(str, arguments)]
    try:
        main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 0)
    except BaseException as error:  # noqa: BLE001 - as Python's own end would
        os.write(2, repr(error).encode())
        os._exit(99)
    os._exit(0)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _expect(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}: {found}, expected {expected}")


def _only(*names: str) -> Callable[[Path], None]:
    return lambda folder: _expect(_names(folder), set(names), f"{folder} holds")


def _decoded(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _check_recording(folder: Path) -> None:
    path = folder / "camera.mkv"
    if path.exists() and path.stat().st_size > _UNREADABLE_BYTES:
        _decoded(path)


def _check_engines(folder: Path) -> None:
    for engine in find_engines(folder):
        read_engine(engine, read_record(engine))


def _whole_engines(folder: Path) -> None:
    (engine,) = find_engines(folder)
    _expect(_names(folder), {engine.name, f"{engine.stem}.json", f".{engine.stem}.lock"}, f"{folder} holds")


def _whole_training(folder: Path) -> None:
    """To the bit the same as the first one, which was not killed."""
    first, resumed = folder.with_name("train-1") / "run", folder / "run"
    files = ("state.safetensors", "lprn-n.safetensors")
    for file in files:
        expected, found = load_file(first / file), load_file(resumed / file)
        unequal = [name for name in expected.keys() | found.keys() if not torch.equal(expected[name], found[name])]
        _expect(unequal, [], f"tensors of {file} that differ after a kill")
    lines = [json.loads(line)["iteration"] for line in (resumed / "log.jsonl").read_text().splitlines()]
    _expect(lines, [20, 40], "iterations in the log")
    _only(*files, "log.jsonl", "curve.png")(resumed)


class Jobs:
    """Every job, in folders below `root`, with the small files that they work on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = root / "model.onnx"
        network = small_network("lprn-s", base="plain", width=8, blocks=1, steps=1, attention="both")
        write_onnx(self.model, onnx_from_network(network))
        for index in range(3):
            for folder in ("blur", "sharp"):
                (root / "pairs" / folder).mkdir(parents=True, exist_ok=True)
                frame = np.ascontiguousarray(np.roll(make_frame_of(64, 96), 9 * index, axis=1))
                write_image(root / "pairs" / folder / f"{index}.png", frame)
        self.images = root / "pairs" / "sharp"
        self.clip = Clip(frames=60).write(root / "clip.mp4")

    def make(self, name: str, run: int) -> Job:
        """In a new folder."""
        folder = self.root / f"{name}-{run}"
        folder.mkdir()
        return getattr(self, f"_{name}")(folder)

    def _deploy(self, folder: Path) -> Job:
        bundle = folder / "it.unblur"
        options = ("--calibration", self.images, "--synthetic-blur", "--keep-failed", "-o", bundle)
        return Job(
            folder,
            ("deploy", self.model, *options),
            lambda folder: bundle.exists() and read_bundle(bundle),
            _only(bundle.name),
        )

    def _train(self, folder: Path) -> Job:
        network = ("--set", "width=8,8", "--set", "blocks=1,1,1", "--steps", 1, "--crop", 32, "--batch", 2)
        length = ("--iterations", _ITERATIONS, "--checkpoint-every", 0, "--resume", "--workers", 0, "--threads", 1)
        data = ("--data", self.root / "pairs", "--hold-out", 1)
        state = folder / "run/state.safetensors"
        return Job(
            folder,
            ("train", "lprn-n", *data, *network, *length, "-o", folder / "run"),
            lambda folder: state.exists() and load_file(state),
            _whole_training,
        )

    def _calibrate(self, folder: Path) -> Job:
        int8 = folder / "int8.onnx"
        options = ("--images", self.images, "--method", "minmax", "--table", folder / "table.json", "-o", int8)
        return Job(
            folder,
            ("calibrate", self.model, *options),
            lambda folder: int8.exists() and read_onnx(int8),
            _only("int8.onnx", "table.json"),
        )

    def _build(self, folder: Path) -> Job:
        options = ("--target", "rtx-sm86", "--size", "32x32", "--level", 0, "--force", "-o", folder)
        return Job(folder, ("build", self.model, *options), _check_engines, _whole_engines)

    def _clip(self, folder: Path) -> Job:
        sink = folder / "sharp.mp4"
        return Job(
            folder,
            ("run", self.model, "--source", self.clip, "--sink", sink, "--threads", 1),
            lambda folder: sink.exists() and _expect(_decoded(sink), 60, "frames"),
            _only(sink.name),
        )

    def _record(self, folder: Path) -> Job:
        sink, source = folder / "camera.mkv", "test://moving?size=64x96&fps=30"
        command = ("run", self.model, "--threads", 1, "--sink", sink, "--source")
        return Job(
            folder,
            (*command, source),
            _check_recording,
            lambda folder: (_only(sink.name)(folder), _decoded(sink)),
            ending=(*command, f"{source}&frames=20"),
            longest_s=_RECORDED_S,
        )


NAMES = ("deploy", "train", "calibrate", "build", "clip", "record")


def attack(jobs: Jobs, name: str, moments: int, random_: random.Random) -> str:
    """Kill it that often; what was done, in one line. Raises AssertionError at what must not be."""
    first = jobs.make(name, 1)
    began_s = time.monotonic()
    first.run()
    took_s = time.monotonic() - began_s
    first.check(first.folder)
    first.whole(first.folder)
    job, kills, runs = first, 0, 1
    if name == "train":
        job, runs = jobs.make(name, 2), 2
    while kills < moments:
        ended = job.run(kill_after_s=random_.uniform(0, job.longest_s or took_s))
        kills += not ended
        job.check(job.folder)
        if not ended and (kills % _RUN_TO_THE_END_EVERY == 0 or kills == moments):
            ended = job.run()
            job.check(job.folder)
        if ended:
            job.whole(job.folder)
            if name == "train":
                runs += 1
                job = jobs.make(name, runs)
    return f"{name}: {kills} kills within {job.longest_s or took_s:.1f} s, and nothing was lost or left"


def _load() -> None:
    """Before the first fork."""
    for name in ("deploy", "train", "calibrate", "build", "run"):
        import_module(COMMANDS[name].module)
    load_api("rtx")


def run(
    moments: Annotated[int, typer.Option(help="How often each command is killed.")] = 5,
    only: Annotated[list[str] | None, typer.Option(help="This one alone; repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
) -> None:
    """Kill every command at random moments; exit with 1 if something was lost or left."""
    global _LOG
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="unblur-kills-") as folder:
        root = Path(folder)
        (root / "tmp").mkdir()
        os.environ |= {"TMPDIR": str(root / "tmp"), "XDG_CACHE_HOME": str(root / "cache"), "SOURCE_DATE_EPOCH": "0"}
        tempfile.tempdir = None
        _LOG = root / "log"
        _load()
        jobs = Jobs(root)
        for name in only or NAMES:
            print(attack(jobs, name, moments, random.Random(seed)), flush=True)
            left = [path for path in root.rglob("*") if ".partial" in path.name]
            _expect(left, [], "left behind")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(run)
    app()
