"""Find pairs of a blurred and a sharp image in the folder layouts of the public data sets.

    pairs = find_pairs(Path("GOPRO_Large/test"))
    check_pairs(pairs)
    blurred_rgb, sharp_rgb = read_pair(pairs[0])

Layouts, tried in this order:
  RealBlur  a list file `*_list.txt` of lines `GT BLUR`, paths beside it; or give the list file itself
  Koehler   `**/Blurry1_2.png` and `**/GroundTruth1_2_*.png`: the trajectory's middle frame is the sharp one
  HIDE      `GT/` beside `train/` or `test/*/`; or give `train` or `test` itself
  GoPro     `**/blur/*` and `**/sharp/*`, also plain; also named `blurred`, `blurry` or `input`, `target` or `gt`
"""

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from unblur.runtime.errors import BadInput
from unblur.runtime.frames import Frame
from unblur.runtime.images import image_size_hw, is_image_path, read_image

_BLURRED_FOLDERS = ("blur", "blurred", "blurry", "input")
_SHARP_FOLDERS = ("sharp", "target", "gt")
_HIDE_SHARP = "GT"
_HIDE_SPLITS = ("train", "test")
_KOEHLER_BLURRED = re.compile(r"Blurry(\d+_\d+)")
_KOEHLER_SHARP = re.compile(r"GroundTruth(\d+_\d+)_(\d+)")


@dataclass(frozen=True)
class Pair:
    """A blurred image and its sharp reference, of one size.

    name: unique among the pairs found together, e.g. "GOPR0384_11_00/000001".
    trajectory: Koehler's set has a sharp frame for every point of the camera's path, in order; `sharp` is the
        middle one. Empty elsewhere.
    """

    name: str
    blurred: Path
    sharp: Path
    trajectory: tuple[Path, ...] = ()


def find_pairs(folder: Path) -> list[Pair]:
    """All pairs under `folder` (or in a RealBlur list file), sorted by name.

    Sizes are compared by the headers; the images are not decoded, see `check_pairs`.
    Raises BadInput that names the files: one without a partner, partners of different sizes, no image at
    all, or no known layout.
    """
    if not folder.exists():
        raise BadInput(f"{folder} does not exist; expected a folder with pairs of images")
    if folder.is_file():
        pairs = _listed_pairs(folder)
    else:
        pairs = _realblur_pairs(folder) or _koehler_pairs(folder) or _hide_pairs(folder) or _beside(folder)
    if not pairs:
        raise BadInput(f"{folder} holds no pairs; expected images in blur/ and sharp/ (or input/ and target/)")
    for pair in pairs:
        _check_sizes(pair, image_size_hw(pair.blurred), image_size_hw(pair.sharp))
    return sorted(pairs, key=lambda pair: pair.name)


def read_pair(pair: Pair) -> tuple[Frame, Frame]:
    """Decode (blurred, sharp), both uint8 (H, W, 3); BadInput names a file that cannot be used."""
    blurred, sharp = read_image(pair.blurred), read_image(pair.sharp)
    _check_sizes(pair, blurred.shape[:2], sharp.shape[:2])
    return blurred, sharp


def check_pairs(pairs: Sequence[Pair], progress: Callable[[], object] | None = None) -> None:
    """Decode every image; BadInput names the first that is damaged. Calls `progress` once a pair."""

    def decode(pair: Pair) -> None:
        read_pair(pair)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(decode, pairs):
            if progress is not None:
                progress()


def _realblur_pairs(folder: Path) -> list[Pair]:
    lists = sorted(folder.glob("*_list.txt"))
    if len(lists) > 1:
        names = ", ".join(path.name for path in lists)
        raise BadInput(f"{folder} holds several lists of pairs ({names}); give the one you mean, not the folder")
    return _listed_pairs(lists[0]) if lists else []


def _listed_pairs(list_file: Path) -> list[Pair]:
    try:
        lines = list_file.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"{list_file} is not a list of pairs; expected lines of two paths") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        columns = line.split()
        if not columns:
            continue
        if len(columns) < 2:
            raise BadInput(f"{list_file} line {number} is '{line}'; expected two paths, sharp then blurred")
        sharp, blurred = (list_file.parent / column for column in columns[:2])
        for path in (sharp, blurred):
            if not path.is_file():
                raise BadInput(f"{list_file} line {number} names {path}, which does not exist")
        pairs.append(Pair(Path(columns[1]).with_suffix("").as_posix(), blurred, sharp))
    return pairs


