"""What a session saved, put in order so that it can be mapped.

ONNX Runtime writes weights, and their copies in the layout of kernels, one behind the other at any
byte. Kernels lay packed weights out by the address they lie at: mapped from an odd one they are
read wrongly, and the model says nonsense without an error (seen with onnxruntime 1.31.1 and int4
weights in blocks of 128). So each range is moved to the start of a page.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import TensorProto

from provider_onnxruntime.optimise.graph import ALIGNMENT, COPY_BYTES

PREPACKED = "prepacked"  # keys begin with it; values are `key|offset;length;checksum[|...]`
Move = Callable[[int, int], int]


def align_weights(path: Path) -> None:
    """Move every range of a saved model's data to the start of a page.

    Args:
        path: The model; its data, if it has any, is beside it, named like it and `.data`.
    """
    data = path.with_name(f"{path.name}.data")
    if not data.exists():
        return
    model = onnx.load(path, load_external_data=False)
    aligned = data.with_name(f"{data.name}.aligned")
    with data.open("rb") as source, aligned.open("wb") as target:

        def move(offset: int, length: int) -> int:
            return _copy(source, target, offset, length)

        for tensor in model.graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                _move_ranges(tensor, move)
    aligned.replace(data)
    path.write_bytes(model.SerializeToString())


def _move_ranges(tensor: TensorProto, move: Move) -> None:
    places = {item.key: item for item in tensor.external_data}
    offset, length = places["offset"], int(places["length"].value)
    offset.value = str(move(int(offset.value), length))
    for key, place in places.items():
        if key.startswith(PREPACKED):
            place.value = re.sub(
                r"\|(\d+);(\d+)",
                lambda found: f"|{move(int(found[1]), int(found[2]))};{found[2]}",
                place.value,
            )


def _copy(source: BinaryIO, target: BinaryIO, offset: int, length: int) -> int:
    """Append bytes at the start of a page; return where that is.

    Raises:
        OSError: The source ends too early: the disk was full when it was written.
    """
    start = -(-target.tell() // ALIGNMENT) * ALIGNMENT
    source.seek(offset)
    target.seek(start)
    while length:
        part = source.read(min(length, COPY_BYTES))
        if not part:
            raise OSError(f"{source.name} is cut off")
        target.write(part)
        length -= len(part)
    return start
