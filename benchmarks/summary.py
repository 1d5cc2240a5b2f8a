"""What a run of the benchmarks is told as: a table for each, the words at the end, one JSON document."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.compare import Change, changes
from benchmarks.figures import Figure, figure_to_json
from benchmarks.parts import cells
from benchmarks.results import Outcome, Run


@dataclass(frozen=True)
class Judged:
    """What became of a benchmark, beside the last time. before: None if there was none that compares."""

    outcome: Outcome
    before: Run | None
    changes: tuple[Change, ...]

    @property
    def missed(self) -> int:
        """How many figures do not keep what was asked."""
        return sum(figure.met is False for figure in self.outcome.figures)

    def counted(self, verdict: str) -> int:
        """How many figures changed in that way."""
        return sum(change.verdict == verdict for change in self.changes)


def judge(outcome: Outcome, last: tuple[Run, Outcome] | None) -> Judged:
    """Compare an outcome with the last one, if there is one, and both have figures."""
    if last is None or outcome.failure:
        return Judged(outcome, None, ())
    run, before = last
    return Judged(outcome, run, tuple(changes(before.figures, outcome.figures)))


def table(judged: Judged) -> Table:
    """The figures, with what was asked of each and how it changed."""
    shown = Table("figure", "got", "95 %", "asked", "", title=judged.outcome.benchmark, title_justify="left")
    if judged.before is not None:
        shown.add_column(f"since {judged.before.created[:10]}")
    changed = {change.after.name: change for change in judged.changes if change.after is not None}
    for figure in judged.outcome.figures:
        then = [] if judged.before is None else [_words(changed.get(figure.name))]
        shown.add_row(figure.name, *cells(figure), *then)
    for change in judged.changes:
        if change.before is not None and change.after is None:
            shown.add_row(change.before.name, "", "", "", "", _words(change))
    return shown


def last_words(judged: Sequence[Judged]) -> str:
    """How many were measured, missed what was asked and changed, in a sentence."""
    there = sum(not one.outcome.failure for one in judged)
    asked = sum(figure.asked is not None for one in judged for figure in one.outcome.figures)
    missed = sum(one.missed for one in judged)
    worse, better = (sum(one.counted(verdict) for one in judged) for verdict in ("worse", "better"))
    minutes = sum(one.outcome.seconds for one in judged) / 60
    return (
        f"{there} of {len(judged)} benchmarks measured in {minutes:.1f} min; {missed} of {asked} figures miss what "
        f"is asked of them; {worse} worse, {better} better than before"
    )


def other_environment(before: Run, after: Run) -> Iterator[str]:
    """What differs between the machines of two runs besides the commit: versions, kernel, governor."""
    old, new = dict(_leaves("", before.environment)), dict(_leaves("", after.environment))
    for name in sorted((old.keys() | new.keys()) - {"commit"}):
        if old.get(name) != new.get(name):
            yield f"{name} is {new.get(name)}, was {old.get(name)}"


def document(run: Run, judged: Sequence[Judged]) -> dict[str, object]:
    """The whole run as JSON; `met` and the changes are there beside what is stored."""
    return {
        "created": run.created,
        "machine": run.machine,
        "commit": run.commit,
        "outcomes": [_outcome_to_json(one) for one in judged],
        "missed": sum(one.missed for one in judged),
        "worse": sum(one.counted("worse") for one in judged),
        "failed": [one.outcome.benchmark for one in judged if one.outcome.failure],
    }


def _outcome_to_json(one: Judged) -> dict[str, object]:
    return {
        "benchmark": one.outcome.benchmark,
        "options": one.outcome.options,
        "seconds": one.outcome.seconds,
        "failure": one.outcome.failure or None,
        "figures": [figure_to_json(figure) for figure in one.outcome.figures],
        "compared_with": one.before and {"created": one.before.created, "commit": one.before.commit},
        "changes": [
            {"verdict": change.verdict, "before": _json(change.before), "after": _json(change.after)}
            for change in one.changes
        ],
    }


def _json(figure: Figure | None) -> dict[str, object] | None:
    return None if figure is None else figure_to_json(figure)


def _words(change: Change | None) -> str:
    if change is None:
        return ""
    if change.before is None:
        return change.verdict
    got, interval, _, _ = cells(change.before)
    return f"{change.verdict}, was {got}" + (f" ({interval})" if interval else "")


def _leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    """("cpu.model", "AMD EPYC"), ...: what stands at the ends of nested mappings."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), item)
    else:
        yield name, value
