"""Training samples: pairs of crops, each a function of (seed, index) alone.

That is what makes a run resumable at any iteration, and equal whether one process draws a batch or two halve it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import list_images, read_image
from unblur.runtime.media.container import open_container
from unblur.runtime.quality.pairs import Pair, find_pairs
from unblur.train.blur import REACH_PX, WINDOW_FRAMES, average_frames, camera_shake, lens_blur
from unblur.train.recipe import Augmentation, Recipe

CLIP_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"})
_WINDOWS_PER_CLIP = 12
_CACHE_BYTES = 2 * 2**30

PairOfFrames = tuple[Frame, Frame]
Progress = Callable[[], None]


class DecodedImages:
    """Decoded images by path, the least recently used dropped beyond `max_bytes`."""

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._frames: OrderedDict[Path, Frame] = OrderedDict()

    def __call__(self, path: Path) -> Frame:
        if path in self._frames:
            self._frames.move_to_end(path)
            return self._frames[path]
        frame = read_image(path)
        self._frames[path] = frame
        self._bytes += frame.nbytes
        while self._bytes > self._max_bytes and len(self._frames) > 1:
            _, dropped = self._frames.popitem(last=False)
            self._bytes -= dropped.nbytes
        return frame


@dataclass(frozen=True)
class TrainingData:
    """What the folders given on the command line hold.

    pairs: (blurred, sharp) files to train on. held_out: those kept for validation. stills: sharp images.
    windows: (blurred, sharp) frames averaged from clips. names: of the folders, for the model card.
    """

    pairs: Sequence[Pair]
    held_out: Sequence[Pair]
    stills: Sequence[Path]
    windows: Sequence[PairOfFrames]
    names: tuple[str, ...]


def open_training_data(
    pairs: Path | None = None,
    stills: Path | None = None,
    clips: Path | None = None,
    *,
    hold_out: int = 0,
    advance: Progress = lambda: None,
) -> TrainingData:
    """List and decode everything once, so that a corrupt file stops the run before it starts.

    hold_out: how many pairs, the last by name, are kept from training. advance: called once per file read.
    Raises BadInput that names the first file which is missing, unpaired, damaged or differently sized.
    """
    found = find_pairs(pairs) if pairs else []
    sharp_stills = list_images(stills) if stills else []
    clip_files = _list_clips(clips) if clips else []
    if not (found or sharp_stills or clip_files):
        raise BadInput("nothing to train on: give --data (pairs), --stills or --clips")
    if pairs and len(found) <= hold_out:
        raise BadInput(f"{pairs} has {len(found)} pairs, no more than the {hold_out} to hold out (--hold-out)")
    _decode_all([path for pair in found for path in (pair.blurred, pair.sharp)] + sharp_stills, advance)
    windows = [window for clip in clip_files for window in _clip_windows(clip, advance)]
    split = len(found) - hold_out
    names = tuple(folder.name for folder in (pairs, stills, clips) if folder)
    return TrainingData(found[:split], found[split:], sharp_stills, windows, names)


class CropDataset(Dataset[tuple[Tensor, Tensor]]):
    """Sample `index` is a (blurred, sharp) pair of float32 (3, crop, crop) in [0, 1]."""

    def __init__(self, data: TrainingData, recipe: Recipe, length: int) -> None:
        self._data = data
        self._recipe = recipe
        self._length = length
        self._image = DecodedImages()
        self._kinds, self._shares = _available(data, recipe)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self._recipe.seed, index])
        kind = self._kinds[int(rng.choice(len(self._kinds), p=self._shares))]
        blurred, sharp = self._draw(kind, rng)
        turns, mirror = _orientation(self._recipe.augmentation, rng)
        return _tensor(blurred, turns, mirror), _tensor(sharp, turns, mirror)

    def _draw(self, kind: str, rng: np.random.Generator) -> PairOfFrames:
        crop = self._recipe.crop
        if kind == "real":
            pair = self._data.pairs[int(rng.integers(len(self._data.pairs)))]
            return _same_crop(self._image(pair.blurred), self._image(pair.sharp), crop, rng)
        if kind == "frames":
            blurred, sharp = self._data.windows[int(rng.integers(len(self._data.windows)))]
            return _same_crop(blurred, sharp, crop, rng)
        still = self._image(self._data.stills[int(rng.integers(len(self._data.stills)))])
        area, _ = _same_crop(still, still, crop + 2 * REACH_PX, rng)
        blurred, sharp = camera_shake(area, rng) if kind == "shake" else (lens_blur(area, rng), area)
        inner = slice(REACH_PX, REACH_PX + crop)
        return blurred[inner, inner], sharp[inner, inner]


def validation_frames(data: TrainingData, recipe: Recipe, crop: int) -> list[PairOfFrames]:
    """Fixed pairs for validation: centre crops of the held-out pairs, or else of shaken stills."""
    if data.held_out:
        frames = [(read_image(pair.blurred), read_image(pair.sharp)) for pair in data.held_out]
        return [(_centre(blurred, crop), _centre(sharp, crop)) for blurred, sharp in frames]
    if data.stills:
        rng = np.random.default_rng([recipe.seed, 0, 1])
        return [camera_shake(_centre(read_image(path), crop), rng) for path in data.stills[-4:]]
    return [(_centre(blurred, crop), _centre(sharp, crop)) for blurred, sharp in data.windows[-4:]]


def _available(data: TrainingData, recipe: Recipe) -> tuple[list[str], NDArray[np.float64]]:
    counts = {"real": data.pairs, "shake": data.stills, "frames": data.windows, "lens": data.stills}
    shares = {kind: share for kind, share in asdict(recipe.mix).items() if counts[kind] and share > 0}
    if not shares:
        raise BadInput("the recipe's mix gives no share to any kind of data that was given")
    weights = np.array(list(shares.values()))
    return list(shares), weights / weights.sum()


def _same_crop(blurred: Frame, sharp: Frame, crop: int, rng: np.random.Generator) -> PairOfFrames:
    """One random square of both images; images smaller than it are mirrored outward first."""
    blurred, sharp = _at_least(blurred, crop), _at_least(sharp, crop)
    top = int(rng.integers(blurred.shape[0] - crop + 1))
    left = int(rng.integers(blurred.shape[1] - crop + 1))
    area = (slice(top, top + crop), slice(left, left + crop))
    return blurred[area], sharp[area]


def _at_least(frame: Frame, side: int) -> Frame:
    height, width = frame.shape[:2]
    if height >= side and width >= side:
        return frame
    missing = ((0, max(0, side - height)), (0, max(0, side - width)), (0, 0))
    return np.asarray(np.pad(frame, missing, mode="symmetric"))


def _centre(frame: Frame, crop: int) -> Frame:
    """The centre, at most `crop` square, with sides that are multiples of 16 where the image allows."""
    height, width = (min(crop, side) // 16 * 16 or side for side in frame.shape[:2])
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    return np.ascontiguousarray(frame[top : top + height, left : left + width])


def _orientation(augmentation: Augmentation, rng: np.random.Generator) -> tuple[int, bool]:
    """Quarter turns, and whether to mirror left and right."""
    turns = int(rng.integers(4)) if augmentation == "turns" else 0
    return turns, augmentation != "none" and bool(rng.integers(2))


def _tensor(frame: Frame, turns: int, mirror: bool) -> Tensor:
    turned = np.rot90(frame, turns)
    oriented = turned[:, ::-1] if mirror else turned
    return torch.from_numpy(np.ascontiguousarray(oriented.transpose(2, 0, 1))).float().div_(255)


def _decode_all(paths: Sequence[Path], advance: Progress) -> None:
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(read_image, paths):
            advance()


def _list_clips(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder of clips")
    clips = sorted(path for path in folder.iterdir() if path.suffix.lower() in CLIP_SUFFIXES)
    if not clips:
        raise BadInput(f"{folder} holds no clips ({', '.join(sorted(CLIP_SUFFIXES))})")
    return clips


def _clip_windows(clip: Path, advance: Progress) -> Iterator[PairOfFrames]:
    """Evenly spaced windows of a clip, averaged; only one window of frames is held at a time."""
    rng = np.random.default_rng(list(clip.name.encode()))
    total = _frame_count(clip)
    window: list[Frame] = []
    starts = set(np.linspace(0, max(0, total - WINDOW_FRAMES[-1]), _WINDOWS_PER_CLIP).astype(int).tolist())
    length = 0
    for index, frame in enumerate(_decode(clip)):
        if index in starts and not window:
            length = int(rng.choice(WINDOW_FRAMES))
        if length:
            window.append(frame)
        if length and len(window) == length:
            yield average_frames(window), window[length // 2]
            window, length = [], 0
    advance()


def _frame_count(clip: Path) -> int:
    return sum(1 for _ in _decode(clip))


def _decode(clip: Path) -> Iterator[Frame]:
    try:
        with open_container(clip) as container:
            for frame in container.decode(video=0):
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.FFmpegError, IndexError) as error:
        raise BadInput(f"{clip} cannot be decoded: {error}") from error
