"""What the README says works as it says it: blocks run as written, links lead somewhere, the table is the help."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from unblur.runtime.blur import shake_frame
from unblur.runtime.images import read_image, write_image
from unblur.runtime.media.open_media import open_sink, open_source

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
CAMERA = (ROOT / "docs/camera.md").read_text()
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"(?:<!-- (?P<not_run>not run: .+?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")  # within the repository


@dataclass(frozen=True)
class Section:
    """The blocks under one heading that are run, as (language, text): what a reader types one after the other."""

    heading: str
    blocks: tuple[tuple[str, str], ...]


def sections() -> Iterator[Section]:
    for part in re.split(r"^## ", README + CAMERA, flags=re.MULTILINE)[1:]:
        blocks = tuple((block["language"], block["text"]) for block in BLOCK.finditer(part) if not block["not_run"])
        if blocks:
            yield Section(part.splitlines()[0], blocks)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the README speaks of, small: blurred.jpg, clip.mp4, photos/ and pairs/."""
    rng = np.random.default_rng(0)
    for name in ("photos", "pairs/blur", "pairs/sharp"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("astronaut.png", "chelsea.png", "coffee.png"):
        photo = read_image(Path(str(files("skimage"))) / "data" / name)[100:164, 100:196]
        write_image(tmp_path / "photos" / name, photo)
        write_image(tmp_path / "pairs/sharp" / name, photo)
        write_image(tmp_path / "pairs/blur" / name, shake_frame(photo, rng, 8.0))
    write_image(tmp_path / "blurred.jpg", shake_frame(photo, rng, 8.0))
    with (
        open_source(str(tmp_path / "photos")) as photos,
        open_sink(str(tmp_path / "clip.mp4"), photos.info) as clip,
    ):
        for frame in photos:
            clip.write(frame)
        clip.finish(complete=True)
    return tmp_path


@pytest.mark.timeout(900)  # a section trains, exports and deploys: a minute of two free cores
@pytest.mark.parametrize("section", list(sections()), ids=lambda section: section.heading)
def test_the_blocks_of_a_section_run_as_written(section: Section, folder: Path) -> None:
    interpreter = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-W", "error", "-c"]}
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for language, text in section.blocks:
        command = [*interpreter[language], text]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_some_blocks_are_run() -> None:
    headings = [section.heading for section in sections()]
    assert headings == [
        "Use it",
        "Make a bundle of your own",
        "How fast, how sure, and why",
        "Train",
        "Watching it",
    ]


def test_ci_runs_the_two_commands() -> None:
    first = next(block["text"] for block in BLOCK.finditer(README))
    assert first.split() == ["make", "demo", "make", "test"]
    steps = re.findall(r"^step (make \w+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert {"make lint", "make demo", "make test"} <= set(steps)


def test_every_link_leads_to_a_file() -> None:
    links = [(document, link) for document in DOCUMENTS for link in LINK.findall(document.read_text())]
    targets = {(document.parent / link).resolve() for document, link in links}
    assert ROOT / "LICENSE" in targets
    assert {target for target in targets if not target.exists()} == set()


def test_every_script_that_is_named_is_there() -> None:
    modules = set(re.findall(r"`python -m ([\w.]+)", README))
    assert modules
    scripts = {ROOT / module.replace(".", "/") for module in modules}
    assert {script for script in scripts if not script.with_suffix(".py").is_file()} == set()


def test_the_command_table_is_the_help() -> None:
    table = dict(re.findall(r"^\| `unblur (\w+)` \| (.+?) \|$", README, re.MULTILINE))
    command = [Path(sys.executable).with_name("unblur"), "--help"]
    environment = os.environ | {"COLUMNS": "250", "TERM": "dumb"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert table == dict(re.findall(r"^│ (\w+) +(.+?) +│$", done.stdout, re.MULTILINE))


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE)) <= targets
