"""Three published networks that unblur did not train, from their authors' code to engines, in an empty home folder.

    python -m benchmarks.own_network --nafnet NAFNet --mimo MIMO-UNet --dmphn DMPHN-cvpr19-master
    python -m benchmarks.own_network --dmphn DMPHN-cvpr19-master --only times

The folders hold the code as published, see own_network_nets.py; networks without one are skipped. DMPHN has its
trained weights and is measured on whole frames; the others have random ones, and crops show what INT8 does to them.
A command works if it exits with 0; `verify` and `deploy` with 1 too, a verdict: random weights improve nothing.
Prints a Markdown table, and whether the bounds are kept.
"""

import csv
import json as jsonlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnx
import typer

from benchmarks.command import Json, NotMeasured, last_line, log, print_report, run, unblur
from benchmarks.figures import Figure, Report
from unblur.runtime.images import write_image
from unblur.runtime.model.onnx_runner import describe_onnx
from unblur.runtime.quality.pairs import Pair, find_pairs, read_pair

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared/data"
PUBLISHED_DB = {"00": 29.79, "01": 27.11, "05": 33.52}  # of DMPHN(1-2-4) by its authors' code
SAME_DB, FP16_DB, INT8_DB, PROBE_S, PROBE_MIB = 0.05, 0.02, 0.1, 20.0, 1024.0
CROP_HW, CALIBRATION_HW = (256, 384), (256, 384)
TARGET = "rtx-sm86"
STATED = {"nafnet": ("--value-range=0,1",), "mimo": ("--value-range=0,1",), "dmphn": ()}  # random weights mislead
_PROBE = """
import sys, time
from pathlib import Path
from benchmarks.memory import peak_mib
from unblur.runtime.model.inspect_onnx import inspect_onnx
began = time.perf_counter()
inspect_onnx(Path(sys.argv[1]))
print(time.perf_counter() - began, peak_mib())
"""


@dataclass
class Subject:
    """A network on its way through the commands, each run in `folder` with a home of its own.

    failed: command -> its last words. documents: command -> what it printed with --json.
    """

    name: str
    code: Path
    folder: Path
    tried: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    documents: dict[str, Any] = field(default_factory=dict)

    @property
    def onnx(self) -> Path:
        return self.folder / f"{self.name}.onnx"

    @property
    def int8(self) -> Path:
        return self.folder / f"{self.name}-int8.onnx"

    @property
    def bundle(self) -> Path:
        return self.folder / f"{self.name}.unblur"

    def unblur(self, *arguments: object, label: str = "", seconds: float | None = None) -> Any:
        """Run a command; what it printed as JSON, {} otherwise. seconds: interrupt it then, as Ctrl-C does."""
        label = label or str(arguments[0])
        self.tried.append(label)
        stop = [] if seconds is None else ["timeout", "--preserve-status", "-s", "INT", str(seconds)]
        done = self.process([*stop, *unblur(*map(str, arguments))])
        fine = (0, 1) if label.startswith(("verify", "deploy")) else (0,)
        if done.returncode not in fine:
            self.failed[label] = last_line(done.stderr)
        log(f"{self.name}: {label}: {self.failed.get(label, 'works')}")
        self.documents[label] = jsonlib.loads(done.stdout) if done.stdout.startswith("{") else {}
        return self.documents[label]

    def process(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
        environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )


def export(subject: Subject) -> None:
    """The network as ONNX, without what unblur wrote into it; NotMeasured if that fails."""
    factory = f"benchmarks.own_network_nets:{subject.name}"
    subject.unblur("export", factory, "--set", f"folder={subject.code}", "-o", subject.onnx, "--json")
    if subject.failed:
        raise NotMeasured(f"{subject.name} cannot be exported: {subject.failed['export']}")
    model = onnx.load(subject.onnx)
    del model.metadata_props[:]
    onnx.save(model, subject.onnx)


def probe(subject: Subject) -> tuple[float, float]:
    """Seconds and MiB of finding the spec, in a process of its own; `export` has left it in the cache."""
    shutil.rmtree(subject.folder / "home/.cache", ignore_errors=True)
    done = subject.process([sys.executable, "-c", _PROBE, str(subject.onnx)])
    if done.returncode:
        raise NotMeasured(f"{subject.name} cannot be inspected: {last_line(done.stderr)}")
    seconds, mib = map(float, done.stdout.split()[-2:])
    return seconds, mib


