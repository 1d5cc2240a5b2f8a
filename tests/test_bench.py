"""The runner of the benchmarks: what it flags, what it stores, and a real benchmark run through it."""

import json
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import __main__ as bench
from benchmarks import catalogue
from benchmarks.catalogue import Benchmark, Plan, chosen
from benchmarks.compare import changes
from benchmarks.figures import Figure, Report, figure_to_json, of_repeats, report_from_text, report_to_json
from benchmarks.parts import NotMeasured, cells
from benchmarks.process import measure
from benchmarks.results import Outcome, Run, last_like, machine_kind, read_run, store, stored_runs
from benchmarks.summary import judge

TIMED = Figure("frame", "ms", 10.0, "lower", (9.0, 11.0), asked=12.0)
RATE = Figure("rate", "frames/s", 10.0, "higher", (9.0, 11.0))
EXACT = Figure("loss", "dB", 0.5, "lower", tolerance=0.01)
OUTCOME = Outcome("live", ("--seconds", "10"), 31.5, (TIMED, EXACT), {"frames": 3})
RUN = Run("2026-11-21T10:00:00Z", "a CPU, 2 threads", {"commit": "0123456789-dirty", "packages": {}}, (OUTCOME,))

TINY = ("--model", "lprn-n", "--height", "64", "--width", "96", "--frames", "2", "--repeats", "2")


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (TIMED, replace(TIMED, value=12.0, interval=(10.9, 13.1)), None),
        (TIMED, replace(TIMED, value=12.0, interval=(11.1, 12.9)), "worse"),
        (TIMED, replace(TIMED, value=8.0, interval=(7.1, 8.9)), "better"),
        (RATE, replace(RATE, value=12.0, interval=(10.9, 13.1)), None),
        (RATE, replace(RATE, value=12.0, interval=(11.1, 12.9)), "better"),
        (RATE, replace(RATE, value=8.0, interval=(7.1, 8.9)), "worse"),
        (TIMED, replace(TIMED, value=8.0, interval=(7.1, None)), None),
        (TIMED, replace(TIMED, value=12.0, interval=(11.1, None)), "worse"),
        (EXACT, replace(EXACT, value=0.509), None),
        (EXACT, replace(EXACT, value=0.511), "worse"),
        (EXACT, replace(EXACT, value=0.489), "better"),
        (replace(EXACT, tolerance=0.0), replace(EXACT, value=0.5000001, tolerance=0.0), "worse"),
        (TIMED, replace(TIMED, unit="s"), "another unit"),
    ],
)
def test_only_what_lies_outside_the_intervals_is_flagged(
    before: Figure, after: Figure, verdict: str | None
) -> None:
    assert [change.verdict for change in changes([before], [after])] == [verdict] * (verdict is not None)


def test_figures_that_came_and_went_are_told() -> None:
    found = [(change.verdict, change.before, change.after) for change in changes([TIMED, EXACT], [RATE, EXACT])]
    assert found == [("new", None, RATE), ("gone", TIMED, None)]


def test_repeats_of_the_same_are_flagged_in_one_of_a_hundred_and_ten_percent_nearly_always() -> None:
    rng = np.random.default_rng(0)

    def flagged(slower: float) -> int:
        before, after = rng.normal(100, 2, (2, 500, 5))
        pairs = zip(before, slower * after, strict=True)
        figures = ([of_repeats("frame", "ms", list(times), "lower") for times in pair] for pair in pairs)
        return sum(any(changes([first], [second])) for first, second in figures)

    assert flagged(1.0) <= 5
    assert flagged(1.1) >= 490


def test_the_interval_of_repeats_holds_the_mean_in_95_of_100() -> None:
    rng = np.random.default_rng(1)
    figures = [of_repeats("frame", "ms", list(rng.normal(10, 1, 4)), "lower") for _ in range(1000)]
    assert sum(figure.low <= 10 <= figure.high for figure in figures) == pytest.approx(950, abs=15)
    with pytest.raises(ValueError, match="at least two data points"):
        of_repeats("frame", "ms", [10.0], "lower")


def test_what_is_asked_is_met_or_missed() -> None:
    assert [replace(TIMED, asked=asked).met for asked in (None, 9.9, 10.0)] == [None, False, True]
    assert [replace(RATE, asked=asked).met for asked in (None, 10.1, 10.0)] == [None, False, True]
    assert cells(TIMED) == ("10 ms", "9 to 11", "at most 12", "met")
    assert cells(replace(RATE, interval=(9.0, None), asked=12345.6)) == (
        *("10 frames/s", "9 to more", "at least 12,346", "MISSED"),
    )


def test_a_report_survives_json_with_its_verdicts() -> None:
    report = Report("live", (TIMED, replace(RATE, interval=(9.0, None)), EXACT), {"frames": 3})
    text = json.dumps(report_to_json(report))
    assert [figure["met"] for figure in json.loads(text)["figures"]] == [True, None, None]
    assert report_from_text(text, "live") == report


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"value": float("nan")}, "figure 'frame' has a number that is not finite"),
        ({"interval": (11.0, 9.0)}, r"figure 'frame' has the interval \(11.0, 9.0\), expected low and high"),
    ],
)
def test_a_figure_without_sense_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TIMED, **wrong)


