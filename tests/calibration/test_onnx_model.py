from pathlib import Path

import onnx
import pytest
from onnx import helper

from unblur.calibration.onnx_model import (
    OnnxModel,
    check_onnx_name,
    described,
    onnx_bytes,
    read_onnx,
    sort_nodes,
    strip_provenance,
    write_onnx,
)
from unblur.runtime.errors import BadInput, SpecMismatch


def test_what_is_written_is_read_back_with_spec_and_precision(fp32: OnnxModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(path, fp32)
    model = read_onnx(path)
    assert model.data == path.read_bytes() == fp32.data
    assert model.spec.preset == "tiny"
    assert model.precision == "fp32"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.onnx does not exist; expected an \.onnx file"):
        read_onnx(tmp_path / "none.onnx")


def test_a_truncated_file_is_refused(fp32_file: Path) -> None:
    fp32_file.write_bytes(fp32_file.read_bytes()[:-50])
    with pytest.raises(BadInput, match="damaged or not an ONNX file"):
        read_onnx(fp32_file)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(BadInput, match="holds no nodes"):
        read_onnx(tmp_path / "empty.onnx")


def test_a_model_is_written_under_a_name_that_says_so(tmp_path: Path) -> None:
    check_onnx_name(tmp_path / "model.onnx")
    with pytest.raises(BadInput, match=r"cannot write a model to .*model\.trt; its name ends in \.onnx"):
        check_onnx_name(tmp_path / "model.trt")


def test_a_foreign_onnx_is_told_how_to_become_ours(fp32_file: Path) -> None:
    foreign = onnx.load(fp32_file)
    del foreign.metadata_props[:]
    onnx.save(foreign, fp32_file)
    with pytest.raises(SpecMismatch, match=r"tiny\.onnx carries no model spec .* `unblur export`"):
        read_onnx(fp32_file)


def test_provenance_is_stripped_at_every_depth(fp32: OnnxModel) -> None:
    model = fp32.copied()
    model.graph.doc_string = "made by"
    model.graph.node[0].metadata_props.add(key="stack_trace", value="/home/someone/model.py")
    model.graph.input[0].doc_string = "note"
    model.graph.value_info.append(helper.make_tensor_value_info("body1", 1, None))
    strip_provenance(model)
    assert b"someone" not in onnx_bytes(model)
    assert not model.graph.value_info
    assert described(model, fp32.spec, "fp32").data == fp32.data


def test_sort_puts_producers_first(fp32: OnnxModel) -> None:
    model = fp32.copied()
    backwards = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(backwards)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)
    sort_nodes(model.graph)
    onnx.checker.check_model(model, full_check=True)
