"""What `unblur evaluate` says and writes: a table for people, one document for scripts, a line a picture in CSV."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from unblur.runtime.atomic import atomic_file
from unblur.runtime.console import stdout
from unblur.runtime.contact_sheet import ContactSheet
from unblur.runtime.evaluate import Row, Score, mean_score

CSV_FILE, TABLE_FILE, SHEET_FILE = "per_image.csv", "summary.md", "contact_sheet.png"


@dataclass(frozen=True)
class Evaluation:
    """Which model was judged on what, and a row for every pair, at least one."""

    model: str
    data: str
    device: str
    precision: str
    steps: int
    rows: Sequence[Row]

    @property
    def blurred(self) -> Score:
        return mean_score([row.blurred for row in self.rows])

    @property
    def restored(self) -> Score:
        return mean_score([row.restored for row in self.rows])

    @property
    def gain_db(self) -> float:
        return self.restored.psnr_db - self.blurred.psnr_db


def document(result: Evaluation) -> dict[str, object]:
    """What `--json` prints: means over the pairs."""
    return {
        "model": result.model,
        "data": result.data,
        "device": result.device,
        "precision": result.precision,
        "steps": result.steps,
        "pairs": len(result.rows),
        "blurred": _score_document(result.blurred),
        "restored": _score_document(result.restored),
        "gain_db": result.gain_db,
    }


def print_table(result: Evaluation) -> None:
    """Print the means on stdout."""
    measure = result.restored.measure.upper()
    stdout.print(_title(result), soft_wrap=True)
    table = Table("", box=box.SIMPLE_HEAD)
    for heading in ("PSNR dB", measure, "gain dB"):
        table.add_column(heading, justify="right")
    for cells in _cells(result):
        table.add_row(*cells)
    stdout.print(table)


def write_files(folder: Path, result: Evaluation, sheet: ContactSheet) -> None:
    """Write the CSV, the table in Markdown and the contact sheet into `folder`; each is whole or not there."""
    with atomic_file(folder / CSV_FILE) as temporary:
        _write_csv(temporary, result.rows)
    heads = ("", "PSNR dB", result.restored.measure.upper(), "gain dB")
    lines = [_title(result), "", _markdown(heads), "|-|-:|-:|-:|", *map(_markdown, _cells(result))]
    with atomic_file(folder / TABLE_FILE) as temporary:
        temporary.write_text("\n".join(lines) + "\n", "utf-8")
    with atomic_file(folder / SHEET_FILE) as temporary:
        sheet.draw().save(temporary)


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    measure = rows[0].restored.measure
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["name", "blurred_psnr_db", "restored_psnr_db", "gain_db", f"blurred_{measure}", f"restored_{measure}"]
        )
        for row in rows:
            decibels = (row.blurred.psnr_db, row.restored.psnr_db, row.gain_db)
            similarities = (row.blurred.similarity, row.restored.similarity)
            writer.writerow(
                [row.name, *(f"{value:.4f}" for value in decibels), *(f"{value:.5f}" for value in similarities)]
            )


def _title(result: Evaluation) -> str:
    return (
        f"{result.model} {result.precision}, {result.steps} steps, on {len(result.rows)} pairs of {result.data}; "
        f"{result.device}"
    )


def _cells(result: Evaluation) -> list[tuple[str, str, str, str]]:
    blurred, restored = result.blurred, result.restored
    return [
        ("blurred", f"{blurred.psnr_db:.2f}", f"{blurred.similarity:.4f}", ""),
        ("restored", f"{restored.psnr_db:.2f}", f"{restored.similarity:.4f}", f"{result.gain_db:+.2f}"),
    ]


def _score_document(score: Score) -> dict[str, float]:
    return {"db": score.psnr_db, score.measure: score.similarity}


def _markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
