"""Many files over the machines of a Ray cluster: what `unblur run --ray` does. Needs the extra [ray].

    with cluster("local"):
        result = run_on_cluster(request, plan_batch(["holiday"], "sharp"))

Each worker is a Ray actor with one GPU, or some cores, and holds the model. It takes a few images or a part of a
video at a time. The restored parts of a video lie in a hidden folder beside its target until a worker joins them,
so what a job has done that was killed is not done again. Actors, not Ray Data: only names of files go through Ray,
and a list of files needs neither pandas nor pyarrow, which Ray Data brings.

All machines see the same files at the same paths and have the same version of unblur.
"""

import hashlib
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from unblur.runtime.errors import BadInput, DeviceError, UnblurError
from unblur.runtime.files import make_folder
from unblur.runtime.images import is_image_path
from unblur.runtime.loops.batch import Batch, BatchResult, FilesDone, Stage, restore_files, silent
from unblur.runtime.loops.restorer import Restorer
from unblur.runtime.loops.session import (
    RunRequest,
    file_sink,
    open_file_restorer,
    restore_file,
    restored_info,
)
from unblur.runtime.loops.stats import LoopStats
from unblur.runtime.media.video_parts import SUFFIX, PartSink, VideoPart, cut_video, read_parts, times_of
from unblur.runtime.media.video_source import VideoSource
from unblur.runtime.model.bundle import MANIFEST
from unblur.runtime.model.open_model import find_model, shipped_presets
from unblur.runtime.spec import Precision

DEFAULT_CORES = 4
_IMAGES = 8  # in one task: what is done again if its worker dies
_PART_FRAMES = 250
_ATTEMPTS = 3
_CONNECT_S = 10
_STORE_BYTES = 100 << 20  # names and counters are all that is stored


@contextmanager
def cluster(address: str, cores: int | None = None) -> Iterator[None]:
    """Connected to a Ray cluster inside the block. address: "local" starts one of this machine for the time.

    cores: to use of this machine; default all.
    Raises DeviceError if there is none at the address.
    """
    _require_server(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if address == "local":
            ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=_STORE_BYTES, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, str(error).partition("\n")[0]) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts its own in its place, which ends the process
    try:
        with redirect_stdout(sys.stderr):  # Ray says on stdout, from a thread, that a worker died
            yield
    finally:
        ray.shutdown()


