"""Many files through one model: what `unblur run` does with several files, a glob, or a folder.

plan = plan_batch(["holiday"], None, recursive=True)
result = run_batch(RunRequest("lprn-s", "holiday", ()), plan)
"""

import glob
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unblur.runtime.errors import BadInput, MissingExtra
from unblur.runtime.files import exists, make_folder
from unblur.runtime.images import is_image_path
from unblur.runtime.loops.restorer import Restorer
from unblur.runtime.loops.session import (
    RunRequest,
    file_sink,
    open_file,
    open_file_restorer,
    restore_file,
    restored_info,
)
from unblur.runtime.loops.stats import LoopStats, RunSummary
from unblur.runtime.media.image_files import ImageSink, ImageSource, is_animation
from unblur.runtime.media.interfaces import Sink, Source
from unblur.runtime.media.video_sink import FORMATS
from unblur.runtime.spec import Precision

_log = logging.getLogger(__name__)

Existing = Literal["refuse", "skip", "overwrite"]
Stage = Callable[[str, int | None], Callable[[], None]]
"""As `unblur.runtime.console.Stage`, of a length that may be unknown."""

_VIDEOS = {*FORMATS, ".avi", ".webm", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".flv", ".wmv", ".asf", ".ogv"}
_VIDEOS |= {".mxf", ".3gp", ".ivf", ".y4m"}
_MARK = "_unblurred"


@dataclass(frozen=True)
class Batch:
    """What is to be restored: source -> target, in order. skipped: what is not, and why."""

    targets: dict[Path, Path]
    skipped: dict[str, str]


@dataclass(frozen=True)
class BatchResult:
    """What was done. written: source -> target of what is there now; a video that lost frames is in `failed` too.
    failed: source -> why.
    """

    summary: RunSummary
    device: str
    precision: Precision | None
    written: dict[Path, Path] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)


def silent(name: str, total: int | None) -> Callable[[], None]:
    """A `Stage` that shows nothing."""
    return lambda: None


def target_beside(source: Path) -> Path:
    """`photo_unblurred.jpg` for `photo.jpg`; a video in a container that we do not write becomes Matroska."""
    return source.with_name(f"{source.stem}{_MARK}{_suffix(source)}")


def plan_batch(
    sources: Sequence[str], sink: str | None, *, recursive: bool = False, existing: Existing = "refuse"
) -> Batch:
    """Which files are restored, and where to.

    sources: files, folders and patterns such as `*.jpg`. sink: a folder, below which folders are mirrored; default
    beside each source. existing: what to do about targets that are there.
    Raises BadInput if a source does not exist, two have one target, or a target exists and may not.
    """
    skipped: dict[str, str] = {}
    targets: dict[Path, Path] = {}
    for source in _expanded(sources):
        if source.is_dir():
            top = _folder_beside(source) if sink is None else Path(sink)
            found = {path: top / path.relative_to(source) for path in _files(source, top, recursive, skipped)}
            if not found:
                raise BadInput(f"{source} holds no images and no videos{_hint(skipped)}")
        else:
            found = {source: target_beside(source) if sink is None else Path(sink) / source.name}
        targets |= {path: target.with_suffix(_suffix(path)) for path, target in found.items()}
    for path in [path for path in targets if _is_result(path, targets) and sink is None]:
        del targets[path]
        skipped[str(path)] = "a result of an earlier run"
    _keep_apart(targets)
    return Batch(_without_existing(targets, existing, skipped), skipped)


def run_batch(
    request: RunRequest, batch: Batch, stop: threading.Event | None = None, stage: Stage = silent
) -> BatchResult:
    """Restore all files of a batch. What cannot be read is left out, and stands in the result.

    stage: called for the images together and for each video, with the number of frames if it is known.
    Raises what opening the model and the device raise.
    """
    began_s = time.perf_counter()
    run = _Run(request, stop or threading.Event(), stage)
    run.all(batch.targets, lambda size_hw: open_file_restorer(request, size_hw))
    seconds = time.perf_counter() - began_s
    summary = run.stats.summary(run.stats.restore, seconds, stopped=run.stop.is_set())
    return BatchResult(summary, run.device, run.precision, run.written, run.failed)


@dataclass(frozen=True)
class FilesDone:
    """What a worker that keeps its model open has done; see `BatchResult`."""

    stats: LoopStats
    written: dict[Path, Path]
    failed: dict[Path, str]


def restore_files(request: RunRequest, targets: Mapping[Path, Path], restorer: Restorer) -> FilesDone:
    """As `run_batch`, with a model that is open and stays so."""
    run = _Run(request, threading.Event(), silent)
    run.all(targets, lambda size_hw: nullcontext(restorer))
    return FilesDone(run.stats, run.written, run.failed)


