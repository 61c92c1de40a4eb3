"""A tiny model that sees, taken apart from a tiny decoder as Optimum exports them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.decoder_variants import GrowingTarget, write_variant

IMAGE_TOKEN = 7
SIDE, PATCH = 8, 4  # pixels
VECTORS = (SIDE // PATCH) ** 2
PROCESSOR = {
    "do_resize": True,
    "size": {"height": SIDE, "width": SIDE},
    "do_center_crop": False,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def write_vision_model(
    checkpoint: Path, folder: Path, projection: npt.NDArray[np.float32] | None = None
) -> Path:
    """Write the three parts into `onnx/`.

    Args:
        checkpoint: A Hugging Face folder of a decoder.
        folder: Made if it is missing.
        projection: float32 `[3, size]`, from a patch's mean colour to its vector; random if `None`.

    Returns:
        The folder.
    """
    plain = write_variant(checkpoint, folder, GrowingTarget) / "model.onnx"
    model = onnx.load(plain)
    plain.unlink()
    table = _take_embedding(model)
    size = table.shape[1]
    parts = folder / "onnx"
    parts.mkdir()
    onnx.save_model(model, parts / "decoder_model_merged.onnx")
    onnx.save_model(_embedder(table), parts / "embed_tokens.onnx")
    if projection is None:
        projection = np.random.default_rng(3).standard_normal((3, size), np.float32)
    onnx.save_model(_encoder(projection), parts / "vision_encoder.onnx")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "image_token_index": IMAGE_TOKEN}))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def see(pixels: npt.NDArray[np.uint8], projection: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """What the encoder says, float `[4, size]`, to a picture of the right size."""
    patches = (pixels / 255 - 0.5) / 0.5
    means = patches.reshape(2, PATCH, 2, PATCH, 3).mean(axis=(1, 3)).reshape(VECTORS, 3)
    return np.asarray(means @ projection)


def embedding_of(folder: Path) -> npt.NDArray[np.float32]:
    """float32 `[vocabulary, size]`: the table in a folder's `embed_tokens.onnx`."""
    [table] = onnx.load(folder / "onnx" / "embed_tokens.onnx").graph.initializer
    return np.asarray(numpy_helper.to_array(table), np.float32)


def _take_embedding(model: onnx.ModelProto) -> npt.NDArray[np.float32]:
    """Let a decoder take vectors; what it made them of."""
    graph = model.graph
    [gather] = [n for n in graph.node if n.op_type == "Gather" and n.input[1] == "input_ids"]
    [weights] = [each for each in graph.initializer if each.name == gather.input[0]]
    table = np.asarray(numpy_helper.to_array(weights), np.float32)
    made = gather.output[0]
    graph.node.remove(gather)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in {made, "input_ids"}:
                node.input[index] = "inputs_embeds"
    [info] = [info for info in graph.input if info.name == "input_ids"]
    graph.input.remove(info)
    shape = ["batch_size", "sequence_length", table.shape[1]]
    graph.input.append(helper.make_tensor_value_info("inputs_embeds", TensorProto.FLOAT, shape))
    return table


def _embedder(table: npt.NDArray[np.float32]) -> onnx.ModelProto:
    return _model(
        [helper.make_node("Gather", ["table", "input_ids"], ["inputs_embeds"])],
        ("input_ids", TensorProto.INT64, ["n", "s"]),
        ("inputs_embeds", ["n", "s", table.shape[1]]),
        {"table": table},
    )


def _encoder(projection: npt.NDArray[np.float32]) -> onnx.ModelProto:
    size = projection.shape[1]
    return _model(
        [
            helper.make_node(
                "AveragePool",
                ["pixel_values"],
                ["means"],
                kernel_shape=[PATCH, PATCH],
                strides=[PATCH, PATCH],
            ),
            helper.make_node("Reshape", ["means", "flat"], ["columns"]),
            helper.make_node("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["rows", "projection"], ["image_features"]),
        ],
        ("pixel_values", TensorProto.FLOAT, ["n", 3, SIDE, SIDE]),
        ("image_features", ["n", VECTORS, size]),
        {"flat": np.array([0, 3, VECTORS], np.int64), "projection": projection},
    )


def _model(
    nodes: list[onnx.NodeProto],
    source: tuple[str, int, list[Any]],
    result: tuple[str, list[Any]],
    constants: dict[str, npt.NDArray[Any]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info(*source)],
        [helper.make_tensor_value_info(result[0], TensorProto.FLOAT, result[1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
