"""Each scaling of rotary embeddings, against formulas written pair by pair, and by its shape."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from provider_core import ConfigurationError
from provider_export.decoder_config import parse_config
from provider_export.rope import Rope
from tests.reference_rope import scale_frequency
from tests.tiny_checkpoints import write_checkpoint

HEAD_DIM, MAX_LEN, ORIGINAL_LEN = 32, 4096, 512
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 8.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": ORIGINAL_LEN,
    },
    "yarn": {"factor": 8.0, "original_max_position_embeddings": ORIGINAL_LEN},
    "longrope": {
        "short_factor": [1 + pair / 16 for pair in range(HEAD_DIM // 2)],
        "long_factor": [1.5 + pair for pair in range(HEAD_DIM // 2)],
        "original_max_position_embeddings": ORIGINAL_LEN,
    },
}


@pytest.fixture(scope="module")
def raw_config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A parsed config.json of Llama."""
    folder: Path = write_checkpoint(
        tmp_path_factory.mktemp("llama"),
        "llama",
        head_dim=HEAD_DIM,
        max_position_embeddings=MAX_LEN,
    )
    raw: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return raw


def read_rope(raw: dict[str, Any], max_len: int | None = None, **scaling: Any) -> Rope:
    """The one rotation of a configuration."""
    [rope] = parse_config({**raw, "rope_scaling": scaling}, max_len).ropes
    return rope


@pytest.mark.parametrize("max_len", [ORIGINAL_LEN, MAX_LEN])
@pytest.mark.parametrize("kind", SCALINGS)
def test_frequencies_equal_the_formulas(
    raw_config: dict[str, Any], kind: str, max_len: int
) -> None:
    """To float32's precision."""
    scaling = {"rope_type": kind, **SCALINGS[kind]}
    rope = read_rope(raw_config, max_len, **scaling)
    expected = [
        scale_frequency(10000.0, pair, HEAD_DIM, raw_config, scaling, max_len)
        for pair in range(HEAD_DIM // 2)
    ]
    np.testing.assert_allclose(rope.inv_freq, [frequency for frequency, _ in expected], rtol=1e-6)
    assert rope.attention_factor == pytest.approx(expected[0][1])
    assert rope.inv_freq.dtype == np.float32


@pytest.mark.parametrize("kind", ["llama3", "yarn"])
def test_ramps_slow_long_wavelengths_only(raw_config: dict[str, Any], kind: str) -> None:
    """Short wavelengths stay, long ones are slowed by the factor, those between lie between."""
    plain = read_rope(raw_config).inv_freq
    ratios = read_rope(raw_config, rope_type=kind, **SCALINGS[kind]).inv_freq / plain
    assert ratios[0] == 1
    assert ratios[-1] == pytest.approx(1 / 8)
    between = ratios[(ratios < 1) & (ratios > 0.126)]
    assert between.size
    assert (np.diff(between) < 0).all()


def test_longrope_takes_one_list_for_all_texts(raw_config: dict[str, Any]) -> None:
    """The short one up to the original length, else the long one; the attention factor is one."""
    scaling = {"rope_type": "longrope", **SCALINGS["longrope"]}
    plain = read_rope(raw_config).inv_freq
    short = read_rope(raw_config, ORIGINAL_LEN, **scaling)
    long = read_rope(raw_config, ORIGINAL_LEN + 1, **scaling)
    np.testing.assert_allclose(plain / short.inv_freq, scaling["short_factor"], rtol=1e-6)
    np.testing.assert_allclose(plain / long.inv_freq, scaling["long_factor"], rtol=1e-6)
    expected = math.sqrt(1 + math.log(8) / math.log(512))
    assert short.attention_factor == long.attention_factor == pytest.approx(expected)
    assert "built with short_factor for texts of up to 512 tokens" in short.remark
    assert "built with long_factor for texts of up to 513 tokens, short ones too" in long.remark


@pytest.mark.parametrize("name", ["su", "yarn", "longrope"])
def test_phi3_calls_longrope_by_three_names(name: str, raw_config: dict[str, Any]) -> None:
    """And writes the original length outside the table; half of a head is rotated here."""
    table = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    raw = raw_config | {
        "model_type": "phi3",
        "partial_rotary_factor": 0.5,
        "original_max_position_embeddings": ORIGINAL_LEN,
        "rope_scaling": {"type": name, **table},
    }
    [rope] = parse_config(raw).ropes
    assert rope.rotary_dim == 16
    assert rope.inv_freq[0] == 0.5


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"attention_factor": 0.7}, 0.7),
        (
            {"mscale": 1.0, "mscale_all_dim": 0.5},
            (0.1 * math.log(8) + 1) / (0.05 * math.log(8) + 1),
        ),
        ({"factor": 1.0}, 1.0),
    ],
)
def test_yarn_takes_its_attention_factor_from_the_table(
    raw_config: dict[str, Any], keys: dict[str, float], expected: float
) -> None:
    """Or from the weights of its logarithm."""
    rope = read_rope(raw_config, rope_type="yarn", **{**SCALINGS["yarn"], **keys})
    assert rope.attention_factor == pytest.approx(expected)


def test_a_list_of_another_length_is_refused(raw_config: dict[str, Any]) -> None:
    """One factor for each rotated pair."""
    scaling = SCALINGS["longrope"] | {"long_factor": [1.0] * 3}
    with pytest.raises(ConfigurationError, match="long_factor has 3 numbers for 16 rotated pairs"):
        read_rope(raw_config, rope_type="longrope", **scaling)
