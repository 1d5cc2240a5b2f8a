"""What the benchmarks share, and a real one run as `make bench` runs it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import typer
from engine_workshop import Workshop

from benchmarks import __main__ as bench
from benchmarks import gpu_proof, own_network
from benchmarks.__main__ import BENCHMARKS, Benchmark
from benchmarks.command import NotMeasured, cells, print_report
from benchmarks.figures import Figure, Report, of_repeats

ROOT = Path(__file__).parents[1]
TIMED = Figure("frame", "ms", 10.0, "lower", (9.0, 11.0), asked=12.0)
RATE = Figure("rate", "frames/s", 10.0, "higher", (9.0, 11.0))
TINY = "--model lprn-n --height 64 --width 96 --frames 2 --repeats 2"


def test_the_interval_of_repeats_holds_the_mean_in_95_of_100() -> None:
    rng = np.random.default_rng(1)
    figures = [of_repeats("frame", "ms", list(rng.normal(10, 1, 4)), "lower") for _ in range(1000)]
    intervals = [figure.interval for figure in figures if figure.interval]
    assert sum(low <= 10 <= high for low, high in intervals) == pytest.approx(950, abs=15)
    with pytest.raises(ValueError, match="at least two data points"):
        of_repeats("frame", "ms", [10.0], "lower")


def test_a_bound_is_met_or_missed() -> None:
    assert [replace(TIMED, asked=asked).met for asked in (None, 9.9, 10.0)] == [None, False, True]
    assert [replace(RATE, asked=asked).met for asked in (None, 10.1, 10.0)] == [None, False, True]
    assert cells(TIMED) == ("10 ms", "9 to 11", "at most 12", "met")
    assert cells(replace(RATE, interval=(9.0, None), asked=12345.6)) == (
        *("10 frames/s", "9 to more", "at least 12,346", "MISSED"),
    )


def test_a_figure_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="figure 'frame' is nan, expected a finite number"):
        replace(TIMED, value=float("nan"))


def test_a_report_is_one_json_document_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    for asked, code in ((None, 0), (9.0, 1)):
        with pytest.raises(typer.Exit) as exit_info:
            print_report(Report("live", (replace(TIMED, asked=asked), RATE), {"frames": 3}), json=True)
        assert exit_info.value.exit_code == code
        document = json.loads(capsys.readouterr().out)
        assert (document["benchmark"], document["details"]) == ("live", {"frames": 3})
        assert [figure["met"] for figure in document["figures"]] == [False if code else None, None]


def test_every_benchmark_listed_is_there_and_takes_its_options() -> None:
    for name, benchmark in BENCHMARKS.items():
        app = typer.Typer()
        app.command()(import_module(f"benchmarks.{name}").main)
        for options in (benchmark.usual, benchmark.quick or ""):
            typer.main.get_command(app).make_context("main", ["--json", *(options or benchmark.usual).split()])


def test_a_name_that_is_not_there_and_one_without_a_quick_form() -> None:
    with pytest.raises(NotMeasured, match="there is no benchmark 'sokk', expected one of machine, run_overhead, "):
        bench.main(["sokk"])
    with pytest.raises(NotMeasured, match="'soak' has no quick form; leave --quick out"):
        bench.main(["soak"], quick=True)


def test_one_that_fails_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = Benchmark("it", 1, "--model missing.onnx --short 1")
    monkeypatch.setattr(bench, "BENCHMARKS", {"run_memory": broken, "run_overhead": Benchmark("it", 1, TINY)})
    with pytest.raises(typer.Exit) as exit_info:
        bench.main()
    assert exit_info.value.exit_code == 2
    printed = capfd.readouterr()
    assert "run_overhead" in printed.out
    assert "unblur run on short.mp4 ended with 2" in printed.err
    assert "failed: run_memory" in printed.err


def test_they_are_listed_with_the_time_they_take() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--list"], cwd=bench.ROOT, capture_output=True, text=True, check=True
    )
    assert set(BENCHMARKS) <= set(done.stdout.split())


def test_without_a_gpu_the_proof_names_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu_proof", "-o", str(tmp_path / "verified_gpu.json")]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("no proof on a GPU: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["", "verify"])
def test_the_proof_goes_to_its_end_and_says_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Every step is asked for; the commands themselves have their own tests."""
    asked: list[str] = []

    def answer(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(" ".join(command))
        code = 1 if failing and f" {failing} " in asked[-1] else 0
        return subprocess.CompletedProcess(command, code, stdout='{"answer": 1}', stderr="\nwrong" if code else "")

    workshop = Workshop(tmp_path)
    monkeypatch.setattr(gpu_proof, "what_is_here", lambda: (workshop.device, workshop.trt))
    monkeypatch.setattr(gpu_proof.subprocess, "run", answer)
    monkeypatch.setattr(gpu_proof, "write_clip", lambda path, *size: path)
    output = tmp_path / "verified_gpu.json"
    with pytest.raises(typer.Exit) as ended:
        gpu_proof.main(output)
    assert ended.value.exit_code == (1 if failing else 0)
    document = json.loads(output.read_text())
    assert document["passed"] is not bool(failing)
    assert document["device"]["name"] == workshop.device.name
    assert [step for step in document["steps"] if document["steps"][step]["error"]] == (
        [failing] if failing else []
    )
    for words in ("tests/gpu", " build ", "clip.mp4", "test://", " profile ", " verify ", "benchmarks.soak"):
        assert any(words in command for command in asked), words


def test_odd_files_are_kept_or_named() -> None:
    """Some 40 images and 16 videos, through one run."""
    command = [sys.executable, "-m", "benchmarks.torture", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["figures"][0]["value"] > 50


def test_networks_whose_code_is_not_there_are_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as exit_info:
        own_network.main()
    assert exit_info.value.exit_code == 0
    skipped = [line for line in capsys.readouterr().err.splitlines() if line.startswith("SKIPPED: ")]
    assert sorted(skipped)[0] == "SKIPPED: dmphn; give the folder of its authors' code by --dmphn"
    assert len(skipped) == 3
