"""What README and docs say is so: blocks run as written, links and paths exist, imports use the public API."""

import ast
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
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
EXAMPLES = (ROOT / "docs/demo.py",)
NOT_RUN = {"jetson.md", "profiling.md"}  # take a Jetson; measure for minutes
FRONT_DOORS = {"unblur.calibration", "unblur.export", "unblur.runtime", "unblur.train"}
README_WORDS = 1600
BLOCK = re.compile(r"(?:<!-- (?P<not_run>not run: .+?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^):]*)\)")  # within the repository
PATH = re.compile(r"`((?:benchmarks|calibration|docs|export|runtime|tests|train)/[\w./]+)`")


@dataclass(frozen=True)
class Section:
    """The blocks under one heading that are run, as (language, text): what a reader types one after the other."""

    name: str
    blocks: tuple[tuple[str, str], ...]


def sections() -> Iterator[Section]:
    for page in PAGES:
        if page.name in NOT_RUN:
            continue
        for part in re.split(r"^## ", page.read_text(), flags=re.MULTILINE):
            blocks = tuple(
                (block["language"], block["text"]) for block in BLOCK.finditer(part) if not block["not_run"]
            )
            if blocks:
                yield Section(f"{page.stem}: {part.splitlines()[0]}", blocks)


def find_all(pattern: str) -> set[str]:
    """Every match of the pattern's one group, on any page."""
    return {match for page in PAGES for match in re.findall(pattern, page.read_text(), re.MULTILINE)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with small versions of the files named on the pages: blurred.jpg, clip.mp4, photos/ and pairs/."""
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


@pytest.mark.timeout(900)  # a section trains, exports and deploys: a minute on two free cores
@pytest.mark.parametrize("section", list(sections()), ids=lambda section: section.name)
def test_the_blocks_of_a_section_run_as_written(section: Section, folder: Path) -> None:
    interpreter = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-W", "error", "-c"]}
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for language, text in section.blocks:
        command = [*interpreter[language], text]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_blocks_are_found_and_run() -> None:
    names = {section.name for section in sections()}
    assert {"README: Use", "training: # Training", "camera: In Python"} <= names


def test_the_readme_is_short() -> None:
    assert len(README.read_text().split()) <= README_WORDS


def test_ci_runs_the_two_commands() -> None:
    blocks = [block["text"].split() for block in BLOCK.finditer(README.read_text())]
    assert ["make", "demo", "make", "test"] in blocks
    steps = re.findall(r"^step (make \w+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert {"make lint", "make demo", "make test"} <= set(steps)


def test_imports_are_from_the_public_api() -> None:
    blocks = [(page.name, block) for page in PAGES for block in BLOCK.finditer(page.read_text())]
    sources = [(name, block["text"]) for name, block in blocks if block["language"] == "python"]
    sources += [(script.name, script.read_text()) for script in EXAMPLES]
    imported = {(name, module) for name, source in sources for module in unblur_modules(source)}
    assert imported
    assert {(name, module) for name, module in imported if module not in FRONT_DOORS} == set()


def unblur_modules(source: str) -> Iterator[str]:
    """The modules of unblur that Python source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("unblur"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unblur"):
            yield node.module or ""


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    links = [(page, link) for page in PAGES for link in LINK.findall(page.read_text())]
    broken = [(page.name, link) for page, link in links if not is_target(page, link)]
    assert len(links) > 20
    assert broken == []


def is_target(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not anchor:
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
    return anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_path_that_is_named_exists() -> None:
    paths = find_all(PATH.pattern)
    assert paths
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_every_benchmark_that_is_named_exists() -> None:
    modules = find_all(r"`python -m (benchmarks[\w.]*)")
    assert modules
    paths = [ROOT / module.replace(".", "/") for module in modules]
    assert [
        path for path in paths if not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file()
    ] == []


def test_the_torch_that_is_named_is_the_pinned_one() -> None:
    pins = re.findall(r"^TORCH := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert find_all(r"torch==([\d.]+)") == set(pins)


def test_every_test_that_is_named_exists() -> None:
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    named = find_all(r"`(test_\w+)`")
    assert len(named) > 30
    assert named <= defined


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert find_all(r"(?:^|`)make ([\w-]+)") <= targets


def test_the_command_table_is_the_help() -> None:
    table = dict(re.findall(r"^\| `unblur ([\w-]+)` \| (.+?) \|$", README.read_text(), re.MULTILINE))
    command = [Path(sys.executable).with_name("unblur"), "--help"]
    environment = os.environ | {"COLUMNS": "250", "TERM": "dumb"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert table == dict(re.findall(r"^│ (\w[\w-]*) +(.+?) +│$", done.stdout, re.MULTILINE))
