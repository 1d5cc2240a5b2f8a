import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unblur.calibration.observe import observe
from unblur.calibration.onnx_model import OnnxModel, described, read_onnx
from unblur.calibration.table import at_fewer_steps, bound_to, check_fits, diff
from unblur.runtime.errors import BadInput, CalibrationError
from unblur.runtime.model.calibration_table import (
    CalibrationTable,
    Measured,
    Preprocessing,
    TensorRange,
    preprocessing_of,
    read_table,
)


@pytest.fixture
def table(fp32: OnnxModel) -> CalibrationTable:
    return CalibrationTable(
        method="percentile",
        percentile=99.99,
        step_policy="clamped",
        preset="tiny",
        steps=2,
        model_sha256=fp32.sha256,
        preprocessing=preprocessing_of(fp32.spec, size_hw=(64, 96), blurred=True),
        images={"a.png": "0" * 64, "b: c.png": "1" * 64},
        ranges={"features1": TensorRange(0.0, 1.7, 1.5), "features2": TensorRange(0.0, 1.9, 1.6)},
        implicit={"body1": TensorRange(-1 / 3, 0.25, 1 / 3)},
        kept={"gate.w": "attention gate"},
        excluded=("body.w",),
        reads={"body.w": ("features1", "features2")},
        measured=Measured(budget_db=0.1, delta_db=-0.03, int8_macs=0.75),
    )


def _edited(table: CalibrationTable, edit: Callable[[dict[str, Any]], object]) -> str:
    document = json.loads(table.to_json())
    edit(document)
    return json.dumps(document)


def test_a_table_is_read_as_it_was_written(table: CalibrationTable) -> None:
    text = table.to_json()
    again = CalibrationTable.from_json(text, where="table.json")
    assert again == table
    assert again.to_json() == text
    assert again.identity == table.identity != replace(table, steps=3).identity


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1), st.floats(allow_nan=False, allow_infinity=False), st.floats(1e-30, 1e30))
def test_no_range_and_no_name_is_changed_by_the_text(name: str, lowest: float, amax: float) -> None:
    table = CalibrationTable(
        "imported", None, "per-step", "x", 1, "0", Preprocessing("RGB", (0.0, 1.0), 1),
        {}, {name: TensorRange(lowest, amax, amax)}, {}, {}, {},
    )  # fmt: skip
    assert CalibrationTable.from_json(table.to_json(), where="") == table


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda raw: raw.update(schema=3),
            r"has schema 3, this version of unblur reads 2; expected a calibration table, calibrate again",
        ),
        (lambda raw: raw.pop("schema"), "schema None, this version of unblur reads 2"),
        (lambda raw: raw.pop("images"), "t.json: images is missing; expected a calibration table"),
        (lambda raw: raw.update(extra=1), "extra is not a field of this version"),
        (lambda raw: raw.update(method="kl"), "method is 'kl', expected one of 'minmax', 'percentile'"),
        (
            lambda raw: raw["ranges"]["features1"].update(amax="1"),
            r"ranges\.features1\.amax is '1', expected float",
        ),
        (
            lambda raw: raw["ranges"]["features1"].update(amax=0.0),
            "t.json: the amax of tensor 'features1' is 0.0, exp",
        ),
        (lambda raw: raw["implicit"]["body1"].update(amax="inf"), "amax of tensor 'body1' is inf, expected a pos"),
    ],
)
def test_a_field_that_is_wrong_is_named(
    table: CalibrationTable, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        CalibrationTable.from_json(_edited(table, edit), where="t.json")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe"])
def test_a_file_that_is_no_table_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(CalibrationError, match=r"t\.json.*; expected a calibration table"):
        read_table(tmp_path / "t.json")


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read .*none\.json: No such file.*; expected a calibration table"):
        read_table(tmp_path / "none.json")


def test_a_table_fits_its_own_model(table: CalibrationTable, fp32: OnnxModel, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(table.to_json())
    check_fits(read_table(tmp_path / "t.json"), fp32)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "preset",
            "lprn-s",
            "t.json does not fit the model 'tiny': its preset is 'lprn-s', the model's 'tiny'; cal",
        ),
        ("steps", 6, "its steps is 6, the model's 2"),
        ("model_sha256", "12", "its model_sha256 is '12', the model's '[0-9a-f]{64}'; .* `unblur table bind`"),
    ],
)
def test_a_foreign_table_is_refused_with_the_field(
    field: str, value: object, message: str, table: CalibrationTable, fp32: OnnxModel
) -> None:
    with pytest.raises(CalibrationError, match=message):
        check_fits(replace(table, **{field: value}), fp32, where="t.json")  # type: ignore[arg-type]


def test_another_way_to_feed_the_model_is_refused_with_the_field(table: CalibrationTable, fp32: OnnxModel) -> None:
    model = OnnxModel.of(fp32.copied())
    model = described(model.proto, replace(fp32.spec, value_range=(-1.0, 1.0)), "fp32")
    with pytest.raises(
        CalibrationError, match=r"its preprocessing\.value_range is \(0\.0, 1\.0\), the model's \(-1"
    ):
        check_fits(table, model)


