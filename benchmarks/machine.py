"""How fast this machine is now: a matrix product and a copy. Nothing of unblur is in these two.

    python -m benchmarks.machine

They are measured with every run of all benchmarks: where they differ from those of another run, the machine itself
does (its clock, its temperature, who else works on it), and other times differ with it.
"""

from typing import Annotated

import typer

from benchmarks.command import Json, log, print_report, run
from benchmarks.figures import Report, of_repeats
from unblur.runtime.profile.roofline import measure_peaks


def main(repeats: Annotated[int, typer.Option(min=2)] = 5, json: Json = False) -> None:
    """Measure both peaks; no bound is set for them."""
    peaks = []
    for number in range(1, repeats + 1):
        peaks.append(measure_peaks())
        log(f"{number}: {peaks[-1].gflops['fp32']:.0f} GFLOP/s, {peaks[-1].gbytes_per_s:.1f} GB/s")
    figures = (
        of_repeats("float32 matrix product", "GFLOP/s", [peak.gflops["fp32"] for peak in peaks], "higher"),
        of_repeats("copy", "GB/s", [peak.gbytes_per_s for peak in peaks], "higher"),
    )
    print_report(Report("machine", figures, {"source": peaks[0].source}), json=json)


if __name__ == "__main__":
    run(main)