def test_a_run_is_stored_once_whatever_is_added_to_it(tmp_path: Path) -> None:
    assert store(replace(RUN, outcomes=()), tmp_path / "results") == store(RUN, tmp_path / "results")
    (file,) = (tmp_path / "results").iterdir()
    assert file.name == "2026-11-21T10-00-00Z-01234567-dirty.json"
    assert read_run(file) == RUN


def test_a_stored_run_that_is_broken_is_told_in_a_line_and_left_out(tmp_path: Path) -> None:
    store(RUN, tmp_path)
    (tmp_path / "a.json").write_text('{"schema": 1, "created"')
    (tmp_path / "b.json").write_text('{"schema": 2}')
    (tmp_path / "c.json").write_text('{"schema": 1, "created": "2026"}')
    told: list[str] = []
    assert stored_runs(tmp_path, told.append) == [RUN]
    assert told == [
        "a.json is left out of the comparison: it is not JSON (Expecting ':' delimiter: "
        "line 1 column 24 (char 23)); remove it",
        "b.json is left out of the comparison: it has schema 2, this version of unblur reads 1; remove it",
        "c.json is left out of the comparison: it: environment is missing; remove it",
    ]


def test_compared_is_the_last_run_of_such_a_machine_with_the_same_options() -> None:
    def run(created: str, **changed: object) -> Run:
        outcome = replace(OUTCOME, **{key: value for key, value in changed.items() if key != "machine"})
        return replace(RUN, created=created, outcomes=(outcome,), machine=str(changed.get("machine", RUN.machine)))

    good = run("3")
    newer = [run("7", options=()), run("6", machine="another"), run("5", failure="no"), run("4", benchmark="soak")]
    found = last_like(OUTCOME, RUN.machine, [*newer, good, run("2")])
    assert found == (good, good.outcomes[0])
    assert last_like(OUTCOME, RUN.machine, newer) is None
    assert judge(replace(OUTCOME, failure="no"), found).changes == ()


def test_a_kind_of_machine_is_its_processor_and_its_gpu() -> None:
    cpu = {"model": "Cortex-A78AE", "threads": 6}
    assert machine_kind({"cpu": cpu, "gpu": None, "board": None}) == "Cortex-A78AE, 6 threads"
    jetson = {"cpu": cpu, "gpu": {"name": "Orin"}, "board": "Jetson Orin Nano"}
    assert machine_kind(jetson) == "Cortex-A78AE, 6 threads, Orin, Jetson Orin Nano"


def test_every_benchmark_listed_is_there_and_takes_its_options() -> None:
    assert len({benchmark.name for benchmark in catalogue.CATALOGUE}) == len(catalogue.CATALOGUE)
    for benchmark in catalogue.CATALOGUE:
        app = typer.Typer()
        app.command()(import_module(f"benchmarks.{benchmark.name}").main)
        for plan in (benchmark.usual, benchmark.quick or benchmark.usual):
            typer.main.get_command(app).make_context("main", ["--json", *plan.options])
    with pytest.raises(NotMeasured, match="there is no benchmark sokk; there are machine, run_overhead, "):
        chosen(["sokk"])


def test_a_benchmark_runs_is_stored_and_one_that_fails_is_told_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = Plan(1, ("--no-such-option",))
    tiny = Benchmark("run_overhead", "it", never, Plan(20, TINY))
    broken = Benchmark("run_memory", "it", never, Plan(20, ("--model", "missing.onnx", "--short", "1")))
    monkeypatch.setattr(catalogue, "CATALOGUE", (broken, tiny, Benchmark("soak", "has no quick form", never)))
    app = typer.Typer()
    app.command()(bench.main)
    result = CliRunner().invoke(app, ["--quick", "--json", "--results", str(tmp_path)], catch_exceptions=False)
    document = json.loads(result.stdout)
    failed, measured = document["outcomes"]
    assert result.exit_code == 0
    assert (document["failed"], failed["figures"]) == (["run_memory"], [])
    assert failed["failure"].startswith("unblur run on short.mp4 ended with 2")
    ratio = measured["figures"][0]
    assert ratio["interval"][0] <= ratio["value"] <= ratio["interval"][1]
    assert (ratio["asked"], ratio["met"]) == (None, None)  # of so few frames nothing is asked
    (file,) = tmp_path.glob("*.json")
    assert [figure_to_json(figure) for figure in read_run(file).outcomes[1].figures] == measured["figures"]
    assert measured["options"] == list(TINY)


def test_a_benchmark_that_hangs_is_ended() -> None:
    failure = measure("soak", Plan(1), limit_s=0.3).failure
    assert re.fullmatch(r"it was ended after \d+ s, far more than it should take", failure or "")
