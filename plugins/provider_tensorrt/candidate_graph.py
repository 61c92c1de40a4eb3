"""What a decoder's graph gets besides logits: candidates, so that logits can stay on the device.

=======================  =================================  ========================================
tensor                   shape, dtype                       meaning
=======================  =================================  ========================================
`allowed_ids`            `[n, b]` uint8                     a bit for each id, least first; b is
                                                            `bitmask_bytes` of the vocabulary
`inverse_temperature`    `[n]` float32                      for `log_masses`
`candidate_ids`          `[n, num_logits, k]` int32         the likeliest ids that are allowed
`candidate_logits`       `[n, num_logits, k]` float32       theirs, highest first
`log_masses`             `[n, num_logits, 1]` float32       see `provider_core.Candidates`
`log_sum_exps`           `[n, num_logits, 1]` float32       the same
=======================  =================================  ========================================

Bits are looked up by byte in a table, as TensorRT has no operators on bits.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from provider_core.decoder_io import DecoderIO
from provider_tensorrt.shapes import bitmask_bytes

ALLOWED, INVERSE_TEMPERATURE = "allowed_ids", "inverse_temperature"
IDS, LOGITS = "candidate_ids", "candidate_logits"
LOG_MASSES, LOG_SUM_EXPS = "log_masses", "log_sum_exps"

_PREFIX = "candidates."  # of names within
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1, bitorder="little")


def add_candidates(model: onnx.ModelProto, io: DecoderIO, num_candidates: int) -> None:
    """Add the inputs and outputs above, and what lies between them.

    Args:
        model: The decoder's graph, changed in place.
        io: Its inputs and outputs.
        num_candidates: k, or the whole vocabulary if that is less.
    """
    num_candidates = min(num_candidates, io.vocab_size)
    rows, positions, width = "candidate_rows", "candidate_positions", bitmask_bytes(io.vocab_size)
    part = _Part()
    zero, one, last = (part.hold(np.array([number])) for number in (0, 1, 2))

    # By byte; TensorRT casts these to floats only, and takes no floats as indices.
    codes = part.add("Cast", part.add("Cast", ALLOWED, to=TensorProto.FLOAT), to=TensorProto.INT32)
    bits = part.add("Gather", part.hold(_BITS.astype(np.bool_)), codes)
    bits = part.add("Reshape", bits, part.hold(np.array([0, 1, 8 * width])))
    is_allowed = part.add("Slice", bits, zero, part.hold(np.array([io.vocab_size])), last)

    logits = io.logits.name
    if io.logits.dtype != "float32":
        logits = part.add("Cast", logits, to=TensorProto.FLOAT)
    impossible = part.hold(np.array(-np.inf, np.float32))
    allowed = part.add("Where", is_allowed, logits, impossible)
    k = part.hold(np.array([num_candidates]))
    part.add("TopK", allowed, k, outputs=(LOGITS, f"{_PREFIX}ids"), axis=-1)
    part.add("Cast", f"{_PREFIX}ids", outputs=(IDS,), to=TensorProto.INT32)

    highest = part.add("Slice", LOGITS, zero, one, last)
    factor = part.add("Reshape", INVERSE_TEMPERATURE, part.hold(np.array([-1, 1, 1])))
    scaled = part.add("Mul", part.add("Sub", allowed, highest), factor)
    part.add("Log", part.sum_exp(scaled, last), outputs=(LOG_MASSES,))
    peak = part.add("ReduceMax", logits, last)
    log_mass = part.add("Log", part.sum_exp(part.add("Sub", logits, peak), last))
    part.add("Add", peak, log_mass, outputs=(LOG_SUM_EXPS,))

    part.append_to(model.graph)
    model.graph.input.extend(
        [
            helper.make_tensor_value_info(ALLOWED, TensorProto.UINT8, (rows, width)),
            helper.make_tensor_value_info(INVERSE_TEMPERATURE, TensorProto.FLOAT, (rows,)),
        ]
    )
    for name, dtype, depth in (
        (IDS, TensorProto.INT32, num_candidates),
        (LOGITS, TensorProto.FLOAT, num_candidates),
        (LOG_MASSES, TensorProto.FLOAT, 1),
        (LOG_SUM_EXPS, TensorProto.FLOAT, 1),
    ):
        shape = (rows, positions, depth)
        model.graph.output.append(helper.make_tensor_value_info(name, dtype, shape))


class _Part:
    """Nodes and constants of a part of a graph, whose names nobody else has."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def hold(self, array: npt.NDArray[Any]) -> str:
        """Add a constant; return its name."""
        name = f"{_PREFIX}constant.{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op_type: str, *inputs: str, outputs: Sequence[str] = (), **options: Any) -> str:
        """Add a node; return the name of its first output."""
        name = f"{_PREFIX}{op_type}.{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, outputs or [name], name, **options))
        return outputs[0] if outputs else name

    def sum_exp(self, values: str, axis: str) -> str:
        """Add what sums exponentials along an axis, which stays."""
        return self.add("ReduceSum", self.add("Exp", values), axis)

    def append_to(self, graph: onnx.GraphProto) -> None:
        """Add all that was added here."""
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._constants)
