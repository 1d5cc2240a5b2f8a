"""The Dockerfiles and the compose file: nothing in them is built here, but all that they name exists."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
INSTRUCTIONS = {"ARG", "CMD", "COPY", "ENTRYPOINT", "FROM", "RUN", "USER", "WORKDIR"}
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
COMMANDS = {name: service["command"] for name, service in SERVICES.items() if "build" in service}
RUN_BY_HAND = re.compile(r"docker run .*? unblur(?::\w+)? (.+)")


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(instruction, arguments), with continued lines joined and comments left out."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in joined.splitlines() if line]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_parses_and_copies_what_exists(dockerfile: Path) -> None:
    parsed = instructions(dockerfile)
    assert {name for name, _ in parsed} <= INSTRUCTIONS
    sources = [source for name, value in parsed if name == "COPY" for source in value.split()[:-1]]
    assert {"pyproject.toml", "runtime"} <= set(sources)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert [source for source in sources if not (ROOT / source).exists() or source in ignored] == []
    entry = json.loads(dict(parsed)["ENTRYPOINT"])
    assert Path(entry[0]).name == "unblur"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_shell_of_a_dockerfile_parses(dockerfile: Path) -> None:
    for name, value in instructions(dockerfile):
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", value], check=True)


def test_the_extras_that_are_installed_exist() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    extras = {
        extra
        for path in DOCKERFILES
        for group in re.findall(r"/src\[(.+?)\]", path.read_text())
        for extra in group.split(",")
    }
    assert extras
    assert {extra for extra in extras if not re.search(rf"^{extra} = \[", pyproject, re.MULTILINE)} == set()


def test_the_files_that_compose_names_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            assert (DEPLOY / volume.partition(":")[0]).is_file()
        if "build" in service:
            context = (DEPLOY / service["build"]["context"]).resolve()
            assert context == ROOT
            assert (context / service["build"]["dockerfile"]).is_file()
        assert set(service.get("depends_on", [])) <= set(SERVICES)


def test_prometheus_reads_the_port_that_the_camera_serves() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    service, _, port = target.partition(":")
    assert f"--metrics-port={port}" in SERVICES[service]["command"]


@pytest.mark.parametrize("name", COMMANDS)
def test_unblur_accepts_the_commands_of_compose(name: str) -> None:
    assert_accepted(COMMANDS[name])


@pytest.mark.parametrize("path", [*DOCKERFILES, ROOT / "docs/containers.md"], ids=lambda path: path.name)
def test_unblur_accepts_the_commands_in_the_text(path: Path) -> None:
    (command,) = RUN_BY_HAND.findall(path.read_text())
    assert_accepted(shlex.split(command))


def assert_accepted(words: list[str]) -> None:
    """`--help` at the end is answered only if the options before it exist."""
    command = [str(Path(sys.executable).with_name("unblur")), *words, "--help"]
    environment = os.environ | {"TERM": "dumb"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
