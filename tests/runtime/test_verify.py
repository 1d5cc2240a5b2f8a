"""`unblur verify` passes what is sound, fails what is not, and needs neither torch nor onnx."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from unblur.runtime.cli.main import app
from unblur.runtime.errors import BadInput, BundleError, SpecMismatch
from unblur.runtime.frames import Frame
from unblur.runtime.model.bundle import read_bundle, seal_bundle
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.quality.pairs import find_pairs
from unblur.runtime.quality.parity import measure
from unblur.runtime.quality.verify import verify
from unblur.runtime.spec import SPEC_KEY, ModelSpec


@pytest.fixture
def pairs(tmp_path: Path, make_frame: Callable[..., Frame]) -> Path:
    """Two pairs, 160 x 240 so that tiling can be tried."""
    folder = tmp_path / "pairs"
    for kind in ("blur", "sharp"):
        (folder / kind).mkdir(parents=True)
    for index in range(2):
        sharp = make_frame(160, 240 + 16 * index)
        blurred = ((sharp.astype(int) + np.roll(sharp, 1, axis=1) + np.roll(sharp, -1, axis=1)) // 3).astype(
            np.uint8
        )
        Image.fromarray(sharp).save(folder / f"sharp/{index}.png")
        Image.fromarray(blurred).save(folder / f"blur/{index}.png")
    return folder


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout


def reseal(bundle: Path, change: Callable[[], object]) -> None:
    manifest = read_bundle(bundle).manifest
    change()
    seal_bundle(bundle, manifest)


def test_a_sound_bundle_passes_with_every_number(tiny_bundle: Path, pairs: Path) -> None:
    code, text = call(tiny_bundle, "--pairs", pairs, "--threads", 1, "--json")
    document = json.loads(text)
    assert (code, document["integrity"], document["benefit"], document["pass"]) == (1, True, False, False)
    assert document["pairs"] == 2
    assert set(document["variants"]) == {"fp32", "fp16", "int8", "fp32-1", "fp16-1"}
    assert document["variants"]["fp32"]["delta_db"] == 0
    assert abs(document["variants"]["int8"]["delta_db"]) < 0.1
    assert 10 < document["variants"]["fp32"]["db"] < document["blurred_db"]  # random weights restore nothing
    assert [(hop["name"], hop["pass"]) for hop in document["hops"]] == [
        ("fp32 -> fp16", True),
        ("fp16 -> int8", True),
        ("fp32 -> fp16", True),
    ]
    assert len(document["golden"]) == 5
    assert document["tiling"]["psnr_db"] > 100


def test_people_get_tables(tiny_bundle: Path, pairs: Path) -> None:
    code, text = call(tiny_bundle, "--pairs", pairs)
    assert code == 1
    for words in ("fp32 -> fp16", "Golden vectors", "Against ground truth, 2 pairs", "Tiles against the whole"):
        assert words in text
    assert f"Integrity of {tiny_bundle}: passed\n" in text
    assert re.search(r"\nBenefit of \S+: MAKES THE IMAGES WORSE by 9\.\d\d dB\n$", text)


def test_without_pairs_parity_is_still_measured(tiny_bundle: Path) -> None:
    result = verify(tiny_bundle)
    assert result.passed
    assert (result.pairs, result.blurred_db, result.tiling) == (0, None, None)
    assert [len(ledger.hops) for ledger in result.ledgers] == [2, 1]


def test_progress_tells_stages_and_frames(tiny_bundle: Path, pairs: Path) -> None:
    told: list[object] = []

    def stage(name: str, total: int) -> Callable[[], object]:
        told.append((name, total))
        return lambda: told.append(1)

    verify(tiny_bundle, find_pairs(pairs), stage)
    assert told == [("fp32 -> fp16 -> int8 at 2 steps", 2), 1, 1, ("fp32 -> fp16 at 1 steps", 2), 1, 1]


def test_other_weights_than_at_build_fail(tiny_bundle: Path, make_onnx: Callable[..., Path]) -> None:
    swapped = make_onnx(scale=0.9).read_bytes()
    reseal(tiny_bundle, lambda: (tiny_bundle / "fp32.onnx").write_bytes(swapped))
    code, text = call(tiny_bundle, "--json")
    document = json.loads(text)
    assert (code, document["pass"]) == (1, False)
    assert [golden["passed"] for golden in document["golden"]] == [False, True, True, True, True]
    assert document["hops"][0]["reason"].endswith("dB from its reference, expected at least 55 dB")
    code, text = call(tiny_bundle)
    assert code == 1
    assert "\ngolden fp32 at 2 steps: " in text
    assert "\nfp32 -> fp16 at 2 steps: " in text
    assert text.rstrip().endswith(f"Integrity of {tiny_bundle}: FAILED")


def test_a_receptive_field_that_lies_fails(make_onnx: Callable[..., Path], pairs: Path) -> None:
    """A spec that claims less than the network sees leaves seams, which only tiling shows."""
    path = make_onnx(steps=4, scale=10)
    model = onnx.load(path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == SPEC_KEY)
    entry.value = replace(ModelSpec.from_json(entry.value, where="test"), receptive_field=1).to_json()
    onnx.save(model, path)
    code, text = call(path, "--pairs", pairs)
    assert code == 1
    assert "(none pooling, halo 16 px) FAILED" in text


def test_a_file_of_another_variant_is_refused(tiny_bundle: Path, make_onnx: Callable[..., Path]) -> None:
    other = make_onnx(steps=3).read_bytes()
    reseal(tiny_bundle, lambda: (tiny_bundle / "fp32.onnx").write_bytes(other))
    with pytest.raises(SpecMismatch, match="runs 3 steps, asked for 2"):
        verify(tiny_bundle)


def test_global_pooling_is_told_but_not_judged(make_onnx: Callable[..., Path], tmp_path: Path) -> None:
    for kind in ("blur", "sharp"):
        (tmp_path / kind).mkdir()
        ramp = np.linspace(0, 255, 640, dtype=np.uint8)
        Image.fromarray(np.tile(ramp[None, :, None], (64, 1, 3))).save(tmp_path / kind / "a.png")
    result = verify(make_onnx(pooling="global"), find_pairs(tmp_path))
    assert result.tiling is not None
    assert (result.tiling.halo, result.tiling.passed) == (256, True)
    assert result.tiling.psnr_db < 90


def test_a_changed_byte_stops_it(tiny_bundle: Path) -> None:
    report = tiny_bundle / "golden/input.npy"
    report.write_bytes(report.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match=r"golden/input\.npy"):
        verify(tiny_bundle)


def test_a_single_file_needs_pairs(tiny_onnx: Path, pairs: Path) -> None:
    with pytest.raises(BadInput, match="without anything to verify it against; give --pairs, or a bundle"):
        verify(tiny_onnx)
    _, text = call(tiny_onnx, "--pairs", pairs, "--json")
    assert json.loads(text)["variants"].keys() == {"fp32"}


def test_int8_is_judged_as_written(make_onnx: Callable[..., Path], pairs: Path) -> None:
    path = make_onnx(precision="int8")
    with OnnxRunner(path, graph_optimization=False) as runner:
        expected = measure([runner], find_pairs(pairs)).qualities
    assert verify(path, find_pairs(pairs)).ledgers[0].qualities == expected


def test_a_corrupt_picture_stops_it_before_anything_runs(tiny_bundle: Path, pairs: Path) -> None:
    picture = pairs / "sharp/1.png"
    picture.write_bytes(picture.read_bytes()[:-400])
    with pytest.raises(BadInput, match=r"sharp/1\.png is damaged"):
        call(tiny_bundle, "--pairs", pairs)


WITHOUT_TORCH_AND_ONNX = """
import sys
for name in ("torch", "onnx", "tensorrt", "onnxscript", "onnxsim", "accelerate", "safetensors"):
    sys.modules[name] = None  # any import of it now fails
from unblur.runtime.cli.main import main
main()
"""


def test_it_runs_without_torch_and_onnx(tiny_bundle: Path, pairs: Path) -> None:
    command = [
        sys.executable,
        "-c",
        WITHOUT_TORCH_AND_ONNX,
        "verify",
        str(tiny_bundle),
        "--pairs",
        str(pairs),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["integrity"] is True
