"""What `config.json` means for each family, and what is refused by the name of its key."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core import ConfigurationError
from provider_export.decoder_config import DecoderConfig, parse_config, read_config, write_config
from tests.tiny_checkpoints import FAMILIES


def tiny_config(model_type: str, **changes: Any) -> dict[str, Any]:
    """A parsed config.json of a family."""
    return {
        "model_type": model_type,
        "vocab_size": 96,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 512,
        **changes,
    }


def windows(config: DecoderConfig) -> list[int | None]:
    """Of the layers in order."""
    return [layer.window for layer in config.layers]


@pytest.mark.parametrize(
    ("model_type", "keys", "expected"),
    [
        ("llama", {"sliding_window": 8}, [None] * 6),
        ("mistral", {"sliding_window": 8}, [8] * 6),
        ("mistral", {"sliding_window": None}, [None] * 6),
        ("phi3", {"sliding_window": 8}, [8] * 6),
        ("phi3", {}, [None] * 6),
        ("qwen2", {"sliding_window": 8, "max_window_layers": 4}, [None] * 6),
        (
            "qwen2",
            {"sliding_window": 8, "max_window_layers": 4, "use_sliding_window": True},
            [None] * 4 + [8] * 2,
        ),
        ("gemma2", {"sliding_window": 8}, [8, None] * 3),
        ("gemma3_text", {"sliding_window": 8}, [8] * 5 + [None]),
        ("gemma3_text", {"sliding_window": 8, "sliding_window_pattern": 3}, [8, 8, None] * 2),
    ],
)
def test_windows_follow_the_pattern_of_the_family(
    model_type: str, keys: dict[str, Any], expected: list[int | None]
) -> None:
    """All layers, every other, all but every sixth, the upper ones, or none."""
    assert windows(parse_config(tiny_config(model_type, **keys))) == expected


def test_layer_types_win_over_the_pattern() -> None:
    """As newer configurations spell it out."""
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    raw = tiny_config("gemma3_text", num_hidden_layers=3, layer_types=kinds, sliding_window=8)
    assert windows(parse_config(raw)) == [None, 8, 8]


def test_a_window_that_no_text_outgrows_is_none() -> None:
    """It would cost a mask and change nothing."""
    raw = tiny_config("mistral", sliding_window=64)
    assert windows(parse_config(raw, max_model_len=65)) == [64] * 6
    assert windows(parse_config(raw, max_model_len=64)) == [None] * 6


def test_gemma3_has_a_rotation_for_each_kind_of_layer() -> None:
    """Scaling is for the global one; both spellings of the configuration agree."""
    raw = tiny_config(
        "gemma3_text",
        rope_theta=1e6,
        rope_local_base_freq=1e4,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
    )
    local, globally = parse_config(raw).ropes
    assert local.inv_freq[1] == pytest.approx(1e4 ** (-2 / 16))
    assert globally.inv_freq[1] == pytest.approx(1e6 ** (-2 / 16) / 8)
    tables = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    }
    newer = tiny_config("gemma3_text", rope_theta=None, rope_parameters=tables)
    for old, new in zip((local, globally), parse_config(newer).ropes, strict=True):
        assert new.name == old.name
        assert (new.inv_freq == old.inv_freq).all()


def test_rope_parameters_of_newer_configurations_are_read() -> None:
    """Version 5 of transformers writes theta and type into one table."""
    older = parse_config(tiny_config("qwen3", rope_theta=50000.0))
    table = {"rope_type": "default", "rope_theta": 50000.0}
    newer = parse_config(tiny_config("qwen3", rope_theta=None, rope_parameters=table))
    assert (newer.ropes[0].inv_freq == older.ropes[0].inv_freq).all()


def test_gemma_leaves_out_what_its_class_knows() -> None:
    """The nested configuration of a multimodal checkpoint names only what differs."""
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    }
    config = parse_config({"model_type": "gemma3", "torch_dtype": "bfloat16", "text_config": text})
    assert (config.vocab_size, config.head_dim, config.num_kv_heads) == (262_208, 256, 4)
    assert config.max_position_embeddings == 131_072
    assert config.tie_word_embeddings
    assert windows(config).count(None) == 5
    assert config.attention_scale == 1 / 16


def test_gemma_scales_embeddings_in_its_own_dtype() -> None:
    """The root of 3584 is 59.87; bfloat16 has 59.75 and 60."""
    raw = tiny_config("gemma2", hidden_size=3584)
    assert parse_config(raw).embedding_scale == pytest.approx(math.sqrt(3584))
    assert parse_config({**raw, "torch_dtype": "bfloat16"}).embedding_scale == 59.75
    assert parse_config({**raw, "dtype": "bfloat16"}).embedding_scale == 59.75
    assert parse_config(tiny_config("llama")).embedding_scale == 1


def test_biases_follow_the_keys_that_the_family_honours() -> None:
    """Qwen2 has three whatever the keys say; Mistral has none."""

    def biases(model_type: str, **keys: bool) -> tuple[bool, bool, bool]:
        config = parse_config(tiny_config(model_type, **keys))
        return config.has_qkv_bias, config.has_output_bias, config.has_mlp_bias

    assert biases("llama") == (False, False, False)
    assert biases("llama", attention_bias=True) == (True, True, False)
    assert biases("llama", mlp_bias=True) == (False, False, True)
    assert biases("qwen2", attention_bias=True) == (True, False, False)
    assert biases("mistral", attention_bias=True, mlp_bias=True) == (False, False, False)


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hidden_act": "relu", "hidden_activation": None}, "hidden_act 'relu' is not one of silu"),
        ({"hidden_activation": "gelu"}, "hidden_activation 'gelu' is not one of silu"),
        ({"vocab_size": "many"}, "vocab_size 'many' is not a whole number from 1"),
        ({"num_attention_heads": 0}, "num_attention_heads 0"),
        ({"num_key_value_heads": 3}, "no multiple of num_key_value_heads 3"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is not supported"),
        ({"quantization_config": {}}, "quantization_config is not supported, not even an empty"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is not"),
        ({"layer_types": ["chunked_attention"] * 6}, "layer_types .'chunked_attention'. must be"),
        ({"layer_types": ["full_attention"]}, "layer_types .* must be 6 of"),
        (
            {"rope_scaling": {"rope_type": "dynamic"}, "layer_types": ["full_attention"] * 6},
            "rope_type 'dynamic' is not one of default, linear",
        ),
        (
            {"rope_scaling": {"rope_type": "linear"}, "layer_types": ["full_attention"] * 6},
            "missing or invalid 'factor'",
        ),
        ({"rms_norm_eps": None}, "rms_norm_eps None is not a positive number"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps 'small' is not a positive number"),
        ({"final_logit_softcapping": -1.0}, "final_logit_softcapping -1.0 is not a positive"),
        ({"final_logit_softcapping": math.nan}, "final_logit_softcapping nan is not a positive"),
        ({"query_pre_attn_scalar": [1]}, r"query_pre_attn_scalar \[1\] is not a positive number"),
    ],
)
def test_what_no_graph_can_honour_is_named(
    tmp_path: Path, model_type: str, changes: dict[str, Any], complaint: str
) -> None:
    """The key stands in the message, in every family."""
    (tmp_path / "config.json").write_text(json.dumps(tiny_config(model_type, **changes)))
    with pytest.raises(ConfigurationError, match=complaint):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("model_type", "changes", "complaint"),
    [
        ("mixtral", {}, "model_type 'mixtral' is not one of llama, mistral, "),
        ("qwen3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is not supported"),
        ("phi3", {"partial_rotary_factor": 0.2}, "rotates 3 of head_dim's 16 dimensions"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is not"),
        ("gemma2", {"sliding_window": None}, "sliding_window"),
        ("gemma2", {"torch_dtype": "float8"}, "torch_dtype 'float8'"),
        ("llama", {"rope_parameters": {"full_attention": {}}}, "by layer type are not"),
    ],
)
def test_what_a_family_does_not_have_is_named(
    tmp_path: Path, model_type: str, changes: dict[str, Any], complaint: str
) -> None:
    """Keys that mean something elsewhere only."""
    (tmp_path / "config.json").write_text(json.dumps(tiny_config(model_type, **changes)))
    with pytest.raises(ConfigurationError, match=complaint):
        read_config(tmp_path)


@pytest.mark.parametrize("content", ["[]", "7", "null", "{", '{"model_type": ["llama"]}'])
def test_a_malformed_file_is_named(tmp_path: Path, content: str) -> None:
    """JSON of another kind, or none."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        read_config(tmp_path)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000])
