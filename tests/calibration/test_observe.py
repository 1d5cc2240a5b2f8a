from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from unblur.calibration import observe as observe_module
from unblur.calibration.observe import Kind, Observed, Range, cut, observe
from unblur.calibration.onnx_model import OnnxModel
from unblur.calibration.ranges import choose_range
from unblur.runtime.errors import CalibrationError, DeviceError
from unblur.runtime.frames import Batch

WIDTH = 8  # channels of every tensor
TENSORS = ("features1", "body1", "features2", "body2")


def _batches(count: int = 2) -> list[Batch]:
    rng = np.random.default_rng(2)
    return [rng.random((1, 3, *((16, 24), (32, 8))[index % 2]), np.float32) for index in range(count)]


def _values(model: OnnxModel, batches: list[Batch]) -> dict[str, NDArray[np.float32]]:
    """All values of `TENSORS`, all at once."""
    exposed = OnnxModel.of(model.copied())
    del exposed.graph.output[:]
    for name in TENSORS:
        exposed.graph.output.add(name=name).type.tensor_type.elem_type = 1
    session = exposed.session()
    runs = [session.run(None, {"blurred": batch}) for batch in batches]
    return {name: np.concatenate([run[index].ravel() for run in runs]) for index, name in enumerate(TENSORS)}


def _with_bias(model: OnnxModel, name: str, value: float) -> OnnxModel:
    changed = OnnxModel.of(model.copied())
    bias = next(tensor for tensor in changed.graph.initializer if tensor.name == name)
    bias.CopyFrom(numpy_helper.from_array(np.full(8, value, np.float32), name))
    return changed


def _assert_same(first: dict[str, Observed], second: dict[str, Observed]) -> None:
    assert list(first) == list(second)
    for name, seen in first.items():
        assert seen.range == second[name].range
        left, right = seen.histogram, second[name].histogram
        assert left is not None
        assert right is not None
        assert left.top == right.top
        assert np.array_equal(left.counts, right.counts)


def test_ranges_and_histograms_are_those_of_the_tensors_over_all_batches(fp32: OnnxModel) -> None:
    batches = _batches()
    observed = observe(fp32, [*TENSORS, "blurred"], batches, kind="histograms")
    for name, values in _values(fp32, batches).items():
        seen = observed[name]
        assert seen.range.lowest == pytest.approx(values.min(), abs=1e-6)
        assert seen.range.highest == pytest.approx(values.max(), abs=1e-6)
        assert seen.histogram is not None
        assert seen.histogram.total == values.size
        expected = np.histogram(np.abs(values), seen.histogram.edges)[0]
        assert np.abs(np.cumsum(seen.histogram.counts) - np.cumsum(expected)).max() <= 2  # another order of sums
    images = np.concatenate([batch.ravel() for batch in batches])
    assert observed["blurred"].range == Range(float(images.min()), float(images.max()))


def test_ranges_alone_are_the_same(fp32: OnnxModel) -> None:
    ranges = observe(fp32, TENSORS, _batches(), kind="ranges")
    histograms = observe(fp32, TENSORS, _batches(), kind="histograms")
    assert {name: seen.range for name, seen in ranges.items()} == {
        name: seen.range for name, seen in histograms.items()
    }
    assert all(seen.histogram is None for seen in ranges.values())