def test_a_table_is_bound_to_other_weights_of_its_network_alone(table: CalibrationTable, fp32: OnnxModel) -> None:
    tuned = OnnxModel.of(fp32.copied())
    tuned.graph.initializer[0].raw_data = bytes(len(tuned.graph.initializer[0].raw_data))
    with pytest.raises(CalibrationError, match="model_sha256"):
        check_fits(table, tuned)
    check_fits(bound_to(table, tuned), tuned)
    foreign = replace(table, ranges={"relu_7": TensorRange(0, 1, 1)})
    with pytest.raises(
        CalibrationError, match="its tensor 'relu_7' is 'in the table', the model's 'not in the graph'"
    ):
        bound_to(foreign, tuned)


def _at_steps(fp32_file: Path, steps: int) -> OnnxModel:
    return read_onnx(fp32_file.with_name(f"fp32-{steps}.onnx"))


def test_a_table_at_fewer_steps_has_what_these_steps_read(stepped: Path) -> None:
    whole, first = read_onnx(stepped), _at_steps(stepped, 2)
    table = read_table(stepped.with_name("calibration.json"))
    fewer = at_fewer_steps(table, first)
    check_fits(fewer, first)
    assert fewer.reads.keys() == table.reads.keys()
    picture = np.random.default_rng(0).random((1, 3, 32, 48), np.float32)
    seen = observe(first, tuple(fewer.ranges), [picture], kind="ranges")
    expected = observe(whole, tuple(table.ranges), [picture], kind="ranges")
    for weight, tensors in fewer.reads.items():
        for tensor, name in zip(tensors, table.reads[weight], strict=False):
            assert fewer.ranges[tensor] == table.ranges[name]
            assert seen[tensor].range.magnitude == pytest.approx(expected[name].range.magnitude, rel=1e-4)


def test_a_table_at_fewer_steps_goes_by_the_order_of_the_tensors(stepped: Path) -> None:
    renamed = _at_steps(stepped, 1)
    weights = {tensor.name for tensor in renamed.graph.initializer}
    for node in renamed.graph.node:
        node.input[:] = [name if name in weights or not name else f"my {name}" for name in node.input]
        node.output[:] = [f"my {name}" for name in node.output]
    for value in (*renamed.graph.input, *renamed.graph.output):
        value.name = f"my {value.name}"
    table = read_table(stepped.with_name("calibration.json"))
    fewer = at_fewer_steps(table, renamed)
    assert fewer.ranges == {
        f"my {name}": table.ranges[name] for name in at_fewer_steps(table, _at_steps(stepped, 1)).ranges
    }


def test_a_table_does_not_go_up_to_more_steps(stepped: Path) -> None:
    table = at_fewer_steps(read_table(stepped.with_name("calibration.json")), _at_steps(stepped, 1))
    with pytest.raises(CalibrationError, match=r"its number of tensors that '.*' reads is 1, the model's 2"):
        at_fewer_steps(table, _at_steps(stepped, 2))


def test_equal_tables_do_not_differ(table: CalibrationTable) -> None:
    assert not diff(table, table, percent=0)


def test_a_difference_is_told_by_what_it_is(table: CalibrationTable) -> None:
    other = replace(
        table,
        preprocessing=replace(table.preprocessing, blurred=False),
        images={"a.png": "2" * 64},
        excluded=(),
        ranges={"features1": TensorRange(0, 2, 1.56), "features2": TensorRange(0, 2, 1.76)},
        implicit={"body2": TensorRange(0, 1, 1)},
    )
    found = diff(table, other)
    assert list(found.lines()) == [
        "preprocessing.blurred: True -> False",
        f"images.a.png: {'0' * 12}... -> {'2' * 12}...",
        f"images.b: c.png: {'1' * 12}... -> nothing",
        "excluded: body.w -> nothing",
        "tensor body1: only in the first",
        "tensor body2: only in the second",
        "tensor features2: amax 1.6 -> 1.76 (+10.0 %)",
    ]
    assert "features1" in diff(table, other, percent=3.9).moved


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000], ids=["lists", "objects"])
def test_a_table_nested_too_deeply_is_one_line(text: str) -> None:
    with pytest.raises(CalibrationError, match=r"t\.json is not JSON") as caught:
        CalibrationTable.from_json(text, where="t.json")
    assert "\n" not in str(caught.value)


def test_a_range_beyond_float32_is_refused() -> None:
    preprocessing = Preprocessing("RGB", (0.0, 1.0), 1)
    with pytest.raises(ValueError, match=r"the amax of tensor 'x' is 1e\+308, expected a positive float32"):
        CalibrationTable(
            "minmax", None, "per-step", "p", 1, "0", preprocessing, {}, {"x": TensorRange(0, 1, 1e308)}, {}, {}, {}
        )
