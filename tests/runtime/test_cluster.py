"""Restoring on a Ray cluster: two workers on this machine give the bytes that one process gives, whoever dies."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
import psutil
import pytest
from tiny_network import TinyNetwork

from unblur.runtime.errors import BadInput, DeviceError
from unblur.runtime.images import write_image
from unblur.runtime.loops.batch import Batch, plan_batch, run_batch
from unblur.runtime.loops.session import RunRequest
from unblur.runtime.runner import RunnerOptions

ray = pytest.importorskip("ray")

from unblur.runtime.loops.cluster import cluster, run_on_cluster  # noqa: E402

pytestmark = pytest.mark.realtime  # a cluster takes the cores of two


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    with cluster("local", cores=2):
        yield


@pytest.fixture
def request_(tmp_path: Path) -> RunRequest:
    model = TinyNetwork().write(tmp_path / "tiny.onnx")
    return RunRequest(model, "", (), RunnerOptions("fp32", threads=1))


def busy_workers() -> list[psutil.Process]:
    """Ray names a process by the method that it runs: "ray::_Worker.files()"."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any("_Worker." in word for word in process.cmdline()):
                found.append(process)
    return found


@contextmanager
def when(condition: Callable[[], Any], action: Callable[[Any], None]) -> Iterator[None]:
    """Inside the block, act once when the condition gives something."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            if found := condition():
                action(found)
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def read_all(folder: Path) -> dict[str, object]:
    """Hidden files as well. Matroska gives each file a random number, so that of it the packets are compared."""
    return {
        str(path.relative_to(folder)): read_packets(path) if path.suffix == ".mkv" else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def read_packets(video: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(video)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux()]


@pytest.mark.usefixtures("two_workers")
def test_a_job_that_was_stopped_goes_on_though_a_worker_is_killed_and_gives_the_bytes_of_one_process(
    request_: RunRequest, make_clip: Callable[..., Path], make_frame: Callable[[int, int], object], tmp_path: Path
) -> None:
    (tmp_path / "in/trip").mkdir(parents=True)
    long = make_clip("in/long.mp4", frames=60, gop=5, audio="aac")
    make_clip("in/short.mkv", frames=5)
    cut = make_clip("in/trip/truncated.mkv", frames=30, gop=5)
    cut.write_bytes(cut.read_bytes()[:-2000])
    for index in range(10):
        write_image(tmp_path / f"in/trip/{index}.png", make_frame(64, 96))
    write_image(tmp_path / "in/large.png", make_frame(1500, 2000))
    (tmp_path / "in/damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 not an image")
    one, many = (
        plan_batch([str(tmp_path / "in")], str(tmp_path / name), recursive=True) for name in ("one", "many")
    )
    alone = run_batch(request_, one)

    with when(lambda: list(tmp_path.glob("many/.long.mp4.*.parts/*.json")), lambda found: stop.set()):
        stop = threading.Event()
        first = run_on_cluster(request_, Batch({long: many.targets[long]}, {}), stop, part_frames=10)
    assert first.summary.stopped
    assert first.written == {}
    assert 10 <= first.summary.frames < 60

    killed: list[int] = []

    def kill(busy: list[psutil.Process]) -> None:
        busy[0].kill()
        killed.append(busy[0].pid)

    with when(lambda: (tmp_path / "many/trip/0.png").exists() and busy_workers(), kill):
        together = run_on_cluster(request_, many, part_frames=10)
    assert len(killed) == 1
    assert {path.name for path in together.failed} == {"damaged.jpg", "truncated.mkv"}
    assert together.failed.keys() == alone.failed.keys()
    assert together.written.keys() == alone.written.keys()
    assert first.summary.frames + together.summary.frames == alone.summary.frames  # nothing twice
    assert read_all(tmp_path / "many") == read_all(tmp_path / "one")


@pytest.mark.usefixtures("two_workers")
def test_what_a_cluster_cannot_do_is_refused(request_: RunRequest, make_clip: Callable[..., Path]) -> None:
    batch = plan_batch([str(make_clip())], None)
    with pytest.raises(BadInput, match="--deadline-ms cannot be kept on a cluster"):
        run_on_cluster(RunRequest(request_.model, "", (), deadline_ms=20), batch)
    with pytest.raises(BadInput, match="there is no model 'missing'"):
        run_on_cluster(RunRequest("missing", "", ()), batch)


def test_a_cluster_that_is_not_there_is_one_line() -> None:
    with (
        pytest.raises(BadInput, match="--ray is 'head', expected local, auto, or HOST:PORT"),
        cluster("head"),
    ):
        pass
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        refused = f"there is no Ray cluster at {address}: Connection refused; `ray start --head` makes one"
        with pytest.raises(DeviceError, match=refused), cluster(address):
            pass