def _koehler_pairs(folder: Path) -> list[Pair]:
    frames: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.rglob("GroundTruth*_*_*.png"):
        if match := _KOEHLER_SHARP.fullmatch(path.stem):
            frames.setdefault(match[1], []).append((int(match[2]), path))
    pairs = []
    for path in sorted(folder.rglob("Blurry*_*.png")):
        if match := _KOEHLER_BLURRED.fullmatch(path.stem):
            if match[1] not in frames:
                raise BadInput(f"{path} has no sharp partner; expected GroundTruth{match[1]}_*.png in {folder}")
            trajectory = tuple(sharp for _, sharp in sorted(frames[match[1]]))
            pairs.append(Pair(path.stem, path, trajectory[(len(trajectory) - 1) // 2], trajectory))
    return pairs


def _hide_pairs(folder: Path) -> list[Pair]:
    root = next((up for up in (folder, *folder.resolve().parents[:2]) if (up / _HIDE_SHARP).is_dir()), None)
    if root is None or not any((root / split).is_dir() for split in _HIDE_SPLITS):
        return []
    tops = [folder / split for split in _HIDE_SPLITS] if root == folder else [folder]
    pairs = []
    for path in (path for top in tops for path in sorted(top.rglob("*")) if is_image_path(path)):
        sharp = root / _HIDE_SHARP / path.name
        if not sharp.is_file():
            raise BadInput(f"{path} has no sharp partner; expected {sharp}")
        pairs.append(Pair(_name(path, folder), path, sharp))
    return pairs


def _beside(folder: Path) -> list[Pair]:
    """GoPro and plain: a blurred and a sharp folder beside each other, at any depth."""
    pairs = []
    for parent in [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]:
        blurred, sharp = _child(parent, _BLURRED_FOLDERS), _child(parent, _SHARP_FOLDERS)
        if blurred is not None and sharp is not None:
            pairs += _by_name(folder, blurred, sharp)
        elif blurred is not None:
            raise BadInput(f"{blurred} has no folder of sharp images beside it; expected {parent / 'sharp'}")
        elif sharp is not None:
            raise BadInput(f"{sharp} has no folder of blurred images beside it; expected {parent / 'blur'}")
    return pairs


def _child(parent: Path, names: Iterable[str]) -> Path | None:
    """The first folder of those names that holds a picture."""
    for path in (parent / name for name in names):
        if path.is_dir() and any(is_image_path(file) for file in path.iterdir()):
            return path
    return None


def _by_name(folder: Path, blurred_folder: Path, sharp_folder: Path) -> list[Pair]:
    blurred, sharp = _by_key(blurred_folder), _by_key(sharp_folder)
    for key in sorted(blurred.keys() ^ sharp.keys()):
        found, other = (blurred[key], sharp_folder) if key in blurred else (sharp[key], blurred_folder)
        raise BadInput(f"{found} has no partner of that name in {other}; add it or remove this one")
    scene = blurred_folder.parent.relative_to(folder)
    return [Pair((scene / key).as_posix(), path, sharp[key]) for key, path in blurred.items()]


def _by_key(folder: Path) -> dict[str, Path]:
    """Images by the stem that partners share. RealBlur repeats the folder in it: `blur/blur_1`, `gt/gt_1`."""
    pictures: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not is_image_path(path) or path.name.startswith("."):
            continue
        key = path.stem.removeprefix(f"{folder.name}_")
        if key in pictures:
            raise BadInput(f"{pictures[key]} and {path} would pair with the same image; remove one")
        pictures[key] = path
    return pictures


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _check_sizes(pair: Pair, blurred_hw: tuple[int, ...], sharp_hw: tuple[int, ...]) -> None:
    if blurred_hw != sharp_hw:
        raise BadInput(
            f"{pair.blurred} is {blurred_hw[0]} x {blurred_hw[1]} (height x width) but its partner "
            f"{pair.sharp} is {sharp_hw[0]} x {sharp_hw[1]}"
        )
