"""Reading an ONNX file's skeleton: what onnx reads, and no crash on anything else."""

from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from provider_core import ConfigurationError
from provider_export.export import export_decoder
from provider_onnxruntime.onnx_file import MAX_DEPTH, read_onnx_file
from tests.tiny_checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small decoder."""
    folder = write_checkpoint(tmp_path_factory.mktemp("model"), num_hidden_layers=1, vocab_size=8)
    return export_decoder(folder, folder)


def test_the_skeleton_is_what_onnx_reads(model_file: Path) -> None:
    """Names, dtypes, shapes, operators and weights agree with the onnx package."""
    graph = onnx.load(model_file).graph
    file = read_onnx_file(model_file)
    for specs, infos in ((file.inputs, graph.input), (file.outputs, graph.output)):
        assert [spec.name for spec in specs] == [info.name for info in infos]
        for spec, info in zip(specs, infos, strict=True):
            tensor_type = info.type.tensor_type
            assert spec.dtype == helper.tensor_dtype_to_np_dtype(tensor_type.elem_type).name
            assert spec.shape == tuple(
                dim.dim_value if dim.HasField("dim_value") else None
                for dim in tensor_type.shape.dim
            )
    assert file.operators == {(node.domain, node.op_type) for node in graph.node}
    assert {weight.name: weight.shape for weight in file.weights} == {
        tensor.name: tuple(tensor.dims) for tensor in graph.initializer
    }


def test_weights_listed_as_inputs_are_no_inputs(model_file: Path, tmp_path: Path) -> None:
    """Files of IR version 3 list every initializer among the inputs."""
    model = onnx.load(model_file)
    expected = [info.name for info in model.graph.input]
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
    )
    onnx.save_model(model, tmp_path / "model.onnx")
    assert [spec.name for spec in read_onnx_file(tmp_path / "model.onnx").inputs] == expected


def test_graphs_that_nest_too_deep_are_refused(tmp_path: Path) -> None:
    """No file exhausts the stack."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "deepest", [], [value])
    for _ in range(MAX_DEPTH + 1):
        node = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
        del node.attribute[1:]
        graph = helper.make_graph([node], "outer", [], [value])
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ConfigurationError, match="nest deeper"):
        read_onnx_file(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_read_or_refused(
    data: st.DataObject, model_file: Path, tmp_path: Path
) -> None:
    """Any change of bytes gives a skeleton or a ConfigurationError, nothing else."""
    content = bytearray(model_file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.onnx"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    with suppress(ConfigurationError):
        read_onnx_file(path)
