"""Networks from elsewhere: what inspection finds out, what users state, and what is refused in one line."""

import re
from collections.abc import Callable
from pathlib import Path

import foreign_networks as foreign
import numpy as np
import pytest
from onnx import ModelProto

from unblur.runtime.errors import BadInput, DeviceError, SpecMismatch
from unblur.runtime.images import read_image, write_image
from unblur.runtime.loops.session import RunRequest, open_file_session
from unblur.runtime.model import inspect_onnx as inspection
from unblur.runtime.model.deblurrer import Deblurrer
from unblur.runtime.model.inspect_onnx import inspect_onnx
from unblur.runtime.model.onnx_header import read_header
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.spec import FOREIGN, ModelSpec, SpecOverrides

Make = Callable[[], ModelProto]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/unblur/specs"


def spec_of(make: Make, folder: Path, overrides: SpecOverrides = SpecOverrides()) -> ModelSpec:
    return inspect_onnx(foreign.write(make, folder), overrides).spec


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (foreign.plain, {"receptive_field": 2, "pooling": "none", "multiple_of": 1, "output": "image"}),
        (foreign.grey, {"colour": "grey", "receptive_field": 2}),
        (foreign.residual, {"output": "residual", "output_name": "correction"}),
        (foreign.layer_norm, {"multiple_of": 1, "receptive_field": 2, "pooling": "none"}),
        (foreign.three_outputs, {"output_name": "full", "multiple_of": 4, "scale": 1}),
        (foreign.signed, {"value_range": (-1.0, 1.0), "output": "image"}),
        (foreign.fixed, {"fixed_hw": (64, 96), "multiple_of": 1, "receptive_field": 1}),
        (foreign.twice, {"scale": 2, "receptive_field": 1}),
        (foreign.global_pooling, {"receptive_field": 0, "pooling": "global"}),
        (foreign.half_floats, {"receptive_field": 1}),
        (foreign.multiple_of_8, {"multiple_of": 8, "receptive_field": 1}),
    ],
)
def test_what_is_found(make: Make, found: dict[str, object], tmp_path: Path) -> None:
    spec = spec_of(make, tmp_path)
    assert {name: getattr(spec, name) for name in found} == found
    assert (spec.system, spec.preset, spec.input_name) == (FOREIGN, make.__name__, "image")


def test_precision_is_that_of_the_weights(tmp_path: Path) -> None:
    assert inspect_onnx(foreign.write(foreign.plain, tmp_path)).precision == "fp32"
    assert inspect_onnx(foreign.write(foreign.half_floats, tmp_path)).precision == "fp16"


