from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import foreign_networks as foreign
import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from unblur.calibration.graph_view import sort_nodes, strip_provenance
from unblur.calibration.onnx_model import OnnxModel, check_onnx_name, described, onnx_bytes, read_onnx, write_onnx
from unblur.runtime.errors import BadInput, SpecMismatch
from unblur.runtime.model.onnx_runner import OnnxRunner
from unblur.runtime.spec import ModelSpec, SpecOverrides


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


def test_a_name_that_is_not_utf8_is_refused(fp32_file: Path) -> None:
    assert b"Conv" in fp32_file.read_bytes()
    fp32_file.write_bytes(fp32_file.read_bytes().replace(b"Conv", b"C\x80nv"))
    for read in (read_onnx, OnnxRunner):
        with pytest.raises(BadInput, match="is damaged: a name in it is not UTF-8"):
            read(fp32_file)


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


def _foreign(fp32: OnnxModel, path: Path, change: Callable[[ModelProto], object]) -> Path:
    """The network as another tool would write it: without metadata."""
    proto = fp32.copied()
    del proto.metadata_props[:]
    change(proto)
    onnx.save(proto, path)
    return path


def test_a_foreign_file_gets_its_spec_by_inspection(fp32: OnnxModel, tmp_path: Path) -> None:
    def anonymous(proto: ModelProto) -> None:
        for node in proto.graph.node:
            node.ClearField("name")

    model = read_onnx(_foreign(fp32, tmp_path / "net.onnx", anonymous))
    assert (model.spec.system, model.spec.preset, model.precision) == ("foreign", "net", "fp32")
    assert (model.input, model.output) == ("blurred", "restored")
    names = [node.name for node in model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_an_old_opset_is_converted_and_constants_become_initialisers(fp32: OnnxModel, tmp_path: Path) -> None:
    def old(proto: ModelProto) -> None:
        proto.opset_import[0].version = 11
        (bias,) = (tensor for tensor in proto.graph.initializer if tensor.name == "body.b")
        proto.graph.initializer.remove(bias)
        proto.graph.node.insert(0, helper.make_node("Constant", [], ["body.b"], value=bias))

    model = read_onnx(_foreign(fp32, tmp_path / "old.onnx", old))
    assert model.proto.opset_import[0].version == 19
    assert "body.b" in model.view.initializers
    batch = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    restored, expected = (each.session().run(None, {"blurred": batch})[0] for each in (model, fp32))
    assert restored == pytest.approx(expected, abs=1e-5)


def test_what_a_spec_says_of_values_is_kept_to(fp32: OnnxModel) -> None:
    """BGR in [-1, 1] with the residual as the output is the same network with its ends turned around."""
    batch = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    spec = replace(fp32.spec, value_range=(-1.0, 1.0), colour="BGR", output="residual")
    model = OnnxModel(fp32.proto, spec, "fp32")
    (values,) = fp32.session().run(None, {"blurred": (2 * batch - 1)[:, ::-1]})
    assert model.restore(model.session(), batch) == pytest.approx(batch + values[:, ::-1] / 2, abs=1e-5)


def test_a_grey_network_restores_each_colour() -> None:
    shape = ["n", 1, "h", "w"]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT16, shape) for name in ("in", "out")]
    graph = helper.make_graph([helper.make_node("Identity", ["in"], ["out"])], "grey", ends[:1], ends[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    spec = ModelSpec("foreign", "grey", 1, 1, 1, "none", colour="grey", input_name="in", output_name="out")
    model = OnnxModel(proto, spec, "fp16")
    batch = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    assert model.network_values(batch).dtype == np.float16
    assert model.restore(model.session(), batch) == pytest.approx(batch, abs=1e-3)


@pytest.mark.parametrize("fault", ["missing", "short"])
def test_external_data_that_is_missing_or_cut_short_is_one_line(
    fault: str, fp32: OnnxModel, tmp_path: Path
) -> None:
    path, weights = tmp_path / "net.onnx", tmp_path / "weights"
    onnx.save(fp32.copied(), path, save_as_external_data=True, location="weights", size_threshold=0)
    if fault == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BadInput, match=r"net\.onnx.*(weights, which is not there|cut short|damaged)") as caught:
        read_onnx(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_too_large_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(BadInput, match=r"large\.onnx has 2\.0 GiB, an ONNX file holds less than 2"):
        read_onnx(path)


def test_a_classifier_is_one_line(fp32: OnnxModel, tmp_path: Path) -> None:
    def classify(proto: ModelProto) -> None:
        proto.graph.node.append(helper.make_node("GlobalAveragePool", ["restored"], ["pooled"]))
        proto.graph.node.append(helper.make_node("Flatten", ["pooled"], ["classes"]))
        del proto.graph.output[:]
        proto.graph.output.append(helper.make_tensor_value_info("classes", 1, ["batch", 3]))

    with pytest.raises(SpecMismatch, match="expected an image") as caught:
        read_onnx(_foreign(fp32, tmp_path / "net.onnx", classify))
    assert "\n" not in str(caught.value)


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
