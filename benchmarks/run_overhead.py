"""What `unblur run` costs beside the network: its frame rate over that of a bare loop of `session.run`.

    python -m benchmarks.run_overhead --model lprn-s

The bare loop runs the same ONNX file on the same frames, converted beforehand, with ONNX Runtime's default options;
`unblur run` decodes, converts, infers, converts back and encodes. Both run in turn, several times; each ratio is of
neighbours in time, so that a machine whose speed drifts does not matter. Expected: at least 0.95.
"""

import tempfile
import time
from json import loads
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import typer

from benchmarks.clip import write_clip
from benchmarks.command import Json, Model, log, output_of, print_report, run, unblur
from benchmarks.figures import Report, of_repeats
from unblur.runtime.frames import Padding, batch_from_frame
from unblur.runtime.media.open_media import open_source
from unblur.runtime.model.bundle import read_bundle
from unblur.runtime.model.open_model import find_model
from unblur.runtime.spec import SPEC_KEY, ModelSpec

EXPECTED_RATIO = 0.95


def main(
    model: Model = "lprn-s",
    clip: Annotated[Path | None, typer.Option(help="Take the frames of this video; default synthetic.")] = None,
    frames: int = 100,
    height: int = 720,
    width: int = 1280,
    repeats: Annotated[int, typer.Option(min=2)] = 3,
    json: Json = False,
) -> None:
    """Measure both frame rates and their ratio; exit 1 below 0.95."""
    bare, whole = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        source = write_clip(Path(folder) / "clip.mp4", frames, (height, width), clip)
        for number in range(1, repeats + 1):
            bare.append(bare_fps(model, source))
            whole.append(run_fps(model, source))
            log(f"{number}: session.run {bare[-1]:.3f} fps, unblur run {whole[-1]:.3f} fps")
    ratios = [with_all / alone for with_all, alone in zip(whole, bare, strict=True)]
    figures = (
        of_repeats("frame rate of unblur run over session.run's", "", ratios, "higher", asked=EXPECTED_RATIO),
        of_repeats("unblur run", "frames/s", whole, "higher"),
        of_repeats("session.run", "frames/s", bare, "higher"),
    )
    print_report(Report("run_overhead", figures), json=json)


def bare_fps(model: str, source: Path) -> float:
    """Frames per second of `session.run` alone; one warm-up, which `unblur run` does not get."""
    session = onnxruntime.InferenceSession(_onnx_file(model))
    spec = ModelSpec.from_json(session.get_modelmeta().custom_metadata_map[SPEC_KEY], where=model)
    name = session.get_inputs()[0].name
    seconds: list[float] = []
    with open_source(str(source)) as frames:
        for frame in frames:
            padding = Padding.to_multiple((frame.rgb.shape[0], frame.rgb.shape[1]), spec.multiple_of)
            batch = batch_from_frame(frame.rgb, padding)
            if not seconds:
                session.run(None, {name: np.zeros_like(batch)})
            began = time.perf_counter()
            session.run(None, {name: batch})
            seconds.append(time.perf_counter() - began)
    return len(seconds) / sum(seconds)


def run_fps(model: str, source: Path) -> float:
    """Frames per second that `unblur run` reports, from the first read to the finished file."""
    files = ["--source", str(source), "--sink", str(source.with_name("sharp.mp4"))]
    return float(loads(output_of(unblur("run", model, *files, "--json")))["fps"])


def _onnx_file(model: str) -> Path:
    """The file that `unblur run MODEL` runs."""
    path = find_model(model)
    if path.is_dir():
        bundle = read_bundle(path)
        return bundle.path / bundle.variant("fp32", None).file
    return path


if __name__ == "__main__":
    run(main)