def test_large_activations_are_fetched_in_groups(fp32: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    together = observe(fp32, TENSORS, _batches(3), kind="histograms")
    monkeypatch.setattr(observe_module, "_GROUP_BYTES", 3 * 32 * 8 * WIDTH * 4)  # three tensors of a small picture
    opened: list[tuple[str, ...]] = []
    monkeypatch.setattr(observe_module, "cut", lambda model, group: opened.append(group) or cut(model, group))
    in_groups = observe(fp32, TENSORS, _batches(3), kind="histograms")
    for name, seen in in_groups.items():  # what is fused depends on the group, and so does the last bit
        assert seen.range.magnitude == pytest.approx(together[name].range.magnitude, rel=1e-5)
        assert seen.histogram is not None
        assert seen.histogram.total == (2 * 16 * 24 + 32 * 8) * WIDTH
    large, small = [TENSORS[:2], TENSORS[2:]], [TENSORS[:3], TENSORS[3:]]
    assert opened == [TENSORS, *large, *small, *large]  # all on a corner, then what each size of picture needs


def test_a_cut_graph_computes_no_more_than_it_must(fp32: OnnxModel) -> None:
    part = cut(fp32, ["body1"])
    assert [node.name for node in part.graph.node] == ["embed_1", "relu_1", "body_1"]
    assert [output.name for output in part.graph.output] == ["body1"]


def test_one_batch_is_held_at_a_time_and_progress_counts(fp32: OnnxModel) -> None:
    seen: list[str] = []

    def batches() -> Iterator[Batch]:
        for number, batch in enumerate(_batches()):
            seen.append(f"read {number}")
            yield batch

    observe(fp32, ["features1"], batches(), kind="ranges", progress=lambda: seen.append("done"))
    assert seen == ["read 0", "done", "read 1", "done"]


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_one_constant_picture_gives_ranges_that_have_a_scale(fp32: OnnxModel, level: float) -> None:
    picture = np.full((1, 3, 16, 24), level, np.float32)
    observed = observe(fp32, [*TENSORS, "blurred"], [picture], kind="histograms")
    for method in ("minmax", "percentile", "entropy", "mse"):
        chosen = {name: choose_range(seen, method).magnitude for name, seen in observed.items()}
        assert chosen["blurred"] == pytest.approx(level or 1.0, rel=1 / 1024)
        assert min(chosen.values()) / 127 > 1e-6


def test_no_pictures_is_an_error(fp32: OnnxModel) -> None:
    with pytest.raises(CalibrationError, match="no calibration pictures were given"):
        observe(fp32, ["features1"], [], kind="ranges")


@pytest.mark.parametrize("kind", ["ranges", "histograms"])
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_damaged_weights_are_named_by_tensor_and_picture(fp32: OnnxModel, kind: Kind, bad: float) -> None:
    model = _with_bias(fp32, "body.b", bad)
    with pytest.raises(CalibrationError, match=r"'body1' is not finite on calibration picture 1 \(a\.png\)"):
        observe(model, ["features1", "body1"], _batches(), kind=kind, names=["a.png", "b.png"])


def test_one_bad_value_among_many_is_found(fp32: OnnxModel) -> None:
    batches = _batches()
    batches[1][0, 1, 7, 3] = np.nan
    with pytest.raises(CalibrationError, match=r"'blurred' is not finite on calibration picture 2;"):
        observe(fp32, ["blurred"], batches, kind="ranges")


def test_a_provider_that_is_not_there_is_named(fp32: OnnxModel) -> None:
    with pytest.raises(DeviceError, match=r"has no NoneExecutionProvider, it has .*CPUExecutionProvider"):
        observe(fp32, TENSORS, _batches(), kind="ranges", providers=["NoneExecutionProvider"])


class Killed(BaseException):
    """Stands for a signal."""


def _killed_after(count: int) -> Iterator[Batch]:
    yield from _batches(count)
    raise Killed


def test_a_killed_run_goes_on_where_it_was(
    fp32: OnnxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = observe(fp32, TENSORS, _batches(8), kind="histograms")
    state = tmp_path / "state.npz"
    with pytest.raises(Killed):
        observe(fp32, TENSORS, _killed_after(6), kind="histograms", state=state)
    looked: list[str] = []
    look = observe_module._look
    monkeypatch.setattr(observe_module, "_look", lambda name, *rest: looked.append(name) or look(name, *rest))
    done: list[None] = []
    resumed = observe(
        fp32, TENSORS, _batches(8), kind="histograms", state=state, progress=lambda: done.append(None)
    )
    _assert_same(resumed, whole)
    assert len(looked) == 4 * len(TENSORS)  # 4 of 8 were saved
    assert len(done) == 8
    looked.clear()
    _assert_same(observe(fp32, TENSORS, _batches(8), kind="histograms", state=state), whole)
    assert not looked


@pytest.mark.parametrize("field", ["model", "tensors", "histograms", "pictures", "schema"])
def test_the_state_of_another_run_is_refused(
    fp32: OnnxModel, tmp_path: Path, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state.npz"
    observe(fp32, TENSORS, _batches(4), kind="ranges", state=state)
    model, tensors, batches, kind = fp32, TENSORS, _batches(4), "ranges"
    if field == "model":
        model = _with_bias(fp32, "body.b", 0.5)
    elif field == "tensors":
        tensors = TENSORS[:2]
    elif field == "histograms":
        kind = "histograms"
    elif field == "pictures":
        batches[2][0, 0, 0, 0] += 0.1
    else:
        monkeypatch.setattr("unblur.calibration.observation.SCHEMA", 2)
    with pytest.raises(CalibrationError, match=rf"state\.npz was saved by another.* its '{field}' is .*, expected"):
        observe(model, tensors, batches, kind=kind, state=state)


def test_a_state_of_fewer_pictures_than_it_saw_is_refused(fp32: OnnxModel, tmp_path: Path) -> None:
    state = tmp_path / "state.npz"
    observe(fp32, TENSORS, _batches(4), kind="ranges", state=state)
    with pytest.raises(CalibrationError, match="its 'pictures' is"):
        observe(fp32, TENSORS, _batches(3), kind="ranges", state=state)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_damaged_state_is_refused(fp32: OnnxModel, tmp_path: Path, damage: str) -> None:
    state = tmp_path / "state.npz"
    observe(fp32, TENSORS, _batches(), kind="histograms", state=state)
    contents = {"truncated": state.read_bytes()[:900], "empty": b"", "text": b"hello"}[damage]
    state.write_bytes(contents)
    with pytest.raises(CalibrationError, match=r"state\.npz is damaged or no saved observation; delete it"):
        observe(fp32, TENSORS, _batches(), kind="histograms", state=state)
