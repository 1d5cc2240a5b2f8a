"""Write the images that the shipped bundles are calibrated on: crops of photographs from scikit-image.

    python docs/calibration_images.py FOLDER

They show what cameras see (people, animals, machines, text, textures) and what they rarely see (stars, tissue), so
that the ranges fit many kinds of image, and anybody can make the same bundles again.
"""

import sys
from importlib.resources import files
from pathlib import Path

import numpy as np

from unblur.runtime import read_image, write_image

PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg"),
)
SIDE = 160  # pixels
MOST_CROPS = 8  # per photograph, spread over it


def write_crops(folder: Path) -> int:
    """Write the crops as PNG files into `folder`, which is made; returns how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name in PHOTOGRAPHS:
        image = read_image(Path(str(files("skimage"))) / "data" / name)
        corners = [(top, left) for top in _starts(image.shape[0]) for left in _starts(image.shape[1])]
        for top, left in corners[:: -(-len(corners) // MOST_CROPS)]:
            crop = np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE])
            write_image(folder / f"{Path(name).stem}_{top}_{left}.png", crop)
            count += 1
    return count


def _starts(length: int) -> range:
    return range(0, length - SIDE + 1, SIDE)


if __name__ == "__main__":
    print(f"{write_crops(Path(sys.argv[1]))} images")