def test_what_was_found_is_remembered(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = foreign.write(foreign.three_outputs, tmp_path)
    first = inspect_onnx(path)
    (note,) = cache.iterdir()
    monkeypatch.setattr(inspection, "_Probe", None)
    assert inspect_onnx(path) == first
    note.write_text("damaged")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none/of/these"))
    assert inspect_onnx(path) == first


def test_what_a_user_states_is_taken_and_shown(tmp_path: Path) -> None:
    path = foreign.write(foreign.plain, tmp_path)
    assert inspect_onnx(path).lines == (
        "input image, output restored, RGB, sides multiples of 1, scale 1",
        "an output pixel sees 2 pixels; the output is an image",
        "values from 0 to 1 (a guess, --value-range states it)",
    )
    found = inspect_onnx(path, SpecOverrides(value_range=(0.0, 255.0), colour="BGR", multiple_of=4))
    assert found.spec.multiple_of == 4
    assert found.lines[0] == "input image, output restored, BGR, sides multiples of 4, scale 1"
    assert found.lines[2] == "values from 0 to 255 (stated)"


def test_of_several_outputs_the_one_of_full_size_is_taken_and_the_others_named(tmp_path: Path) -> None:
    line = inspect_onnx(foreign.write(foreign.three_outputs, tmp_path)).lines[0]
    assert line == (
        "of its 3 outputs (quarter 1x3x17x25, half 1x3x34x50, full 1x3x68x100) full, of full size, is taken; "
        "--output-name states another"
    )


def two_images() -> ModelProto:
    graph = foreign.Graph()
    for name in ("first", "second"):
        graph.add("Identity", ["image"], name)
    return graph.model({"image": foreign.FREE}, {"first": foreign.FREE, "second": foreign.FREE})


def two_inputs() -> ModelProto:
    graph = foreign.Graph()
    graph.add("Add", ["image", "noise"], "restored")
    return graph.model({"image": foreign.FREE, "noise": foreign.FREE}, {"restored": foreign.FREE})


def five_channels() -> ModelProto:
    graph = foreign.Graph()
    graph.add("Identity", ["image"], "restored")
    return graph.model({"image": (1, 5, "h", "w")}, {"restored": (1, 5, "h", "w")})


def free_in_one_direction() -> ModelProto:
    graph = foreign.Graph()
    graph.add("Identity", ["image"], "restored")
    return graph.model({"image": (1, 3, 64, "w")}, {"restored": (1, 3, 64, "w")})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (foreign.classifier, r"gives logits 1x10 for an image of 96x96, expected an image of that size or a whole"),
        (foreign.detector, r"gives boxes 1x4x\d+x\d+, scores 1x1x.*; a classifier or a detector cannot be run"),
        (foreign.channels_last, r"takes image nxhxwx3, channels last; .*--inputs-as-nchw image"),
        (two_inputs, r"has 2 inputs \(image nx3xhxw, noise nx3xhxw\), expected one image"),
        (two_images, r"has 2 outputs \(first 1x3x65x97, .*\); give --output-name, for example second, one of full"),
        (five_channels, r"takes image 1x5xhxw, expected an image of 1 or 3 channels"),
        (free_in_one_direction, r"takes image 1x3x64xw, free in one direction only; export it with both sides"),
    ],
)
def test_what_is_not_a_network_from_image_to_image(make: Make, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecMismatch, match=message) as refused:
        spec_of(make, tmp_path)
    assert "\n" not in str(refused.value)


def test_a_name_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecMismatch, match=r"has no output 'x'; it has quarter nx3xh4xw4, half nx3xh2xw2, full"):
        spec_of(foreign.three_outputs, tmp_path, SpecOverrides(output_name="x"))
    with pytest.raises(SpecMismatch, match=r"has no input 'x'; it has image nx3xhxw"):
        spec_of(foreign.plain, tmp_path, SpecOverrides(input_name="x"))


def test_an_output_that_is_too_small_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(SpecMismatch, match="expected an image of that size or a whole multiple of it"):
        spec_of(foreign.three_outputs, tmp_path, SpecOverrides(output_name="half"))


def test_external_data(tmp_path: Path) -> None:
    path = foreign.write(foreign.plain, tmp_path, external=True)
    assert read_header(path).external == ("plain.onnx.data",)
    assert inspect_onnx(path).spec.receptive_field == 2
    (tmp_path / "plain.onnx.data").unlink()
    with pytest.raises(BadInput, match=r"plain\.onnx keeps its weights in plain\.onnx\.data, which is not there"):
        OnnxRunner(path)


def test_an_operator_that_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"not an ONNX file that runs here: .*DeformableConvolution"):
        OnnxRunner(foreign.write(foreign.unknown_operator, tmp_path))


def test_a_file_of_more_than_2_gib(tmp_path: Path) -> None:
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(BadInput, match=r"large\.onnx has 3\.0 GiB, an ONNX file holds less than 2; save its"):
        OnnxRunner(tmp_path / "large.onnx")