def _require_server(address: str) -> None:
    """Ray itself waits for minutes."""
    if address in ("local", "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        raise BadInput(f"--ray is '{address}', expected local, auto, or HOST:PORT of a cluster's head")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from error


def _no_cluster(address: str, reason: str) -> DeviceError:
    return DeviceError(f"there is no Ray cluster at {address}: {reason}; `ray start --head` makes one")


def run_on_cluster(
    request: RunRequest,
    batch: Batch,
    stop: threading.Event | None = None,
    stage: Stage = silent,
    *,
    part_frames: int = _PART_FRAMES,
) -> BatchResult:
    """Restore the files of a batch on the cluster that is connected; see `run_batch`.

    options.threads: cores of a worker, default 4; not for one with a GPU. The variant that the first worker chooses
    is that of all. part_frames: how long parts of videos are at least.
    Raises BadInput for a deadline: how many steps fit it depends on the machine.
    """
    if request.deadline_ms is not None:
        raise BadInput("--deadline-ms cannot be kept on a cluster, whose machines differ; give --steps instead")
    began_s = time.perf_counter()
    job = _Job(stop or threading.Event(), stage("files", len(batch.targets)), part_frames)
    given = {source.absolute(): source for source in batch.targets}
    if given:
        job.hire(request)
        job.plan({path: batch.targets[source].absolute() for path, source in given.items()})
        job.work()
    written = {source: batch.targets[source] for path, source in given.items() if path in job.written}
    failed = {given[path]: reason.replace(str(path), str(given[path])) for path, reason in job.failed.items()}
    summary = job.stats.summary(job.stats.restore, time.perf_counter() - began_s, stopped=job.stop.is_set())
    return BatchResult(summary, job.device, job.precision, written, failed)


@dataclass(frozen=True)
class _Task:
    """A method of a worker and its arguments. then: called with what it returns.

    otherwise: called with the reason if a file is damaged, or the worker died each time.
    """

    method: str
    arguments: tuple[object, ...]
    then: Callable[[Any], None]
    otherwise: Callable[[str], None]


@dataclass
class _Job:
    """The tasks that are left, and what has been done so far."""

    stop: threading.Event
    advance: Callable[[], None]
    part_frames: int
    tasks: deque[_Task] = field(default_factory=deque)
    workers: list[Any] = field(default_factory=list)
    stats: LoopStats = field(default_factory=LoopStats)
    written: dict[Path, Path] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    device: str = ""
    precision: Precision | None = None
    identity: str = ""

    def hire(self, request: RunRequest) -> None:
        """One worker for each GPU of the cluster, or for each few cores; the first chooses the variant."""
        has = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus, cores = int(has.get("GPU", 0)), int(has.get("CPU", 1))
        threads = min(request.options.threads or DEFAULT_CORES, cores)
        share: dict[str, Any] = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_cpus": threads}
        kind: Any = ray.remote(**share, max_restarts=-1, max_task_retries=_ATTEMPTS - 1)(_Worker)
        model = find_model(request.model)
        if str(request.model) not in shipped_presets():
            request = replace(request, model=model.absolute())
        self.identity = _identity(request, model)
        request = replace(request, options=replace(request.options, threads=threads))
        if request.options.precision == "auto":
            first = kind.remote(request)
            _, precision = _result(first.open.remote())
            ray.kill(first)
            request = replace(request, options=replace(request.options, precision=precision))
        self.workers = [kind.remote(request) for _ in range(gpus or max(1, cores // threads))]
        self.device, self.precision = _result(self.workers[0].open.remote())
        self.identity += f" {self.precision}"

    def plan(self, targets: dict[Path, Path]) -> None:
        images = iter([each for each in targets.items() if is_image_path(each[0])])
        while few := dict(islice(images, _IMAGES)):
            self.add_files(few)
        for source, target in targets.items():
            if not is_image_path(source):
                self.add_video(source, target)

    def work(self) -> None:
        """Until no task is left, or `stop` is set and those under way are done."""
        idle, running = deque(self.workers), dict[Any, tuple[_Task, Any]]()
        while running or (self.tasks and not self.stop.is_set()):
            while idle and self.tasks and not self.stop.is_set():
                task, worker = self.tasks.popleft(), idle.popleft()
                running[getattr(worker, task.method).remote(*task.arguments)] = task, worker
            for reference in ray.wait(list(running), timeout=1)[0]:
                task, worker = running.pop(reference)
                idle.append(worker)
                try:
                    result = _result(reference)
                except BadInput as error:
                    task.otherwise(str(error))
                except RayActorError:
                    task.otherwise(f"the worker that restored it died {_ATTEMPTS} times")
                else:
                    task.then(result)

    def add_files(self, targets: dict[Path, Path]) -> None:
        def one_by_one(reason: str) -> None:
            if len(targets) > 1:
                for source, target in targets.items():
                    self.add_files({source: target})
            else:
                self.fail(next(iter(targets)), reason)

        self.tasks.append(_Task("files", (targets,), self.count, one_by_one))

    def add_video(self, source: Path, target: Path) -> None:
        def cut(parts: list[VideoPart]) -> None:
            if len(parts) > 1:
                self.add_parts(source, target, parts)
            else:
                self.add_files({source: target})

        self.tasks.appendleft(
            _Task("cut", (source, self.part_frames), cut, lambda reason: self.fail(source, reason))
        )

    def add_parts(self, source: Path, target: Path, parts: list[VideoPart]) -> None:
        """The parts, then what joins them; a video in which a part is not right is restored in one go."""
        folder = parts_folder(source, target, f"{self.identity} {self.part_frames}")
        make_folder(folder)
        files = [folder / f"{index:06d}{SUFFIX}" for index in range(len(parts))]
        left = {file for file in files if not times_of(file).exists()}

        def whole(reason: str) -> None:
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)
                self.add_files({source: target})

        def join() -> None:
            if not left and folder.exists():
                self.tasks.appendleft(_Task("join", (source, files, target), self.count, whole))

        def done(file: Path, stats: LoopStats) -> None:
            self.stats.merge(stats)
            left.discard(file)
            join()

        for file, part in zip(files, parts, strict=True):
            if file in left:
                self.tasks.append(_Task("part", (source, part, file), partial(done, file), whole))
        join()

    def count(self, result: FilesDone) -> None:
        self.stats.merge(result.stats)
        self.written |= result.written
        self.failed |= result.failed
        for _ in {*result.written, *result.failed}:
            self.advance()

    def fail(self, source: Path, reason: str) -> None:
        self.failed[source] = reason
        self.advance()


def _identity(request: RunRequest, model: Path) -> str:
    """What of a request decides the restored frames."""
    file = model / MANIFEST if model.is_dir() else model
    options = replace(request.options, threads=None)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return f"{digest} {options} {request.strength} {request.keep_depth}"


def parts_folder(source: Path, target: Path, identity: str) -> Path:
    """Where the restored parts of a video lie: a name of their own for each source and way to restore it."""
    status = source.stat()
    text = f"{source.resolve()} {status.st_size} {status.st_mtime_ns} {identity}"
    return target.with_name(f".{target.name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}.parts")


def _result(reference: Any) -> Any:
    """What a worker returned; an error of ours as it was raised there."""
    try:
        return ray.get(reference)
    except UnblurError as error:
        raise getattr(error, "cause", error) from None


class _Worker:
    """Holds the model, in a process of its own."""

    def __init__(self, request: RunRequest) -> None:
        """The model is opened with the first task, so that what is wrong with it is that task's error."""
        self._request = request
        self._restorer: Restorer | None = None

    def open(self) -> tuple[str, Precision]:
        runner = self._opened().runner
        return runner.device, runner.precision

    def files(self, targets: dict[Path, Path]) -> FilesDone:
        return restore_files(self._request, targets, self._opened())

    def cut(self, source: Path, part_frames: int) -> list[VideoPart]:
        return cut_video(source, part_frames)

    def part(self, source: Path, part: VideoPart, file: Path) -> LoopStats:
        stats = LoopStats()
        with self._video(source) as video:
            video.cut(part)
            with PartSink(file) as sink:
                restore_file(self._request, video, self._opened(), sink, stats=stats)
        return stats

    def join(self, source: Path, parts: list[Path], target: Path) -> FilesDone:
        """Write the video as if it had been restored in one go, and remove its parts."""
        with self._video(source) as video:
            info = restored_info(video.info, self._opened())
        with file_sink(self._request, [str(target)], info) as sink:
            for frame in read_parts(parts):
                sink.write(frame)
            sink.finish(complete=True)
        shutil.rmtree(parts[0].parent, ignore_errors=True)
        return FilesDone(LoopStats(), {source: target}, {})

    def _video(self, path: Path) -> VideoSource:
        return VideoSource(path, max_pixels=self._request.max_pixels, keep_depth=self._request.keep_depth)

    def _opened(self) -> Restorer:
        if self._restorer is None:
            self._restorer = open_file_restorer(self._request, None)
        return self._restorer
