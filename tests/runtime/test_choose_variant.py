"""The variant that runs is the one that was the fastest on this device, among those that are right."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_workshop import Workshop

from unblur.runtime.errors import DeviceError, EngineMismatch
from unblur.runtime.frames import Batch
from unblur.runtime.model import choose_variant as module
from unblur.runtime.model import open_model
from unblur.runtime.model.bundle import ENGINES, Bundle, read_bundle, seal_bundle
from unblur.runtime.model.choose_variant import CHOICE, Choice, cache_folder, candidates_of, choose_variant
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.model.open_model import choice_for, open_runner
from unblur.runtime.runner import Runner, RunnerOptions
from unblur.runtime.spec import Device, Precision


class SlowRunner(OnnxRunner):
    """Computes what the file does; says how long that takes instead of taking it."""

    def __init__(self, path: Path, ms: float, offset: float = 0.0) -> None:
        super().__init__(path, graph_optimization=False)
        self.ms = ms
        self._offset = np.float32(offset)

    def infer(self, batch: Batch) -> Batch:
        return np.asarray(super().infer(batch) + self._offset)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture
def real_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Candidates are timed, and the choice is kept in a cache of this test's own."""
    monkeypatch.setattr(open_model, "choose_variant", choose_variant)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


Times = dict[tuple[Precision, Device], float | Exception]


@pytest.fixture
def choose(real_choice: None, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Choice]:
    monkeypatch.setattr(module, "frame_ms", lambda runner, frame: runner.ms)

    def choose_among(times: Times, **wrong: float) -> Choice:
        def open_candidate(precision: Precision, device: Device) -> Runner:
            ms = times[precision, device]
            if isinstance(ms, Exception):
                raise ms
            return SlowRunner(bundle.path / f"{precision}.onnx", ms, wrong.get(precision, 0.0))

        monkeypatch.setattr(module, "candidates_of", lambda bundle: iter(times))
        return choose_variant(bundle, open_candidate)

    return choose_among


def test_the_fastest_comes_first(choose: Callable[..., Choice]) -> None:
    on_openvino: Times = {("fp32", "openvino"): 31, ("int8", "openvino"): 11.2}
    choice = choose({**on_openvino, ("fp32", "cpu"): 40, ("int8", "cpu"): 3270})
    assert str(choice) == (
        "int8 on openvino 11.2 ms, fp32 on openvino 31 ms, fp32 on cpu 40 ms, int8 on cpu 3270 ms"
    )
    assert choice.size_hw == (360, 640)


def test_int8_is_not_chosen_where_it_is_slower(choose: Callable[..., Choice]) -> None:
    assert choose({("int8", "cpu"): 12, ("fp32", "cpu"): 11}).ranked()[0].precision == "fp32"


def test_the_fastest_is_not_chosen_where_it_is_wrong(choose: Callable[..., Choice]) -> None:
    choice = choose({("int8", "openvino"): 1, ("fp32", "cpu"): 11}, int8=0.1)
    assert str(choice) == "fp32 on cpu 11 ms"
    assert choice.candidates[0].reason.startswith("int8 on cpu (onnxruntime")
    assert choice.candidates[0].reason.endswith("dB from its reference, expected at least 35 dB")


def test_what_cannot_be_opened_says_why(choose: Callable[..., Choice]) -> None:
    choice = choose({("fp16", "cuda"): DeviceError("no driver"), ("fp32", "cpu"): 11})
    assert [(each.ms, each.reason) for each in choice.candidates] == [(None, "no driver"), (11, "")]
    assert str(choose({("fp16", "cuda"): DeviceError("no driver")})) == "fp32 on cpu 11 ms"  # as it was kept


def test_it_is_timed_once_for_a_device_and_a_bundle(
    real_choice: None, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "unblur")
    first = choice_for(bundle, 1)
    assert choice_for(bundle, 1) == first
    assert caplog.messages == ["tiny is timed on this device, once"]
    (note,) = cache_folder().glob("choice-*.json")
    assert json.loads(note.read_text())["key"] == first.key
    note.write_text("{}")
    assert choice_for(bundle, 1).key == first.key  # damaged: timed again
    assert choice_for(bundle, 2).key != first.key
    monkeypatch.setattr(module, "version", lambda package: "99")
    assert choice_for(bundle, 1).key != first.key
    monkeypatch.undo()
    seal_bundle(bundle.path, replace(bundle.manifest, name="another"))
    assert choice_for(read_bundle(bundle.path), 1).key != first.key


def test_it_is_kept_beside_the_engines(real_choice: None, workshop: Workshop) -> None:
    workshop.build_variant("fp16")
    path = workshop.folder.parent
    choice = choice_for(read_bundle(path), 1)
    assert (path / ENGINES / CHOICE).is_file()
    assert ("fp16", "tensorrt") in [(each.precision, each.device) for each in choice.ranked()]
    assert not cache_folder().joinpath(f"choice-{choice.key[:16]}.json").exists()
    read_bundle(path)  # is still whole
    workshop.build_variant("int8")
    assert choice_for(read_bundle(path), 1).key != choice.key


def test_the_candidates_of_this_machine(bundle: Bundle) -> None:
    found = list(candidates_of(bundle))
    assert found[-2:] == [("fp32", "cpu"), ("int8", "cpu")]
    assert {precision for precision, device in found if device == "openvino"} <= {"fp32", "int8"}


def test_real_runners_are_timed_and_the_best_is_opened(real_choice: None, bundle: Bundle) -> None:
    best = choice_for(bundle, 1).ranked()[0]
    with open_runner(bundle.path, RunnerOptions(threads=1)) as runner:
        assert runner.precision == best.precision
        assert ("openvino" in runner.device) is (best.device == "openvino")
    for device, named in (("cpu", "onnxruntime"), ("openvino", "openvino")):
        with open_runner(bundle.path, RunnerOptions(threads=1, device=device)) as runner:  # type: ignore[arg-type]
            assert named in runner.device
    with open_runner(bundle.path, RunnerOptions("int8", threads=1)) as runner:
        assert runner.precision == "int8"


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    real_choice: None,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert choice_for(bundle, 1).ranked()
    assert "the choice of the variant cannot be kept in" in caplog.text


def test_a_device_that_no_variant_runs_on(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, real_choice: None
) -> None:
    workshop.build_variant("fp16", bias=0.1)
    with pytest.raises(EngineMismatch, match=r"does not run on TensorRT: fp16 engine: .* expected at least 50 dB"):
        open_runner(workshop.folder.parent, RunnerOptions(device="tensorrt"))


def test_providers_of_onnx_runtime_are_candidates_where_they_are_installed(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
    workshop.build_variant("fp16")
    found = [
        each for each in candidates_of(read_bundle(workshop.folder.parent)) if each[1] not in ("cpu", "openvino")
    ]
    assert sorted(found) == [
        ("fp16", "cuda"),
        ("fp16", "tensorrt"),
        ("fp32", "cuda"),
        ("fp32", "ort-tensorrt"),
        ("int8", "ort-tensorrt"),
    ]