@dataclass
class _Run:
    """What a batch has done so far."""

    request: RunRequest
    stop: threading.Event
    stage: Stage
    stats: LoopStats = field(default_factory=LoopStats)
    written: dict[Path, Path] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    device: str = ""
    precision: Precision | None = None

    def all(
        self,
        targets: Mapping[Path, Path],
        open_restorer: Callable[[tuple[int, int] | None], AbstractContextManager[Restorer]],
    ) -> None:
        """open_restorer: called with the size of the images if they have one, and not if there is nothing to do."""
        stills, streams = _split(targets, self.request.max_pixels)
        images = ImageSource(Path(), max_pixels=self.request.max_pixels, rate=self.request.rate, paths=list(stills))
        if images.info.frames or streams:
            with open_restorer(images.info.size_hw) as restorer:
                self.device, self.precision = restorer.runner.device, restorer.runner.precision
                self.images(images, stills, restorer)
                for source, target in streams.items():
                    self.stream(source, target, restorer)
        self.failed |= images.failed

    def images(self, source: ImageSource, targets: Mapping[Path, Path], restorer: Restorer) -> None:
        """All images in one go, so that reading, restoring and writing overlap from one to the next."""
        if not source.info.frames:
            return
        sink = ImageSink(targets, quality=self.request.quality)
        self._restore("images", source, sink, restorer)
        self.failed |= sink.failed
        self.written |= {path: targets[path] for path in sink.written}

    def stream(self, path: Path, target: Path, restorer: Restorer) -> None:
        """One video or animation."""
        if self.stop.is_set():
            return
        written, lost = self.stats.written, self.stats.lost
        try:
            with open_file(self.request, str(path)) as source:
                if target.suffix != path.suffix:
                    _log.info("%s: becomes %s; %s is not written", path, target.name, path.suffix)
                make_folder(target.parent)
                with file_sink(self.request, [str(target)], restored_info(source.info, restorer)) as sink:
                    self._restore(path.name, source, sink, restorer)
        except (BadInput, MissingExtra) as error:
            self.failed[path] = str(error)
            return
        if self.stats.written > written:
            self.written[path] = target
        if self.stats.lost > lost:
            self.failed[path] = (
                f"{self.stats.lost - lost} frames of {path} are damaged or missing; {target} holds the other "
                f"{self.stats.written - written}"
            )

    def _restore(self, name: str, source: Source, sink: Sink, restorer: Restorer) -> None:
        advance = self.stage(name, source.info.frames)
        restore_file(self.request, source, restorer, sink, stats=self.stats, stop=self.stop, on_frame=advance)


def _split(targets: Mapping[Path, Path], max_pixels: int) -> tuple[dict[Path, Path], dict[Path, Path]]:
    """Single images, and what has several frames."""
    stills: dict[Path, Path] = {}
    streams: dict[Path, Path] = {}
    for source, target in targets.items():
        (stills if _is_still(source, max_pixels) else streams)[source] = target
    return stills, streams


def _is_still(path: Path, max_pixels: int) -> bool:
    try:
        return is_image_path(path) and not is_animation(path, max_pixels)
    except (BadInput, MissingExtra):  # reading it as an image raises that again
        return True


def _expanded(sources: Sequence[str]) -> Iterator[Path]:
    """Files and folders, with patterns that the shell left alone expanded."""
    for text in sources:
        path = Path(text)
        if exists(path):
            yield path
            continue
        matches = glob.glob(text, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
        if not matches:
            raise BadInput(f"{text} {'matches no file' if glob.has_magic(text) else 'does not exist'}")
        yield from map(Path, sorted(matches))


def _files(folder: Path, target: Path, recursive: bool, skipped: dict[str, str]) -> Iterator[Path]:
    """The images and videos of a folder, by name; what else is in it goes into `skipped`."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or (path.is_dir() and exists(target) and path.samefile(target)):
            continue
        if path.is_dir() and not path.is_symlink() and recursive:
            yield from _files(path, target, recursive, skipped)
        elif path.is_dir():
            skipped[f"{path}/"] = "a folder; --recursive enters it" if not recursive else "a link to a folder"
        elif is_image_path(path) or path.suffix.lower() in _VIDEOS:
            yield path
        else:
            skipped[str(path)] = "not an image or a video, by its suffix"


def _hint(skipped: Mapping[str, str]) -> str:
    return "; --recursive looks into its folders" if any(name.endswith("/") for name in skipped) else ""


def _folder_beside(folder: Path) -> Path:
    whole = folder.resolve()
    return folder.with_name(f"{folder.name}{_MARK}") if folder.name else whole.with_name(f"{whole.name}{_MARK}")


def _suffix(source: Path) -> str:
    """Of the target: that of the source, or Matroska's for a video in a container that we do not write."""
    known = is_image_path(source) or source.suffix.lower() in FORMATS
    return source.suffix if known else ".mkv"


def _is_result(path: Path, targets: Mapping[Path, Path]) -> bool:
    original = path.with_name(f"{path.stem.removesuffix(_MARK)}{path.suffix}")
    return path.stem.endswith(_MARK) and original in targets


def _keep_apart(targets: dict[Path, Path]) -> None:
    """Give `a.avi` and `a.webm`, which would both become `a.mkv`, names of their own; refuse other clashes."""
    counts = Counter(targets.values())
    for source, target in targets.items():
        if counts[target] > 1 and source.suffix != target.suffix:
            targets[source] = target.with_name(f"{source.name}{target.suffix}")
    counts = Counter(targets.values())
    for target in (target for target, count in counts.items() if count > 1):
        first, second, *_ = [source for source, other in targets.items() if other == target]
        raise BadInput(f"{first} and {second} would both be written to {target}; restore them one after the other")


def _without_existing(targets: dict[Path, Path], existing: Existing, skipped: dict[str, str]) -> dict[Path, Path]:
    """The targets that may be written. Raises BadInput for those that are there and may not be replaced."""
    for source, target in targets.items():
        if exists(target) and target.samefile(source):
            raise BadInput(f"{target} is the source itself; give another sink")
    there = {source: target for source, target in targets.items() if exists(target)}
    if there and existing == "refuse":
        more = f" and {len(there) - 1} more exist" if len(there) > 1 else " exists"
        raise BadInput(f"{next(iter(there.values()))}{more}; give --overwrite or --skip-existing")
    if existing == "skip":
        skipped |= {str(source): f"{target} exists" for source, target in there.items()}
        return {source: target for source, target in targets.items() if source not in there}
    return targets
