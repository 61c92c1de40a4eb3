"""Weights beside an ONNX model: written one at a time, so that no two are in memory at once."""

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy.typing as npt
from onnx import TensorProto, helper

from provider_core.quantization import pack_int4

MIN_EXTERNAL_BYTES = 1024  # less stays in the model: shapes and indices, which runtimes must see
ALIGNMENT = 4096  # pages: a runtime can map a tensor where it lies
PART_BYTES = 2**24  # written at a time; a transposed matrix is put in order part by part


class ExternalData:
    """The file that a model's `external_data` names; it comes to be with the first large tensor.

    Args:
        path: The file to write, which is to lie beside the model; without one, every tensor stays
            in the model.

    Attributes:
        num_bytes: Size of the file so far.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.num_bytes = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, name: str, values: npt.NDArray[Any], *, is_int4: bool = False) -> TensorProto:
        """Write a tensor and return the initializer that says where it is.

        Args:
            name: The initializer's.
            values: Of any memory order; written in C order.
            is_int4: The values are int8 from -8 to 7, to be stored two a byte.

        Returns:
            With the bytes inside where they are few, otherwise with location, offset and length.
        """
        dtype = TensorProto.INT4 if is_int4 else helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = TensorProto(name=name, data_type=dtype, dims=values.shape)
        num_bytes = (values.size + 1) // 2 if is_int4 else values.nbytes
        if self.path is None or num_bytes < MIN_EXTERNAL_BYTES:
            tensor.raw_data = _to_bytes(values, is_int4=is_int4)
            return tensor
        if self._file is None:
            self._file = self.path.open("wb")
        offset = -(-self.num_bytes // ALIGNMENT) * ALIGNMENT
        self._file.seek(offset)
        for part in _parts(values):
            self._file.write(_to_bytes(part, is_int4=is_int4))
        self.num_bytes = offset + num_bytes
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {
            "location": self.path.name,
            "offset": offset,
            "length": num_bytes,
        }.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor


def _parts(values: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Consecutive rows; even numbers of them, so that int4 pairs stay together."""
    if values.ndim == 0:
        return [values]
    bytes_per_row = max(1, values.nbytes // max(1, len(values)))
    step = max(2, PART_BYTES // bytes_per_row // 2 * 2)
    return [values[start : start + step] for start in range(0, len(values), step)]


def _to_bytes(values: npt.NDArray[Any], *, is_int4: bool) -> bytes:
    """In C order and, as ONNX wants it, little-endian."""
    if is_int4:
        return pack_int4(values).tobytes()
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
