"""Run the benchmarks, one after the other, and tell what was asked, what was got and what changed.

    python -m benchmarks                      all of them; `make bench` does the same
    python -m benchmarks run_overhead live    these
    python -m benchmarks --list               what there is, and how long it takes
    python -m benchmarks --quick              on less, to see that they run: too little to ask anything of it

Wants a machine that does nothing else. Every run is stored in benchmarks/results/, with the machine, the versions
and the commit, and compared with the last one of such a machine; only what differs by more than the intervals of
confidence is flagged. Git ignores that folder; a run that shall be a baseline is added to it with `git add -f`.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.catalogue import CATALOGUE, Plan, chosen
from benchmarks.parts import Json, NotMeasured, run, say
from benchmarks.process import ROOT, measure
from benchmarks.results import Outcome, Run, last_like, machine_kind, store, stored_runs
from benchmarks.summary import Judged, document, judge, last_words, other_environment, table
from unblur.runtime.console import print_json, stdout
from unblur.runtime.machine.facts import environment

RESULTS = ROOT / "benchmarks" / "results"


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Which; default all.")] = None,
    list_them: Annotated[bool, typer.Option("--list", help="Tell what there is, and how long it takes.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="On less, where there is such a form.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 if one fails, misses what is asked, or is worse than before.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Where runs are stored.")] = RESULTS,
    json: Json = False,
) -> None:
    """Run benchmarks and compare them with the last time.

    One that cannot be run is told in a line, and the others go on. Exit code 0 if one was measured, 2 if none was.
    """
    if list_them:
        stdout.print(_listed())
        return
    plans = [(one.name, plan) for one in chosen(names or ()) if (plan := one.plan(quick=quick)) is not None]
    if not plans:
        raise NotMeasured(f"{' and '.join(names or ())} has no quick form; leave --quick out")
    found, earlier = environment(), stored_runs(results, say)
    this, all_judged = Run(_now(), machine_kind(found), found), list[Judged]()
    for number, (name, plan) in enumerate(plans, 1):
        say(f"{number} of {len(plans)}: {name}, about {_minutes(plan)} min")
        outcome = _unasked(measure(name, plan)) if quick else measure(name, plan)
        this = replace(this, outcomes=(*this.outcomes, outcome))
        path = store(this, results)  # after each, so that Ctrl-C keeps what is there
        all_judged.append(judge(outcome, last_like(outcome, this.machine, earlier)))
        if not json:
            _show(all_judged[-1], this)
    if json:
        print_json(document(this, all_judged))
    else:
        stdout.print(f"{last_words(all_judged)}; stored as {path}", soft_wrap=True)
    raise typer.Exit(_exit_code(all_judged, strict=strict))


def _listed() -> Table:
    """Every benchmark and the minutes it takes; the sums below."""
    listed = Table("benchmark", "min", "--quick", "measures", show_footer=True)
    for one in CATALOGUE:
        listed.add_row(one.name, _minutes(one.usual), "" if one.quick is None else _minutes(one.quick), one.what)
    listed.columns[0].footer = "all"
    listed.columns[1].footer = _minutes(*(one.usual for one in CATALOGUE))
    listed.columns[2].footer = _minutes(*(one.quick for one in CATALOGUE if one.quick is not None))
    return listed


def _minutes(*plans: Plan) -> str:
    return f"{sum(plan.seconds for plan in plans) / 60:.1f}"


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _show(judged: Judged, this: Run) -> None:
    outcome = judged.outcome
    if outcome.failure:
        stdout.print(f"{outcome.benchmark}: not measured: {outcome.failure}", markup=False, soft_wrap=True)
        return
    stdout.print(table(judged))
    if judged.before is not None and judged.changes:
        for difference in other_environment(judged.before, this):
            stdout.print(f"since then {difference}", markup=False, soft_wrap=True)


def _unasked(outcome: Outcome) -> Outcome:
    """What is asked is asked of the usual form."""
    return replace(outcome, figures=tuple(replace(figure, asked=None) for figure in outcome.figures))


def _exit_code(all_judged: Sequence[Judged], *, strict: bool) -> int:
    if all(judged.outcome.failure for judged in all_judged):
        return 2
    bad = (judged.outcome.failure or judged.missed or judged.counted("worse") for judged in all_judged)
    return int(strict and any(bad))


if __name__ == "__main__":
    run(main)
