"""What `unblur verify` says: tables for people, one document for scripts."""

from collections.abc import Iterator
from dataclasses import asdict

from rich import box
from rich.table import Table
from rich.text import Text

from unblur.runtime.console import stdout
from unblur.runtime.errors import printable
from unblur.runtime.quality.parity import Hop, Ledger, Quality
from unblur.runtime.quality.verify import EngineCheck, Verification

EQUAL_DB = 200.0
"""Stands for infinity, which JSON does not have, when two outputs are equal to the last bit."""


def document(result: Verification) -> dict[str, object]:
    """What `--json` prints.

    delta_db of a variant: against the first, fp32 at full steps. integrity: null if a check is void. benefit: null
    without pairs.
    """
    tiling = result.tiling
    return {
        "pairs": result.pairs,
        "blurred_db": result.blurred_db,
        "variants": {
            name: {"db": quality.db, "ssim": quality.ssim, "delta_db": delta_db}
            for name, quality, delta_db in _variants(result)
        },
        "hops": [hop_document(hop) for ledger in result.ledgers for hop in ledger.hops],
        "golden": [{**asdict(golden), "psnr_db": finite_db(golden.psnr_db)} for golden in result.golden],
        "tiling": None if tiling is None else {**asdict(tiling), "psnr_db": finite_db(tiling.psnr_db)},
        "engines": [_engine_document(engine) for engine in result.engines],
        "runners": [_engine_document(runner) for runner in result.runners],
        "gain_db": result.gain_db,
        "integrity": result.integrity,
        "benefit": result.benefit,
        "pass": result.passed,
    }


def hop_document(hop: Hop) -> dict[str, object]:
    """A hop for JSON, with a finite PSNR; a NaN becomes null when it is printed."""
    return {**asdict(hop), "psnr_db": finite_db(hop.psnr_db), "pass": hop.passed}


def _engine_document(engine: EngineCheck) -> dict[str, object]:
    return {**asdict(engine), "psnr_db": None if engine.psnr_db is None else finite_db(engine.psnr_db)}


def print_report(model: str, result: Verification) -> None:
    """Print tables and the verdict on stdout."""
    for ledger in result.ledgers:
        if ledger.hops:
            stdout.print(hop_table(ledger))
    if result.golden:
        stdout.print(_golden_table(result))
    for engine in result.engines:
        stdout.print("Engine", *_engine_line(engine), soft_wrap=True)
    for runner in result.runners:
        stdout.print(*_engine_line(runner), soft_wrap=True)
    if result.pairs:
        stdout.print(_quality_table(result))
    if result.tiling is not None:
        stdout.print(
            f"Tiles against the whole frame: {finite_db(result.tiling.psnr_db):.1f} dB "
            f"({result.tiling.pooling} pooling, halo {result.tiling.halo} px)",
            _word(result.tiling.passed),
        )
    for reason in _reasons(result):
        stdout.print(reason, soft_wrap=True)
    stdout.print(f"Integrity of {model}:", _word(result.integrity), soft_wrap=True)
    if result.gain_db is not None:
        better = result.gain_db > 0
        words = Text("improves the images", "green") if better else Text("MAKES THE IMAGES WORSE", "red")
        stdout.print(f"Benefit of {model}:", words, f"by {abs(result.gain_db):.2f} dB", soft_wrap=True)


def hop_table(ledger: Ledger) -> Table:
    """The hops of a ledger. PSNR and its need are of the frame that decides, SSIM and levels of the worst."""
    table = _table("Parity", "variants", "steps", "PSNR dB", "needs", "SSIM", "levels", "loss dB", "")
    for hop in ledger.hops:
        table.add_row(
            hop.name,
            str(hop.steps),
            f"{finite_db(hop.psnr_db):.1f}",
            f"{hop.threshold_db:.1f}",
            f"{hop.ssim:.5f}",
            str(hop.max_levels),
            "" if hop.delta_db is None else f"{round(-hop.delta_db, 3) + 0.0:.3f}",  # + 0.0: no -0.000
            _word(hop.passed),
        )
    return table


def hop_reasons(ledger: Ledger) -> Iterator[str]:
    """Why hops did not pass, a line for each."""
    return (f"{hop.name} at {hop.steps} steps: {hop.reason}" for hop in ledger.hops if hop.reason)


def _golden_table(result: Verification) -> Table:
    table = _table("Golden vectors, on this machine", "variant", "steps", "PSNR dB", "needs", "")
    for golden in result.golden:
        table.add_row(
            golden.precision,
            str(golden.steps),
            f"{finite_db(golden.psnr_db):.1f}",
            f"{golden.threshold_db:.1f}",
            _word(golden.passed),
        )
    return table


def _engine_line(engine: EngineCheck) -> tuple[str, Text]:
    """Whether it passed, or why not; on one line, since the name alone fills half of one."""
    if engine.verdict == "passed":
        found = f"{finite_db(engine.psnr_db or 0):.1f} dB, needs {engine.threshold_db:.1f}"
        return f"{engine.name}: {found}", _word(True)
    word = Text("not run here", "yellow") if engine.verdict == "not run" else _word(engine.passed)
    return f"{engine.name}:", word + Text(f": {printable(engine.reason)}")


def _quality_table(result: Verification) -> Table:
    table = _table(f"Against ground truth, {result.pairs} pairs", "variant", "PSNR dB", "SSIM", "gain dB")
    table.add_row("blurred", _number(result.blurred_db, 3), "", "")
    for name, quality, _ in _variants(result):
        gain_db = None if quality.db is None or result.blurred_db is None else quality.db - result.blurred_db
        table.add_row(name, _number(quality.db, 3), _number(quality.ssim, 4), _number(gain_db, 3, sign="+"))
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _reasons(result: Verification) -> Iterator[str]:
    for golden in result.golden:
        if golden.reason:
            yield f"golden {golden.precision} at {golden.steps} steps: {golden.reason}"
    for ledger in result.ledgers:
        yield from hop_reasons(ledger)


def _variants(result: Verification) -> Iterator[tuple[str, Quality, float | None]]:
    """Each variant by name, "int8", or "fp32-3" at fewer steps, and its difference to the first in dB."""
    first = result.ledgers[0].qualities[0]
    for quality in (quality for ledger in result.ledgers for quality in ledger.qualities):
        name = quality.precision if quality.steps == first.steps else f"{quality.precision}-{quality.steps}"
        delta_db = None if quality.db is None or first.db is None else quality.db - first.db
        yield name, quality, delta_db


def finite_db(psnr_db: float) -> float:
    """EQUAL_DB in place of infinity."""
    return min(psnr_db, EQUAL_DB)


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.{digits}f}"


def _word(passed: bool | None) -> Text:
    if passed is None:
        return Text("void", "yellow")
    return Text("passed", "green") if passed else Text("FAILED", "red")
