"""Processors that clip sums of products are found out."""

import numpy as np
import numpy.typing as npt
import pytest

from provider_core import ConfigurationError
from provider_onnxruntime.optimise.saturation import require_exact_products


def multiply_with_pairs_in_16_bits(
    rows: npt.NDArray[np.uint8], weight: npt.NDArray[np.int8]
) -> npt.NDArray[np.float32]:
    """As `vpmaddubsw` does: two products are added in 16 bits, with saturation."""
    products = rows.astype(np.int32)[:, :, np.newaxis] * weight.astype(np.int32)
    pairs = np.clip(products[:, 0::2] + products[:, 1::2], -(2**15), 2**15 - 1)
    return np.asarray(pairs.sum(axis=1), np.float32)


def multiply_exactly(
    rows: npt.NDArray[np.uint8], weight: npt.NDArray[np.int8]
) -> npt.NDArray[np.float32]:
    """In int32."""
    return (rows.astype(np.int32) @ weight.astype(np.int32)).astype(np.float32)


def test_a_clipped_sum_is_refused() -> None:
    """With the reason and the way out."""
    with pytest.raises(ConfigurationError, match=r"clips sums .* \(it has no VNNI\).* use int4"):
        require_exact_products(multiply_with_pairs_in_16_bits)


def test_exact_sums_pass() -> None:
    """Sums of 256 products of 255 by 127."""
    require_exact_products(multiply_exactly)


def test_the_runtime_is_asked_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `precision = "int8"` runs on is what is probed."""
    monkeypatch.setattr(
        "provider_onnxruntime.optimise.saturation.multiply_by_runtime",
        multiply_with_pairs_in_16_bits,
    )
    with pytest.raises(ConfigurationError, match="clips sums"):
        require_exact_products()