@pytest.mark.parametrize(
    "make", [foreign.plain, foreign.grey, foreign.layer_norm, foreign.half_floats, foreign.fixed]
)
def test_it_runs_as_a_model_of_ours(make: Make, tmp_path: Path) -> None:
    batch = np.random.default_rng(1).uniform(0, 1, (2, 3, 64, 96)).astype(np.float32)
    with OnnxRunner(foreign.write(make, tmp_path), threads=1) as runner:
        restored = runner.infer(batch).copy()
        first = runner.infer(batch[:1]).copy()
    assert restored.shape == batch.shape
    np.testing.assert_allclose(restored[:1], first, atol=2e-3)
    assert 0 < np.abs(restored - batch).mean() < 0.1


def test_a_residual_is_added(tmp_path: Path) -> None:
    batch = np.random.default_rng(1).uniform(0, 1, (1, 3, 64, 96)).astype(np.float32)
    with OnnxRunner(foreign.write(foreign.plain, tmp_path)) as whole:
        expected = whole.infer(batch).copy()
    with OnnxRunner(foreign.write(foreign.residual, tmp_path)) as runner:
        np.testing.assert_allclose(runner.infer(batch), expected, atol=1e-6)


def test_an_image_twice_as_large(tmp_path: Path) -> None:
    with OnnxRunner(foreign.write(foreign.twice, tmp_path)) as runner:
        assert runner.infer(np.zeros((1, 3, 8, 12), np.float32)).shape == (1, 3, 16, 24)


STATED = (
    SpecOverrides(),
    SpecOverrides(value_range=(-1.0, 1.0)),
    SpecOverrides(value_range=(0.0, 255.0)),
    SpecOverrides(value_range=(-0.5, 0.5), colour="BGR"),
    SpecOverrides(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    SpecOverrides(value_range=(0.0, 255.0), mean=(103.5, 116.3, 123.7), std=(57.4,), colour="BGR"),
)


@pytest.mark.parametrize("stated", STATED, ids=str)
def test_the_network_is_given_what_its_spec_says(stated: SpecOverrides, tmp_path: Path) -> None:
    """Its output is 0.5 times what it is given plus 0.1: worked out here in float64 from the definition."""

    def halved() -> ModelProto:
        return foreign.affine((0.5,) * 3, (0.1,) * 3)

    batch = np.random.default_rng(1).uniform(0, 1, (1, 3, 16, 24)).astype(np.float32)
    with OnnxRunner(foreign.write(halved, tmp_path), overrides=stated) as runner:
        restored, spec = runner.infer(batch).copy(), runner.spec
    low, high = spec.value_range
    order = slice(None, None, -1 if spec.colour == "BGR" else 1)
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (spec.mean, spec.std))
    taken = (batch[0, order].astype(np.float64) * (high - low) + low - mean) / std
    given = (0.5 * taken + 0.1) * std + mean
    np.testing.assert_allclose(restored[0], ((given - low) / (high - low))[order], atol=1e-5)


def test_files_that_are_not_protobuf(tmp_path: Path) -> None:
    for number, data in enumerate((b"\x0a\xff", b"\x0f", b"\x0a\x7f", b"\xff" * 11)):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=re.compile("ends within|wire type")):
            read_header(path)
        with pytest.raises(BadInput, match="is damaged or not an ONNX file"):
            OnnxRunner(path)


def test_an_image_larger_than_the_only_size_is_cut_into_tiles(tmp_path: Path) -> None:
    """The same convolution with free sides gives the same image."""

    def free() -> ModelProto:
        model = foreign.fixed(64, 96)
        for value in (*model.graph.input, *model.graph.output):
            for side, name in zip(value.type.tensor_type.shape.dim[2:], "hw", strict=True):
                side.dim_param = name
        return model

    frame = np.random.default_rng(1).integers(0, 256, (150, 200, 3), np.uint8)
    with (
        Deblurrer(foreign.write(free, tmp_path)) as whole,
        Deblurrer(foreign.write(foreign.fixed, tmp_path)) as tiles,
    ):
        assert tiles.plan((150, 200)).count == 9
        np.testing.assert_array_equal(tiles(frame), whole(frame))
        small = tiles(frame[:40, :50])
    assert small.shape == (40, 50, 3)


