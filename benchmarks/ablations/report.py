"""An ablation table as Markdown for people and as JSON for scripts: our rows, the paper's figures beside them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.ablations.ablate import Quality, Result
from benchmarks.ablations.tables import Row, Table
from unblur.runtime.files import atomic_file
from unblur.train.data import TrainingData
from unblur.train.loop import VALIDATION_CROP, Length

_HEADS = (
    "",
    "parameters",
    "GFLOP at 720p",
    "PSNR dB",
    "SSIM",
    "gain dB",
    "paper: PSNR dB",
    "paper: SSIM",
    "paper: parameters",
)


@dataclass(frozen=True)
class AblationReport:
    """What was asked and what came of it.

    command: as typed. blurred: the held-out pairs before any network.
    """

    table: Table
    command: str
    length: Length
    data: TrainingData
    blurred: Quality
    rows: Sequence[tuple[Row, Result]]

    def document(self) -> dict[str, object]:
        """Everything in the Markdown, with unrounded numbers."""
        return {
            "title": self.table.title,
            "source": self.table.source,
            "command": self.command,
            "length": asdict(self.length),
            "data": list(self.data.names),
            "held_out": len(self.data.held_out),
            "blurred": asdict(self.blurred),
            "rows": [
                {"name": row.name, "preset": row.preset, **asdict(result), "published": asdict(row.published)}
                for row, result in self.rows
            ],
        }

    def markdown(self) -> str:
        """A section: what was done, the command that does it again, the table."""
        blurred = ["blurred", "", "", *_quality_cells(self.blurred), "", "", "", ""]
        lines = [
            f"## {self.table.title}",
            f"**A small-budget result:** every row was trained for {self._each()} on {', '.join(self.data.names)}"
            f" and measured on the {len(self.data.held_out)} pairs held out, in centre crops of at most"
            f" {VALIDATION_CROP} px. The published figures are from {self.table.source}: {self.table.note}. Their"
            " networks are wider, their data others and their training far longer: only the order compares.",
            f"```sh\n{self.command}\n```",
            "\n".join(
                [_line(_HEADS), "|-|" + "-:|" * (len(_HEADS) - 1), _line(blurred), *map(_line, self._cells())]
            ),
            *sorted({f"¹ {result.note}." for _, result in self.rows if result.note}),
        ]
        return "\n\n".join(lines) + "\n"

    def _each(self) -> str:
        minutes, iterations = self.length.minutes, self.length.iterations
        return f"{minutes:g} minutes" if minutes is not None else f"{iterations} iterations"

    def _cells(self) -> list[list[str]]:
        return [
            [
                row.name + ("¹" if result.note else ""),
                f"{result.parameters:,}",
                f"{result.gflop_720p:.1f}",
                *_quality_cells(result.quality),
                f"{result.quality.psnr_db - self.blurred.psnr_db:+.2f}",
                row.published.psnr_db,
                row.published.ssim,
                row.published.parameters,
            ]
            for row, result in self.rows
        ]


def write_report(report: AblationReport, stem: Path) -> None:
    """Write `stem`.md and `stem`.json."""
    for suffix, text in ((".md", report.markdown()), (".json", json.dumps(report.document(), indent=2) + "\n")):
        with atomic_file(stem.with_name(stem.name + suffix)) as temporary:
            temporary.write_text(text, "utf-8")


def _quality_cells(quality: Quality) -> tuple[str, str]:
    return f"{quality.psnr_db:.2f}", f"{quality.ssim:.4f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