def commands(subject: Subject, pairs: Path, whole: Path, calibration: Path) -> None:
    """Every command that takes a network. pairs: crops. whole: what `evaluate` sees."""
    file = (subject.onnx, *STATED[subject.name])
    bundle, image = subject.bundle, next((pairs / "blur").iterdir())
    subject.unblur("doctor", *file, "--json")
    subject.unblur("lint", *file, "--json")
    subject.unblur("run", *file, "--source", image, "--sink", subject.folder / "restored.png")
    subject.unblur("evaluate", *file, "--data", whole, "-o", subject.folder / "evaluation")
    subject.unblur("verify", *file, "--pairs", whole, "--json", label="verify fp32")
    subject.unblur("profile", *file, "--size", "64x96", "--seconds", 1, "--warm-up", 1, "--json")
    subject.unblur("preview", *file, "--source", "test://moving", "--port", 0, seconds=30)
    budget = ("--images", calibration, "--budget-db", INT8_DB)
    subject.unblur("calibrate", *file, *budget, "-o", subject.int8, "--json")
    subject.unblur("verify", subject.int8, "--pairs", whole, "--json", label="verify int8")
    subject.unblur("build", *file, "--target", TARGET, "--json", label="build fp32")
    deploy = ("--calibration", calibration, "--pairs", pairs, "--budget-db", INT8_DB, "--keep-failed", "-o", bundle)
    subject.unblur("deploy", *file, *deploy, "--json")
    subject.unblur("build", bundle, "--target", TARGET, "--precision", "fp16,int8", "--json")
    subject.unblur("verify", bundle / "fp16.onnx", "--pairs", whole, "--json", label="verify fp16")
    subject.unblur("verify", bundle, "--json")
    subject.unblur("report", bundle, "--no-profile", "-o", subject.folder / "page.html", "--json")


def row(subject: Subject, seconds: float, mib: float) -> str:
    """One line of the table, without the time of a frame."""
    documents, spec = subject.documents, describe_onnx(subject.onnx)[0]
    known: dict[str, Any] = next(
        (each["report"] for each in documents["report"].get("bundles", ()) if each["report"]["int8"]), {}
    )
    sees = f"sees {spec.receptive_field} px" if spec.receptive_field else "sees the whole image"
    cells = [
        subject.name,
        f"{known.get('parameters', 0) / 1e6:.2f} M",
        f"{known.get('gflop_720p', 0):.0f}",
        f"{spec.takes}, {spec.output}, {sees}",
        f"{seconds:.1f} s, {mib:.0f} MiB",
        f"{100 * documents['calibrate'].get('int8_macs', 0):.1f} %",
        f"{loss_db(subject, 'int8'):.3f}",
        " / ".join(f"{each['bytes'] / 1e6:.1f}" for each in engines(subject)),
        f"{len(subject.tried) - len(subject.failed)} / {len(subject.tried)}",
    ]
    return f"| {' | '.join(cells)} |"


def engines(subject: Subject) -> list[dict[str, Any]]:
    """fp32, fp16 and INT8, as far as they were built."""
    return [each for name in ("build fp32", "build") for each in subject.documents[name].get("engines", ())]


def loss_db(subject: Subject, precision: str) -> float:
    """PSNR that a variant loses against fp32 on the pairs; NaN if one of both was not measured."""
    found = [subject.documents[f"verify {name}"].get("variants", {}).get(name, {}) for name in ("fp32", precision)]
    fp32_db, db = (each.get("db", float("nan")) for each in found)
    return float(fp32_db - db)


