from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_tables import made_up_table

from unblur.calibration.onnx_model import OnnxModel
from unblur.calibration.placement import place
from unblur.calibration.table import check_fits
from unblur.calibration.trt_cache import (
    TensorRTCache,
    cache_from_table,
    cache_tensors,
    read_cache,
    table_from_cache,
    version_from_text,
)
from unblur.runtime.errors import BadInput, CalibrationError
from unblur.runtime.model.calibration_table import CalibrationTable

AS_TENSORRT_WRITES = """TRT-8601-EntropyCalibration2
x: 4000890a
/conv1/Conv_output_0: 3f9db09c
a: b: 3c010204
(Unnamed Layer* 8) [Constant]_output: 39137939
zero: 0
"""


@pytest.fixture
def table(fp32: OnnxModel) -> CalibrationTable:
    return made_up_table(fp32)


@pytest.mark.parametrize(
    "text",
    [
        AS_TENSORRT_WRITES,
        AS_TENSORRT_WRITES.removesuffix("\n"),
        AS_TENSORRT_WRITES.replace("8601-EntropyCalibration2", "100300-MinMaxCalibration"),
        "TRT-8502-EntropyCalibration2\n",
        "TRT-101602-MinMaxCalibration",
    ],
)
def test_a_cache_is_written_as_it_was_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(text.encode())
    assert read_cache(tmp_path / "c").to_text() == text


def test_what_a_cache_says() -> None:
    cache = TensorRTCache.from_text(AS_TENSORRT_WRITES, where="c")
    assert (cache.version, cache.algorithm) == ((8, 6, 1), "EntropyCalibration2")
    assert list(cache.scales) == [
        "x", "/conv1/Conv_output_0", "a: b", "(Unnamed Layer* 8) [Constant]_output", "zero",
    ]  # fmt: skip
    assert cache.amax("a: b") == pytest.approx(1.0, rel=1e-3)  # 3c010204 is 1/127, the scale of an image in [0, 1]
    assert cache.amax("zero") == 0


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.text(st.characters(exclude_characters="\n"), min_size=1), st.integers(0, 2**32 - 1)),
    st.booleans(),
    st.sampled_from([(8, 6, 1), (8, 5, 2), (10, 3, 0), (10, 16, 2)]),
)
def test_any_names_and_any_scales_survive(
    scales: dict[str, int], final_newline: bool, version: tuple[int, int, int]
) -> None:
    text = {name: f"{value:08x}" for name, value in scales.items()}
    cache = TensorRTCache(version, "MinMaxCalibration", text, final_newline)
    again = TensorRTCache.from_text(cache.to_text(), where="c")
    assert again == cache
    assert again.to_text() == cache.to_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c: unknown header '', expected TRT-<4 or 6 digits>-<algorithm>"),
        ("TRT-86-EntropyCalibration2\n", "unknown header 'TRT-86-EntropyCalibration2'"),
        ("TRT-8601-KLCalibration\n", "the algorithm one of LegacyCalibration, EntropyCalibration, Entropy"),
        ("data_0 2.008338\n", "unknown header 'data_0 2.008338'"),
        ("TRT-8601-EntropyCalibration2\nx: 1.5\n", r"line 2 of the TensorRT cache is no 'tensor: .*: 'x: 1\.5'"),
        ("TRT-8601-EntropyCalibration2\nx: 0\n\n", "line 3 of the TensorRT cache is no"),
        ("TRT-8601-EntropyCalibration2\nx: 0\nx: 1\n", "line 3 of the TensorRT cache names a tensor twice: 'x: 1'"),
    ],
)
def test_what_tensorrt_does_not_write_is_refused(text: str, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        TensorRTCache.from_text(text, where="c")


def test_a_cache_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"cannot read .*none: No such file.*; expected a TensorRT calibration cache"
    ):
        read_cache(tmp_path / "none")
    (tmp_path / "c").write_bytes(b"\xff\x00")
    with pytest.raises(CalibrationError, match="c is no TensorRT calibration cache: it is not text"):
        read_cache(tmp_path / "c")


