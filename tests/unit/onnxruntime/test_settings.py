"""Settings of the ONNX Runtime backend, from the environment and from a model's options."""

from functools import partial
from pathlib import Path

import pytest

from provider_core import ConfigurationError
from provider_core.plugin_settings import read_backend_settings
from provider_onnxruntime.settings import OnnxRuntimeSettings

PREFIX = "PROVIDER_ONNXRUNTIME_"
read_settings = partial(read_backend_settings, "onnxruntime", OnnxRuntimeSettings)

VARIABLES: dict[str, tuple[str, object]] = {
    "provider": ("cuda", "cuda"),
    "model_file": ("onnx/model.onnx", "onnx/model.onnx"),
    "device_id": ("1", 1),
    "cuda_graphs": ("off", "off"),
    "intra_op_num_threads": ("3", 3),
    "spin_duration_us": ("0", 0),
    "flash_attention": ("true", True),
    "cache": ("false", False),
    "cache_dir": ("kept", Path("kept")),
    "verify_cache": ("0", False),
    "int4_block_size": ("32", 32),
    "hybrid_max_int4_rows": ("8", 8),
    "pooling": ("cls", "cls"),
    "normalize": ("true", True),
    "matryoshka_dimensions": ("64,128", (64, 128)),
}
"""What each setting's variable may say, and what that means; none is its default."""


@pytest.mark.parametrize("name", OnnxRuntimeSettings.model_fields)
def test_every_setting_is_read_from_its_variable(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment holds strings, whatever the setting's type."""
    text, value = VARIABLES[name]
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", text)

    assert getattr(read_settings({}), name) == value


@pytest.mark.parametrize("text", ["[64, 128]", " 64 , 128 ", "64,128,"])
def test_sizes_are_read_however_a_list_is_written(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As JSON, too, which was the only way at first."""
    monkeypatch.setenv(f"{PREFIX}MATRYOSHKA_DIMENSIONS", text)

    assert read_settings({}).matryoshka_dimensions == (64, 128)


def test_a_size_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its setting's name."""
    monkeypatch.setenv(f"{PREFIX}MATRYOSHKA_DIMENSIONS", "64,many")

    with pytest.raises(ConfigurationError, match=r"matryoshka_dimensions\.1: .*valid integer"):
        read_settings({})


@pytest.mark.parametrize("value", ["33", "3x", "-32", "32.0"])
def test_other_block_sizes_are_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment as from a model's options."""
    for_options: dict[str, object] = {"int4_block_size": value}
    with pytest.raises(ConfigurationError, match="int4_block_size: Input should be 32 or 128"):
        read_settings(for_options)
    monkeypatch.setenv("PROVIDER_ONNXRUNTIME_INT4_BLOCK_SIZE", value)
    with pytest.raises(ConfigurationError, match="int4_block_size: Input should be 32 or 128"):
        read_settings({})


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the server's own settings."""
    monkeypatch.setenv("PROVIDER_ONNXRUNTIME_FLASH_ATTENTION", "")

    assert read_settings({}).flash_attention is None