def figures(subject: Subject, seconds: float, mib: float) -> Iterator[Figure]:
    """What is asked of every network, and of DMPHN, which restores."""
    name, works = subject.name, len(subject.tried) - len(subject.failed)
    yield Figure(f"{name}: commands that work", "", works, "higher", asked=len(subject.tried))
    yield Figure(f"{name}: RTX engines", "", len(engines(subject)), "higher", asked=3)
    if name != "dmphn":
        return
    yield Figure(f"{name}: probing", "s", seconds, "lower", asked=PROBE_S)
    yield Figure(f"{name}: probing", "MiB", mib, "lower", asked=PROBE_MIB)
    for frame, db in restored_db(subject).items():
        if frame in PUBLISHED_DB:
            named = f"{name}, {frame}: {db:.3f} dB, from its authors' {PUBLISHED_DB[frame]}"
            yield Figure(named, "dB", abs(db - PUBLISHED_DB[frame]), "lower", asked=SAME_DB)
    for precision, asked in (("fp16", FP16_DB), ("int8", INT8_DB)):
        yield Figure(
            f"{name}: loss of {precision} on real frames", "dB", loss_db(subject, precision), "lower", asked=asked
        )


def restored_db(subject: Subject) -> dict[str, float]:
    """PSNR of each restored frame, as `evaluate` wrote it."""
    with (subject.folder / "evaluation/per_image.csv").open() as file:
        return {line["name"]: float(line["restored_psnr_db"]) for line in csv.DictReader(file)}


def frame_ms(subject: Subject) -> Figure:
    """The median time of a frame of 720p on this machine, fp32, and its interval."""
    options = ("--size", "720x1280", "--seconds", 5, "--warm-up", 5, "--json")
    found = subject.unblur("profile", subject.onnx, *STATED[subject.name], *options, label="profile of 720p")
    low, high = found["intervals_ms"]["p50"]
    return Figure(f"{subject.name}: 720p frame, fp32", "ms", found["latency_ms"]["p50"], "lower", (low, high))


def cropped(pairs: Sequence[Pair], size_hw: tuple[int, int], folder: Path) -> Path:
    """The centres of pairs, as a folder of pairs."""
    for pair in pairs:
        for side, frame in zip(("blur", "sharp"), read_pair(pair), strict=True):
            top, left = ((have - want) // 2 for have, want in zip(frame.shape[:2], size_hw, strict=True))
            (folder / side).mkdir(parents=True, exist_ok=True)
            crop = np.ascontiguousarray(frame[top : top + size_hw[0], left : left + size_hw[1]])
            write_image(folder / side / f"{Path(pair.name).name}.png", crop)
    return folder


def main(
    nafnet: Annotated[Path | None, typer.Option(help="Folder of NAFNet's code.")] = None,
    mimo: Annotated[Path | None, typer.Option(help="Folder of MIMO-UNet's code.")] = None,
    dmphn: Annotated[Path | None, typer.Option(help="Folder of DMPHN's code and weights.")] = None,
    pairs: Annotated[Path, typer.Option(help="Pairs to measure on.")] = DATA / "gopro_test",
    calibration: Annotated[Path, typer.Option(help="Pairs to calibrate on.")] = DATA / "gopro_train",
    only: Annotated[Literal["commands", "times"] | None, typer.Option(help="Default both.")] = None,
    json: Json = False,
) -> None:
    """Print the table and the bounds; exit 1 if one is missed. Without any folder there is nothing to do."""
    codes = {"nafnet": nafnet, "mimo": mimo, "dmphn": dmphn}
    given = {name: code.resolve() for name, code in codes.items() if code is not None}
    for name in (name for name in codes if name not in given):
        log(f"SKIPPED: {name}; give the folder of its authors' code by --{name}")
    found: list[Figure] = []
    log("| network | parameters | GFLOP | spec as found | probing | INT8 | INT8 loss dB | engines MB | commands |")
    with tempfile.TemporaryDirectory() as name:
        crops = cropped(find_pairs(pairs), CROP_HW, Path(name) / "pairs") if given else pairs
        learned = cropped(find_pairs(calibration)[::3], CALIBRATION_HW, Path(name) / "images") if given else pairs
        for network, code in given.items():
            subject = Subject(network, code, Path(name) / network)
            subject.folder.mkdir()
            export(subject)
            if only != "times":
                spent = probe(subject)
                commands(subject, crops, pairs if network == "dmphn" else crops, learned)
                log(row(subject, *spent))
                found += figures(subject, *spent)
            if only != "commands":
                found.append(frame_ms(subject))
    print_report(Report("own_network", tuple(found)), json=json)


if __name__ == "__main__":
    run(main)
