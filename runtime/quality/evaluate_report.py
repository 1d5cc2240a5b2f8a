"""What `unblur evaluate` says and writes: a table for people, one document for scripts, a line an image in CSV."""

import csv
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.table import Table

from unblur.runtime.console import stdout
from unblur.runtime.files import atomic_file
from unblur.runtime.frames import Frame
from unblur.runtime.quality.evaluate import Judged, Row, Score, mean_score

SIDE = 300
ERROR_LEVELS = 64
"""The error, in levels of 255, at which the scale ends."""

_GAP = 10
_TEXT_PX = 16
_LINE = 24
_SCALE_HW = (14, 260)
_INK, _PAPER = (30, 30, 30), (255, 255, 255)
_COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # of "inferno", evenly spaced


class ContactSheet:
    """Rows are drawn as they come, so that no frame is kept."""

    def __init__(self) -> None:
        self._rows: list[Image.Image] = []
        self._font = ImageFont.load_default(_TEXT_PX)

    def add(self, judged: Judged) -> None:
        """Draw the row of one pair."""
        row, sharp = judged.row, judged.sharp_rgb
        top, left, height, width = harmed_square(judged.blurred_rgb, sharp)
        inside = (slice(top, top + height), slice(left, left + width))
        error = np.abs(judged.restored_rgb[inside].astype(np.int16) - sharp[inside]).mean(axis=2)
        cells = (
            (f"blurred  {_words(row.blurred)}", judged.blurred_rgb[inside]),
            (f"restored  {_words(row.restored)}", judged.restored_rgb[inside]),
            ("sharp", sharp[inside]),
            ("error left", error_colours(error)),
        )
        title = f"{row.name}: {row.gain_db:+.2f} dB;  {width} x {height} of its pixels, from ({left}, {top})"
        strip = Image.new("RGB", (len(cells) * (SIDE + _GAP) + _GAP, 2 * _LINE + height + _GAP), _PAPER)
        draw = ImageDraw.Draw(strip)
        draw.text((_GAP, 2), title, _INK, self._font)
        for column, (label, picture) in enumerate(cells):
            x = _GAP + column * (SIDE + _GAP)
            draw.text((x, _LINE), label, _INK, self._font)
            strip.paste(Image.fromarray(picture), (x, 2 * _LINE))
        self._rows.append(strip)

    def draw(self) -> Image.Image:
        """The rows one below the other, and the scale of the error; at least one row."""
        width = self._rows[0].width
        sheet = Image.new("RGB", (width, sum(row.height for row in self._rows) + 3 * _LINE), _PAPER)
        y = _GAP
        for row in self._rows:
            sheet.paste(row, (0, y))
            y += row.height
        self._draw_scale(sheet, y)
        return sheet

    def _draw_scale(self, sheet: Image.Image, y: int) -> None:
        """A bar of the colours from no error to `ERROR_LEVELS` and more, below the column of errors."""
        draw = ImageDraw.Draw(sheet)
        height, width = _SCALE_HW
        x = sheet.width - SIDE - _GAP
        bar = error_colours(np.tile(np.linspace(0, ERROR_LEVELS, width), (height, 1)))
        sheet.paste(Image.fromarray(bar), (x, y))
        for level in range(0, ERROR_LEVELS + 1, 16):
            text = f"{level}+" if level == ERROR_LEVELS else str(level)
            draw.text((x + level * width / ERROR_LEVELS, y + height + 2), text, _INK, self._font, anchor="ma")
        draw.text((x - _GAP, y), "error in levels of 255", _INK, self._font, anchor="ra")


def harmed_square(blurred: Frame, sharp: Frame, side: int = SIDE) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the square, at most `side`, in which the blurred image is most wrong."""
    height, width = min(side, sharp.shape[0]), min(side, sharp.shape[1])
    error = np.abs(blurred.astype(np.int16) - sharp).sum(axis=2, dtype=np.int64)
    total = np.pad(error, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = divmod(int(np.argmax(inside)), inside.shape[1])
    return top, left, height, width


def error_colours(error: NDArray[np.floating]) -> Frame:
    """Error (H, W) in levels of 255 -> uint8 RGB: black for none, over red, to yellow from `ERROR_LEVELS` on."""
    stops = np.linspace(0, ERROR_LEVELS, len(_COLOURS))
    channels = [np.interp(error, stops, [colour[channel] for colour in _COLOURS]) for channel in range(3)]
    return np.asarray(np.rint(np.stack(channels, axis=2)), np.uint8)


def _words(score: Score) -> str:
    return f"{score.psnr_db:.2f} dB  {score.measure.upper()} {score.similarity:.3f}"


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
    """Write the CSV, the table in Markdown and the contact sheet into `folder`; all are whole or not there."""
    heads = ("", "PSNR dB", result.restored.measure.upper(), "gain dB")
    lines = [_title(result), "", _markdown(heads), "|-|-:|-:|-:|", *map(_markdown, _cells(result))]
    with ExitStack() as stack:
        names = (CSV_FILE, TABLE_FILE, SHEET_FILE)
        rows, table, drawing = (stack.enter_context(atomic_file(folder / name)) for name in names)
        _write_csv(rows, result.rows)
        table.write_text("\n".join(lines) + "\n", "utf-8")
        sheet.draw().save(drawing)


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
