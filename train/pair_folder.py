"""Folders of pairs to train on or to evaluate with, made from fast clips or from stills.

    pairs_from_clip(Path("walk.mp4"), Path("pairs"), seed=0)      ->  pairs/walk/{blur,sharp}/000012.png
    pairs_from_stills(stills, Path("pairs"), Synthesis(seed=0))   ->  pairs/{blur,sharp}/kodak_07_0.png

The layouts are GoPro's and the plain one, which `find_pairs` reads. What is there already from the same settings is
kept, so that a run that was stopped goes on when it is started again.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from unblur.runtime.errors import BadInput
from unblur.runtime.files import atomic_file, atomic_folder, make_folder
from unblur.runtime.frames import Frame, eight_bits
from unblur.runtime.images import image_size_hw, read_image, write_image
from unblur.runtime.media.interfaces import Source
from unblur.runtime.media.open_media import open_source
from unblur.train.blur import REACH_PX, WINDOW_FRAMES, average_frames, lens_blur, moving_scene

SETTINGS_FILE = "pairs.json"
MIN_RATE = 100
"""Frames per second below which the positions of a moving edge lie so far apart that they show; GoPro has 240."""

_MIN_SIDE = 16 + 2 * REACH_PX  # the smallest training crop and what is cut off around it
_KINDS = ("blur", "sharp")
_log = logging.getLogger(__name__)

Progress = Callable[[], object]


@dataclass(frozen=True)
class Synthesis:
    """How stills are blurred. per_still: pairs of each. lens: the share of blur by the lens instead of a shake."""

    seed: int = 0
    per_still: int = 1
    lens: float = 0.1


def pairs_from_clip(clip: Path, folder: Path, *, seed: int, advance: Progress = lambda: None) -> int:
    """Average windows of consecutive frames of a clip, or of a folder of frames; how many pairs there are then.

    The windows follow each other without overlap, each of a random odd length; the mean is taken in linear light
    (gamma 2.2). The sharp partner is the frame in the middle, after whose number in the clip a pair is named.
    The scene appears as a whole at the end. advance: called once a frame.
    Raises BadInput if the clip cannot be read whole or is shorter than 23 frames, or if the scene is there from
    other settings.
    """
    scene, settings = folder / scene_name(clip), {"clip": clip.name, "seed": seed}
    if scene.exists():
        _check_settings(scene, settings)
        return len(list((scene / "sharp").iterdir()))
    rng = np.random.default_rng([seed, *clip.name.encode()])
    pairs = 0
    with open_source(str(clip)) as source, atomic_folder(scene) as temporary:
        _check_source(source, clip)
        for kind in _KINDS:
            make_folder(temporary / kind)
        for number, window in _windows(source, clip, rng, advance):
            _write_pair(temporary, f"{number:06d}", average_frames(window), window[len(window) // 2])
            pairs += 1
        _write_settings(temporary, settings)
    return pairs


def pairs_from_stills(
    stills: Sequence[Path], folder: Path, synthesis: Synthesis, *, advance: Progress = lambda: None
) -> int:
    """Blur sharp images by random camera shakes and lenses; how many pairs that are.

    A border of 32 px is cut off, where the blur holds what lies outside of the still. Each pair is a function of
    the seed, the name of its still and its number, whichever stills go with it. advance: called once a pair.
    Raises BadInput if a still cannot be read or is too small, or if `folder` holds pairs from other settings.
    """
    _check_stills(stills)
    settings = asdict(synthesis)
    make_folder(folder)
    if any((folder / name).exists() for name in (SETTINGS_FILE, *_KINDS)):
        _check_settings(folder, settings)
    else:
        _write_settings(folder, settings)
    for kind in _KINDS:
        make_folder(folder / kind)
    jobs = [(path, number) for path in stills for number in range(synthesis.per_still)]

    def make(job: tuple[Path, int]) -> None:
        path, number = job
        name = f"{path.stem}_{number}"
        if not all((folder / kind / f"{name}.png").exists() for kind in _KINDS):
            rng = np.random.default_rng([synthesis.seed, number, *path.name.encode()])
            _write_pair(folder, name, *_blurred_and_sharp(read_image(path), rng, synthesis.lens))

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(make, jobs):
            advance()
    return len(jobs)


def scene_name(clip: Path) -> str:
    """The folder of a clip's pairs: the name of the file without its suffix, or of the folder of frames."""
    return clip.name if clip.is_dir() else clip.stem


def _check_source(source: Source, clip: Path) -> None:
    if source.info.size_hw is None:
        raise BadInput(f"{clip} holds images of different sizes; expected the frames of one clip")
    if source.info.kind == "video" and source.info.rate < MIN_RATE:
        rate = float(source.info.rate)
        _log.warning("%s has %.0f frames/s; under %d their mean shows gaps, not blur", clip, rate, MIN_RATE)


def _windows(
    source: Source, clip: Path, rng: np.random.Generator, advance: Progress
) -> Iterator[tuple[int, list[Frame]]]:
    """Windows of frames, each with the number of its middle frame in the clip, the first being 1."""
    window: list[Frame] = []
    length, number = int(rng.choice(WINDOW_FRAMES)), 0
    for number, frame in enumerate(source, start=1):
        advance()
        window.append(eight_bits(frame.rgb))
        if len(window) == length:
            yield number - length // 2, window
            window, length = [], int(rng.choice(WINDOW_FRAMES))
    if source.lost_frames:
        raise BadInput(
            f"{clip} has {source.lost_frames} damaged frames, where a mean would jump; cut it there first"
        )
    if number < WINDOW_FRAMES[-1]:
        raise BadInput(f"{clip} has {number} frames; up to {WINDOW_FRAMES[-1]} are averaged, give a longer clip")


def _check_stills(stills: Sequence[Path]) -> None:
    names: dict[str, Path] = {}
    for path in stills:
        height, width = image_size_hw(path)
        if min(height, width) < _MIN_SIDE:
            raise BadInput(f"{path} is {height} x {width}; expected at least {_MIN_SIDE} pixels a side")
        if names.setdefault(path.stem, path) != path:
            raise BadInput(f"{names[path.stem]} and {path} would become one pair; rename one")


def _blurred_and_sharp(still: Frame, rng: np.random.Generator, lens: float) -> tuple[Frame, Frame]:
    blurred, sharp = (lens_blur(still, rng), still) if rng.random() < lens else moving_scene(still, rng)
    inner = slice(REACH_PX, -REACH_PX)
    return blurred[inner, inner], sharp[inner, inner]


def _write_pair(folder: Path, name: str, blurred: Frame, sharp: Frame) -> None:
    for kind, frame in zip(_KINDS, (blurred, sharp), strict=True):
        write_image(folder / kind / f"{name}.png", frame)


def _write_settings(folder: Path, settings: Mapping[str, object]) -> None:
    with atomic_file(folder / SETTINGS_FILE) as temporary:
        temporary.write_text(json.dumps(settings, sort_keys=True) + "\n")


def _check_settings(folder: Path, settings: Mapping[str, object]) -> None:
    """BadInput unless the pairs that are there already were made in the same way."""
    path = folder / SETTINGS_FILE
    found = path.read_text().strip() if path.is_file() else "nothing that says how"
    expected = json.dumps(settings, sort_keys=True)
    if found != expected:
        raise BadInput(f"{folder} holds pairs made with {found}, asked for {expected}; choose another folder")