def test_json_nested_too_deeply_is_named(tmp_path: Path, content: str) -> None:
    """A list or an object."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"config\.json .*nested too deeply$"):
        read_config(tmp_path)


def test_what_nests_too_deeply_is_not_written(tmp_path: Path) -> None:
    """Some versions of Python read more levels than they write."""
    config = json.dumps(tiny_config("llama", further="nested"))
    (tmp_path / "config.json").write_text(config.replace('"nested"', "[" * 3000 + "]" * 3000))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ConfigurationError, match=r"config\.json is nested too deeply$"):
        write_config(tmp_path, out, 64)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("content", ["[]", "7", "null"])
def test_another_kind_of_json_is_called_so(tmp_path: Path, content: str) -> None:
    """Not by what Python makes of it."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"config\.json holds no JSON object$"):
        read_config(tmp_path)


def test_no_more_positions_than_the_model_has() -> None:
    """Fewer or as many may be asked for."""
    raw = tiny_config("llama")
    assert parse_config(raw, max_model_len=512).max_position_embeddings == 512
    with pytest.raises(ConfigurationError, match="513 positions are asked for, over the 512"):
        parse_config(raw, max_model_len=513)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    st.sampled_from([10**400, -(10**9), 1e308, "yarn", "", "1"]),
    st.lists(st.integers(-1, 1), max_size=3),
    st.dictionaries(st.sampled_from(["factor", "rope_type", "full_attention"]), st.none()),
)
ROPE = st.fixed_dictionaries(
    {"rope_type": st.sampled_from(["default", "linear", "llama3", "yarn", "longrope"])},
    optional=dict.fromkeys(
        (
            "factor",
            "rope_theta",
            "low_freq_factor",
            "high_freq_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "attention_factor",
            "short_factor",
            "long_factor",
            "original_max_position_embeddings",
            "partial_rotary_factor",
        ),
        JUNK,
    ),
)


@pytest.mark.parametrize("model_type", FAMILIES)
@settings(max_examples=100)
@given(data=st.data())
def test_any_configuration_is_read_or_refused(model_type: str, data: st.DataObject) -> None:
    """Junk under any key ends in finite numbers or in the one error that names the file."""
    raw = tiny_config(model_type, sliding_window=8, layer_types=None, text_config=None)
    keys = data.draw(st.lists(st.sampled_from(sorted(raw)), max_size=2))
    raw |= {key: data.draw(JUNK) for key in keys}
    raw["rope_scaling"] = data.draw(st.one_of(ROPE, JUNK))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(raw))
        try:
            config = read_config(Path(folder))
        except ConfigurationError:
            return
    for rope in config.ropes:
        assert np.isfinite([*rope.inv_freq, rope.attention_factor]).all()
