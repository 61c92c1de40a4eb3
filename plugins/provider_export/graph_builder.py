"""A thin hand on `onnx.helper`: names every value once, stores every weight once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from provider_core import ConfigurationError
from provider_export.external_data import ExternalData

CONTRIB = "com.microsoft"


class GraphBuilder:
    """Collects nodes, weights, inputs and outputs, and makes a model of them.

    Args:
        data: Where weights are written, as soon as they are added.
        float_dtype: What layers compute in, as `float32`.
    """

    def __init__(self, data: ExternalData, float_dtype: str = "float32") -> None:
        self._data = data
        self.float_dtype = np.dtype(float_dtype)
        self.float_type = helper.np_dtype_to_tensor_dtype(self.float_dtype)
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

    def add_constant(self, name: str, values: npt.NDArray[Any]) -> str:
        """Store a tensor in the dtype it has."""
        self._initializers.append(self._data.add(name, values))
        return name

    def add_floats(self, name: str, values: npt.NDArray[np.float32]) -> str:
        """Store a tensor in the dtype that layers compute in.

        Raises:
            ConfigurationError: A number does not fit into it.
        """
        with np.errstate(over="ignore"):
            floats = values.astype(self.float_dtype)
        if np.isinf(floats.astype(np.float32)).any() and np.isfinite(values).all():
            raise ConfigurationError(f"tensor {name} does not fit into {self.float_dtype}")
        return self.add_constant(name, floats)

    def add_int4(self, name: str, values: npt.NDArray[np.int8]) -> str:
        """Store values from -8 to 7 as int4."""
        self._initializers.append(self._data.add(name, values, is_int4=True))
        return name

    def build(self, *, opset: int, uses_contrib: bool) -> onnx.ModelProto:
        """The finished model.

        Args:
            opset: Of the standard operators.
            uses_contrib: Some operator is ONNX Runtime's own.
        """
        graph = helper.make_graph(
            self._nodes, "decoder", self._inputs, self._outputs, self._initializers
        )
        opsets = [helper.make_opsetid("", opset)]
        if uses_contrib:
            opsets.append(helper.make_opsetid(CONTRIB, 1))
        model = helper.make_model(graph, opset_imports=opsets, producer_name="provider-core")
        model.ir_version = helper.find_min_ir_version_for(opsets, ignore_unknown=True)
        return model
