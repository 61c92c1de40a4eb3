"""Whether this processor multiplies uint8 by int8 without clipping sums.

Without VNNI, x86 adds two such products in 16 bits, which end at 32,767; two products of 255 and
127 are 64,770, and the sum is clipped without a word. ONNX Runtime uses that instruction where it
has no better one, and a layer in W8A8 would be wrong where activations and weights are large.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import TensorProto, helper

from provider_core import ConfigurationError
from provider_onnxruntime.optimise.graph import CONTRIB

Multiply = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int8]], npt.NDArray[np.float32]]

DEPTH, WIDTH = 256, 64  # of the weight; sums of that depth are exact in float32
NUM_ROWS = (1, 2, 7, 32)  # of the activations: kernels differ by their number


def require_exact_products(multiply: Multiply | None = None) -> None:
    """Multiply extreme values and compare with the same in int32.

    Args:
        multiply: `[n, k]` times `[k, m]`, the runtime's by default.

    Raises:
        ConfigurationError: A sum was clipped.
    """
    multiply = multiply or multiply_by_runtime
    weight = np.full((DEPTH, WIDTH), 127, np.int8)
    weight[:, 1::2] = -127
    for num_rows in NUM_ROWS:
        rows = np.full((num_rows, DEPTH), 255, np.uint8)
        exact = rows.astype(np.int32) @ weight.astype(np.int32)
        if not np.array_equal(multiply(rows, weight), exact):
            raise ConfigurationError(
                "this processor clips sums of uint8 by int8 products (it has no VNNI), so that "
                "precisions int8 and hybrid would give wrong results here; use int4"
            )


def multiply_by_runtime(
    rows: npt.NDArray[np.uint8], weight: npt.NDArray[np.int8]
) -> npt.NDArray[np.float32]:
    """The product as MatMulIntegerToFloat makes it."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    stored = helper.make_tensor(
        "weight", TensorProto.INT8, weight.shape, weight.tobytes(), raw=True
    )
    node = helper.make_node(
        "MatMulIntegerToFloat", ["x", "weight", "one", "one"], ["y"], domain=CONTRIB
    )
    graph = helper.make_graph(
        [node],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", weight.shape[1]])],
        [one, stored],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(CONTRIB, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    [product] = session.run(None, {"x": rows})
    return np.asarray(product, np.float32)
