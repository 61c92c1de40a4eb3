"""A thin hand on `onnx.helper`: names every value once, stores every weight once."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from provider_core import ConfigurationError

Precision = Literal["fp32", "fp16"]
CONTRIB = "com.microsoft"


class GraphBuilder:
    """Collects nodes, weights, inputs and outputs, and makes a model of them.

    Args:
        precision: How matrices are stored. `fp16` halves the file; a Cast that the runtime folds
            when it loads brings them back to float32, in which everything is computed.
    """

    def __init__(self, precision: Precision) -> None:
        self._precision = precision
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def add_input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        """Declare a graph input; symbolic dimensions are strings."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def add_output(self, name: str, dtype: int, shape: Sequence[int | str]) -> None:
        """Declare a graph output that some node produces."""
        self._outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def add_node(
        self,
        op_type: str,
        inputs: Sequence[str],
        output: str,
        *,
        domain: str = "",
        **attributes: Any,  # whatever the operator's schema takes
    ) -> str:
        """Add a node with one output and return the output's name, which is the node's too."""
        self.add_nodes(op_type, inputs, (output,), domain=domain, **attributes)
        return output

    def add_nodes(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        domain: str = "",
        **attributes: Any,  # whatever the operator's schema takes
    ) -> None:
        """Add a node with several outputs; unused inputs and outputs are empty strings."""
        node = helper.make_node(
            op_type, inputs, outputs, name=outputs[0], domain=domain, **attributes
        )
        self._nodes.append(node)

    def add_constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Store a tensor as it is: index vectors, norm weights, biases."""
        self._initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def add_matrix(self, name: str, value: npt.NDArray[np.float32]) -> str:
        """Store a weight matrix in the chosen precision; return a float32 value.

        Raises:
            ConfigurationError: A weight does not fit into float16.
        """
        if self._precision == "fp32":
            return self.add_constant(name, value)
        if np.abs(value).max() > np.finfo(np.float16).max:
            raise ConfigurationError(f"tensor {name} does not fit into fp16; export with fp32")
        stored = self.add_constant(f"{name}.fp16", value.astype(np.float16))
        return self.add_node("Cast", (stored,), name, to=TensorProto.FLOAT)

    def build(self, *, opset: int, uses_contrib: bool) -> onnx.ModelProto:
        """The finished model."""
        graph = helper.make_graph(
            self._nodes, "decoder", self._inputs, self._outputs, self._initializers
        )
        opsets = [helper.make_opsetid("", opset)]
        if uses_contrib:
            opsets.append(helper.make_opsetid(CONTRIB, 1))
        model = helper.make_model(graph, opset_imports=opsets, producer_name="provider-core")
        model.ir_version = helper.find_min_ir_version_for(opsets, ignore_unknown=True)
        return model
