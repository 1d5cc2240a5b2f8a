from pathlib import Path

import foreign_networks as foreign
import numpy as np
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
from unblur.runtime.errors import BadInput
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.spec import SpecOverrides


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


def test_into_a_foreign_onnx_its_spec_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = foreign.write(foreign.three_outputs, tmp_path, external=True)
    model = read_onnx(path, SpecOverrides(value_range=(-1.0, 1.0)))
    assert (model.spec.system, model.spec.value_range, model.output) == ("foreign", (-1.0, 1.0), "full")
    assert OnnxModel.of(onnx.load_from_string(model.data)).spec == model.spec
    with OnnxRunner(path) as whole:
        assert model.session().run(None, {"image": np.zeros((1, 3, 8, 8), np.float32)})[0].shape == (1, 3, 8, 8)
        assert whole.spec.output_name == "full"


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