@pytest.mark.parametrize(
    ("text", "version"), [("10.3", (10, 3, 0)), ("8.6.1", (8, 6, 1)), ("10.13.3.9", (10, 13, 3))]
)
def test_a_version_as_people_write_it(text: str, version: tuple[int, int, int]) -> None:
    assert version_from_text(text) == version


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ten", "'ten' is no TensorRT version; write it as 10.3"),
        ("11.4", "11.4 reads no calibration cache, 7 to 10"),
    ],
)
def test_a_version_without_implicit_int8_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        version_from_text(text)


def test_a_scale_is_amax_over_127_as_float32(table: CalibrationTable) -> None:
    cache = cache_from_table(table, (10, 3, 0))
    assert cache.to_text().startswith("TRT-100300-EntropyCalibration2\n")
    for name, seen in {**table.ranges, **table.implicit}.items():
        assert cache.amax(name) == pytest.approx(seen.amax, rel=2**-24)


def test_the_cache_names_what_quantised_layers_read_and_write_and_no_more(
    fp32: OnnxModel, table: CalibrationTable
) -> None:
    """Not the image, the gate and the tail: without a scale TensorRT leaves them in float."""
    expected = {"features1", "body1", "sum1", "features2", "body2", "sum2"}
    assert set(cache_tensors(fp32, place(fp32))) == expected
    assert set(cache_from_table(table, (8, 6, 1)).scales) == expected


def test_a_table_comes_back_from_its_cache(fp32: OnnxModel, table: CalibrationTable) -> None:
    cache = cache_from_table(table, (8, 6, 1))
    back = table_from_cache(cache, fp32)
    check_fits(back, fp32)
    assert back.method == "imported"
    assert {*back.kept, *back.excluded} == set(table.kept)
    assert list(back.ranges) == list(table.ranges)
    assert back.reads == table.reads
    assert cache_from_table(back, (8, 6, 1)) == cache


def test_a_convolution_without_a_scale_stays_float(fp32: OnnxModel, table: CalibrationTable) -> None:
    cache = cache_from_table(table, (8, 6, 1))
    of_tail = dict.fromkeys(("scaled1", "tail1", "scaled2", "tail2"), "3c000000")
    everywhere = replace(cache, scales={**cache.scales, **of_tail})
    assert table_from_cache(everywhere, fp32).reads.keys() == {"body.w", "tail.w"}
    without_body2 = {name: scale for name, scale in everywhere.scales.items() if name != "body2"}
    lacking = replace(everywhere, scales=without_body2)
    back = table_from_cache(lacking, fp32)
    assert back.excluded == ("embed.w", "body.w")
    assert set(back.ranges) == {"scaled1", "scaled2"}


def test_a_cache_of_another_model_is_refused(fp32: OnnxModel) -> None:
    foreign = TensorRTCache((8, 6, 1), "MinMaxCalibration", {"/conv1/Conv_output_0": "3f9db09c"})
    with pytest.raises(
        CalibrationError, match="c names the tensor '/conv1/Conv_output_0', which the model 'tiny' has"
    ):
        table_from_cache(foreign, fp32, where="c")
    no_use = TensorRTCache((8, 6, 1), "MinMaxCalibration", {"blurred": "3c010204", "(Unnamed Layer* 2)": "0"})
    with pytest.raises(CalibrationError, match="has not the scales that any of the 3 layers of 'tiny' needs"):
        table_from_cache(no_use, fp32)


@pytest.mark.parametrize(("scale", "value"), [("0", "0.0"), ("7f800000", "inf"), ("7fc00000", "nan")])
def test_a_scale_that_is_none_is_refused(scale: str, value: str, fp32: OnnxModel, table: CalibrationTable) -> None:
    cache = cache_from_table(table, (8, 6, 1))
    bad = replace(cache, scales={**cache.scales, "features2": scale})
    with pytest.raises(
        CalibrationError, match=f"c: the scale of 'features2' is {value}, expected a positive float32"
    ):
        table_from_cache(bad, fp32, where="c")
