"""The page a bundle brings along for people: model card, ledger and pictures in one self-contained HTML file."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from unblur.calibration.calibrate import Calibrated
from unblur.calibration.coverage import Coverage
from unblur.export.report_int8 import int8_section
from unblur.export.report_parts import data_uri, db_text, html_table, signed_text
from unblur.runtime.calibration_table import CalibrationTable
from unblur.runtime.frames import Frame
from unblur.runtime.parity import Hop, Ledger, Quality
from unblur.runtime.spec import ModelSpec

_JPEG_QUALITY = 82
_CROP = 192
_STRIDE = 32
_GAIN = 4

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8884; --yes: #187a3c; --no: #c0262d; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1rem; }}
h1 {{ margin: 0; overflow-wrap: anywhere; }}
h2 {{ margin: 2rem 0 .5rem; font-size: 1.15rem; }}
.verdict {{ font-weight: 600; }}
.yes {{ color: var(--yes); }} .no {{ color: var(--no); }}
@media (prefers-color-scheme: dark) {{ :root {{ --yes: #5fd08a; --no: #ff7b7f; }} }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .35rem .4rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }}
th:first-child, td:first-child, .text {{ text-align: left; }}
td.text {{ white-space: normal; }}
@media (max-width: 30rem) {{ table {{ font-size: .8rem; }} }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 0; }}
dt {{ font-weight: 600; }} dd {{ margin: 0; overflow-wrap: anywhere; }}
.pictures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .5rem; }}
figure {{ margin: 0; }} img {{ width: 100%; display: block; border-radius: 4px; }}
figcaption, .note {{ font-size: .85rem; opacity: .75; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


@dataclass(frozen=True)
class Exhibit:
    """One crop of one frame in several forms, left to right. name: of the frame."""

    name: str
    pictures: tuple[tuple[str, Frame], ...]


def exhibit(name: str, blurred: Frame, restored: Frame, sharp: Frame | None) -> Exhibit:
    """The liveliest crop of a frame before and after, and beside ground truth if there is one.

    All are uint8 (H, W, 3) of one size.
    """
    rows, columns = _liveliest(blurred if sharp is None else sharp)
    pictures = [("before", blurred), ("after", restored)]
    if sharp is None:
        pictures.append((f"change x {_GAIN}", _amplified_difference(restored, blurred)))
    else:
        pictures += [("sharp", sharp), (f"error x {_GAIN}", _amplified_difference(restored, sharp))]
    return Exhibit(name, tuple((caption, picture[rows, columns]) for caption, picture in pictures))


def report_html(
    spec: ModelSpec,
    calibrated: Calibrated,
    coverage: Coverage | None,
    ledger: Ledger,
    exhibits: Sequence[Exhibit],
) -> str:
    """The whole page; equal arguments give equal text."""
    body = [
        f"<h1>{escape(spec.preset)}</h1>",
        _verdict(ledger),
        "<h2>Model</h2>",
        _card(spec, calibrated.table),
        "<h2>Quality</h2>",
        _qualities(ledger),
        "<h2>Parity ledger</h2>",
        _hops(ledger.hops),
        "<h2>INT8</h2>",
        int8_section(calibrated, coverage),
        "<h2>Pictures</h2>",
        *(_figures(item) for item in exhibits),
        '<p class="note">Crops at full resolution, restored by the float32 form. Check this bundle on your device '
        "with <code>unblur verify</code>.</p>",
    ]
    return _PAGE.format(title=f"{escape(spec.preset)} - unblur bundle", body="\n".join(body))


def _verdict(ledger: Ledger) -> str:
    failed = [hop for hop in ledger.hops if not hop.passed]
    if not failed:
        return f'<p class="verdict yes">All {len(ledger.hops)} hops pass on {ledger.frames} frames.</p>'
    return f'<p class="verdict no">{len(failed)} of {len(ledger.hops)} hops fail on {ledger.frames} frames.</p>'


def _card(spec: ModelSpec, table: CalibrationTable) -> str:
    options = ", ".join(f"{key} {value}" for key, value in sorted(spec.options.items()))
    reach = f"{spec.receptive_field} px" if spec.receptive_field else "the whole frame"
    entries = {
        "Preset": f"{spec.preset} ({spec.system})",
        "Steps": str(spec.steps),
        "Options": options or "none",
        "Input": f"{spec.colour}, values {spec.value_range[0]:g} to {spec.value_range[1]:g}, sides multiples of "
        f"{spec.multiple_of} px (the runtime pads)",
        "Sees": f"{reach} around a pixel; pooling {spec.pooling}",
        "Trained on": ", ".join(spec.training_data) or "not recorded",
        "Licence": spec.licence,
        "INT8": f"{table.method} ranges of {len(table.ranges)} activations on {len(table.images)} pictures",
        "Calibration": table.identity[:16],
    }
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in entries.items())
    return f"<dl>{rows}</dl>"


def _qualities(ledger: Ledger) -> str:
    if ledger.blurred_db is None:
        return "<p>Not measured: no pairs with a sharp reference were given to <code>unblur deploy</code>.</p>"
    rows = [f"<tr><td>blurred</td><td></td><td>{db_text(ledger.blurred_db)}</td><td></td><td></td></tr>"]
    rows += [_quality_row(item, ledger.blurred_db) for item in ledger.qualities]
    return html_table(["form", "steps", "PSNR dB", "gain dB", "SSIM"], "".join(rows))


def _quality_row(quality: Quality, blurred_db: float) -> str:
    gain = "" if quality.db is None else signed_text(quality.db - blurred_db, 2)
    similarity = "" if quality.ssim is None else f"{quality.ssim:.4f}"
    return (
        f"<tr><td>{quality.precision}</td><td>{quality.steps}</td><td>{db_text(quality.db)}</td>"
        f"<td>{gain}</td><td>{similarity}</td></tr>"
    )


def _hops(hops: Sequence[Hop]) -> str:
    cells = "".join(
        f"<tr><td>{escape(hop.name)}</td><td>{hop.steps}</td>"
        f'<td class="text {"yes" if hop.passed else "no"}">{escape("pass" if hop.passed else hop.reason)}</td>'
        f"<td>{db_text(hop.psnr_db)}</td><td>{hop.threshold_db:g}</td><td>{hop.max_levels}</td>"
        f"<td>{'' if hop.delta_db is None else signed_text(hop.delta_db, 3)}</td><td>{hop.ssim:.5f}</td></tr>"
        for hop in hops
    )
    headings = ["hop", "steps", "", "PSNR dB", "at least", "levels", "truth dB", "SSIM"]
    note = (
        '<p class="note">PSNR, SSIM and the largest difference in 8-bit levels: against the form before, in the '
        "worst frame. Truth: gain or loss of PSNR against the sharp reference, mean.</p>"
    )
    return html_table(headings, cells) + note


def _figures(item: Exhibit) -> str:
    figures = "".join(
        f'<figure><img src="{_jpeg(picture)}" alt="{escape(item.name)}, {escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, picture in item.pictures
    )
    return f'<p class="note">{escape(item.name)}</p><div class="pictures">{figures}</div>'


def _jpeg(picture: Frame) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return data_uri(buffer.getvalue(), "jpeg")


def _liveliest(picture: Frame) -> tuple[slice, slice]:
    """The crop with the most contrast between neighbours, on a grid of `_STRIDE` pixels."""
    grey = picture.astype(np.float64).mean(axis=2)
    energy = np.zeros_like(grey)
    energy[1:] += np.abs(np.diff(grey, axis=0))
    energy[:, 1:] += np.abs(np.diff(grey, axis=1))
    totals = np.pad(energy.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    height, width = grey.shape
    rows, columns = min(_CROP, height), min(_CROP, width)
    corners = [
        (top, left)
        for top in range(0, height - rows + 1, _STRIDE)
        for left in range(0, width - columns + 1, _STRIDE)
    ]
    top, left = max(
        corners,
        key=lambda corner: float(
            totals[corner[0] + rows, corner[1] + columns]
            - totals[corner[0], corner[1] + columns]
            - totals[corner[0] + rows, corner[1]]
            + totals[corner]
        ),
    )
    return slice(top, top + rows), slice(left, left + columns)


def _amplified_difference(picture: Frame, other: Frame) -> Frame:
    difference = np.abs(picture.astype(np.int16) - other)
    return np.asarray(np.clip(_GAIN * difference, 0, 255), np.uint8)