def test_an_image_that_cannot_be_cut_into_tiles(tmp_path: Path) -> None:
    def fixed_and_global() -> ModelProto:
        model = foreign.global_pooling()
        for value in (*model.graph.input, *model.graph.output):
            for side, length in zip(value.type.tensor_type.shape.dim, (1, 3, 64, 96), strict=True):
                side.dim_value = length
        return model

    with Deblurrer(foreign.write(fixed_and_global, tmp_path)) as deblur:
        assert deblur(np.zeros((64, 96, 3), np.uint8)).shape == (64, 96, 3)
        with pytest.raises(
            SpecMismatch,
            match=r"takes 64x96 only and sees the whole image, so an image of 65x96 cannot be cut "
            r"into tiles; export it again with free height and width \(dynamic_axes\)",
        ):
            deblur(np.zeros((65, 96, 3), np.uint8))


@pytest.mark.parametrize("tile", [None, 60 * 60])
def test_super_resolution_of_frames(tile: int | None, tmp_path: Path) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (90, 100, 3), np.uint8)
    path = foreign.write(foreign.twice, tmp_path)
    with Deblurrer(path, tile=tile) as deblur, Deblurrer(path) as whole:
        assert (deblur.plan((90, 100)).count > 1) == (tile is not None)
        np.testing.assert_array_equal(deblur(frame), whole(frame))
        assert deblur(frame).shape == (180, 200, 3)
        with pytest.raises(ValueError, match=r"out is uint8 \(90, 100, 3\), expected uint8 \(180, 200, 3\)"):
            deblur(frame, out=frame)


def test_a_video_grows_with_super_resolution(tmp_path: Path) -> None:
    source, sink = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write_image(source / "a.png", np.full((20, 30, 3), 90, np.uint8))
    request = RunRequest(str(foreign.write(foreign.twice, tmp_path)), str(source), (str(sink),))
    with open_file_session(request) as session:
        session.run()
    assert read_image(sink / "a.png").shape == (40, 60, 3)


def test_a_network_that_gives_nan_fails_and_names_the_frame(tmp_path: Path) -> None:
    source, sink = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for index, level in enumerate((90, 0)):
        write_image(source / f"{index}.png", np.full((20, 30, 3), level, np.uint8))
    request = RunRequest(str(foreign.write(foreign.not_finite, tmp_path)), str(source), (str(sink),))
    with (
        pytest.raises(DeviceError, match=r"frame 1: 'not_finite' gave NaN or infinity; try --precision fp32"),
        open_file_session(request) as session,
    ):
        session.run()
    assert not sink.exists()


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-0.5, 0.5), (0.0, 255.0)])
def test_the_range_is_guessed_from_what_comes_back(value_range: tuple[float, float], tmp_path: Path) -> None:
    """Contrast is lowered around the middle of the range: in another the image comes back darker or lighter."""
    middle = sum(value_range) / 2

    def contrast() -> ModelProto:
        return foreign.affine((0.9,) * 3, (0.1 * middle,) * 3)

    assert spec_of(contrast, tmp_path).value_range == value_range


def test_a_batch_of_another_size_than_the_only_one(tmp_path: Path) -> None:
    """It runs in tiles: of a convolution alone the result is that of the whole."""

    def larger() -> ModelProto:
        return foreign.fixed(100, 150)

    batch = np.random.default_rng(1).uniform(0, 1, (2, 3, 100, 150)).astype(np.float32)
    with (
        OnnxRunner(foreign.write(foreign.fixed, tmp_path)) as tiles,
        OnnxRunner(foreign.write(larger, tmp_path)) as whole,
    ):
        np.testing.assert_allclose(tiles.infer(batch), whole.infer(batch), atol=1e-6)
        np.testing.assert_allclose(tiles.timed_infer(batch)[0], whole.infer(batch), atol=1e-6)
        assert tiles.infer(batch[:, :, :20, :30]).shape == (2, 3, 20, 30)
