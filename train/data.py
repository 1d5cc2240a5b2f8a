"""Training data: folders of pairs, stills and clips; crops of them, each a function of (seed, number) alone."""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import list_images, read_image
from unblur.runtime.media.container import open_container
from unblur.runtime.quality.pairs import Pair, find_pairs
from unblur.train.blur import REACH_PX, WINDOW_FRAMES, average_frames, lens_blur, moving_scene
from unblur.train.recipe import Recipe

CLIP_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"})
MIN_CLIP_FPS = 100
"""Below that the positions of a moving edge lie so far apart that they show in an average; GoPro has 240."""

SPARE_PX = 32
"""By so much a prepared crop is larger than the training crop, which is another part of it at every use."""

_WINDOWS = 128  # of all clips, decoded in memory
_LEAST_WINDOWS = 4  # of a clip
_MIN_STILL_SCALE = 0.45  # stills are shrunk at random, which makes them sharper
_CACHE_BYTES = 2 * 2**30
_ENDLESS = 10**12
_log = logging.getLogger(__name__)

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

    pairs: (blurred, sharp) files to train on. stills: sharp images. windows: (blurred, sharp) frames averaged from
    clips. held_out, held_out_stills: pairs, and stills to be shaken, kept for validation.
    names: of the folders, for the model card.
    """

    pairs: Sequence[Pair]
    stills: Sequence[Path]
    windows: Sequence[PairOfFrames]
    held_out: Sequence[Pair]
    held_out_stills: Sequence[Path]
    names: tuple[str, ...]


@dataclass(frozen=True)
class HoldOut:
    """What is kept from training, to decide by.

    pairs: the last by name of the first folder. matching: also pairs with one of these texts in their path.
    stills: the last by name of the last folder.
    """

    pairs: int = 0
    matching: tuple[str, ...] = ()
    stills: int = 0

    def takes(self, pair: Pair) -> bool:
        return any(text in str(pair.blurred) for text in self.matching)


def open_training_data(
    pairs: Sequence[Path] = (),
    stills: Sequence[Path] = (),
    clips: Sequence[Path] = (),
    *,
    hold_out: HoldOut = HoldOut(),
    advance: Progress = lambda: None,
) -> TrainingData:
    """List and decode everything once, so that a corrupt file stops the run before it starts.

    Each is a list of folders. Clips slower than 100 frames/s are skipped with a warning.
    advance: called once per file read.
    Raises BadInput that names the first file which is missing, unpaired, damaged or differently sized.
    """
    folders = [find_pairs(folder) for folder in pairs]
    found = [pair for folder in folders for pair in folder]
    sharp_stills = [path for folder in stills for path in list_images(folder)]
    clip_files = [clip for folder in clips for clip in _list_clips(folder)]
    held = set(folders[0][-hold_out.pairs :] if folders and hold_out.pairs else ())
    held |= {pair for pair in found if hold_out.takes(pair)}
    if found and len(held) == len(found):
        raise BadInput(f"all {len(found)} pairs of {pairs[0]} would be held out; lower --hold-out")
    if sharp_stills and len(sharp_stills) <= hold_out.stills:
        raise BadInput(f"all {len(sharp_stills)} stills would be held out; lower --hold-out-stills")
    _decode_all([path for pair in found for path in (pair.blurred, pair.sharp)] + sharp_stills, advance)
    per_clip = max(_LEAST_WINDOWS, _WINDOWS // max(len(clip_files), 1))
    windows = [window for clip in clip_files for window in _clip_windows(clip, per_clip, advance)]
    split = len(sharp_stills) - hold_out.stills
    train_pairs = [pair for pair in found if pair not in held]
    if not (train_pairs or sharp_stills[:split] or windows):
        raise BadInput("nothing to train on: give --data (pairs), --stills or --clips (100 frames/s and more)")
    return TrainingData(
        pairs=train_pairs,
        stills=sharp_stills[:split],
        windows=windows,
        held_out=[pair for pair in found if pair in held],
        held_out_stills=sharp_stills[split:],
        names=tuple(folder.name for folder in (*pairs, *stills, *clips)),
    )


class CropDataset(Dataset[Tensor]):
    """Crop `number` is a pair (blurred, sharp) as uint8 (2, side, side, 3). side: of the training crop, and 32
    px more with augmentation.

    A function of the recipe's seed and the number alone. Raises BadInput if the recipe's mix leaves nothing.
    """

    def __init__(self, data: TrainingData, recipe: Recipe) -> None:
        self.side = recipe.crop + (0 if recipe.augmentation == "none" else SPARE_PX)
        self._data = data
        self._seed = recipe.seed
        self._image = DecodedImages()
        self._kinds, self._shares = _available(data, recipe)

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, number: int) -> Tensor:
        rng = np.random.default_rng([self._seed, number])
        kind = self._kinds[int(rng.choice(len(self._kinds), p=self._shares))]
        return torch.from_numpy(np.stack(self._draw(kind, rng)))

    def _draw(self, kind: str, rng: np.random.Generator) -> PairOfFrames:
        if kind == "real":
            pair = self._data.pairs[int(rng.integers(len(self._data.pairs)))]
            return _same_crop(self._image(pair.blurred), self._image(pair.sharp), self.side, rng)
        if kind == "frames":
            blurred, sharp = self._data.windows[int(rng.integers(len(self._data.windows)))]
            return _same_crop(blurred, sharp, self.side, rng)
        still, texture = self._still(rng), self._still(rng)
        blurred, sharp = moving_scene(still, rng, texture) if kind == "shake" else (lens_blur(still, rng), still)
        inner = slice(REACH_PX, REACH_PX + self.side)
        return blurred[inner, inner], sharp[inner, inner]

    def _still(self, rng: np.random.Generator) -> Frame:
        """A square of a still, shrunk at random, with a border for the blur to reach into."""
        still = self._image(self._data.stills[int(rng.integers(len(self._data.stills)))])
        side, shortest = self.side + 2 * REACH_PX, min(still.shape[:2])
        scale = max(_MIN_STILL_SCALE, side / shortest) if shortest > side else 1.0
        area, _ = _same_crop(still, still, min(int(side / rng.uniform(scale, 1)), max(shortest, side)), rng)
        shrunk = Image.fromarray(area).resize((side, side), Image.Resampling.BOX, reducing_gap=None)
        return np.asarray(shrunk, np.uint8)


def validation_frames(data: TrainingData, crop: int) -> list[PairOfFrames]:
    """Fixed pairs for validation: centre crops of the held-out pairs and of the held-out stills, shaken.

    The same for every recipe and seed, so that runs can be compared. Without either, of the last stills or windows
    that are trained on.
    """
    frames = [(read_image(pair.blurred), read_image(pair.sharp)) for pair in data.held_out]
    rng = np.random.default_rng([0, 0, 1])
    stills = data.held_out_stills or ([] if frames else data.stills[-4:])
    if not frames and not stills:
        frames = list(data.windows[-4:])
    shaken = [moving_scene(_centre(read_image(path), crop), rng) for path in stills]
    return [(_centre(blurred, crop), _centre(sharp, crop)) for blurred, sharp in frames] + shaken


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


def _clip_windows(clip: Path, most: int, advance: Progress) -> Iterator[PairOfFrames]:
    """Evenly spaced windows of a fast clip, averaged, half of them in linear light; none of a slow clip."""
    rate = _rate(clip)
    if rate < MIN_CLIP_FPS:
        _log.warning("%s has %.0f frames/s and is skipped; under %d averages show gaps", clip, rate, MIN_CLIP_FPS)
        return
    rng = np.random.default_rng(list(clip.name.encode()))
    total = sum(1 for _ in _decode(clip))
    ends = np.unique(np.linspace(min(WINDOW_FRAMES[-1], total), total, most).astype(int)).tolist()
    lengths = dict(zip(ends, rng.choice(WINDOW_FRAMES, len(ends)).tolist(), strict=True))
    latest: deque[Frame] = deque(maxlen=WINDOW_FRAMES[-1])
    for count, frame in enumerate(_decode(clip), start=1):
        latest.append(frame)
        if count >= lengths.get(count, _ENDLESS):
            window = list(latest)[-lengths[count] :]
            yield average_frames(window, float(rng.choice((1.0, 2.2)))), window[len(window) // 2]
    advance()


def _rate(clip: Path) -> float:
    """Frames per second, 0 where the container does not say."""
    try:
        with open_container(clip) as container:
            return float(container.streams.video[0].average_rate or 0)
    except (av.FFmpegError, IndexError) as error:
        raise BadInput(f"{clip} cannot be decoded: {error}") from error


def _decode(clip: Path) -> Iterator[Frame]:
    try:
        with open_container(clip) as container:
            for frame in container.decode(video=0):
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.FFmpegError, IndexError) as error:
        raise BadInput(f"{clip} cannot be decoded: {error}") from error
