"""What a genai_config.json says, and what the environment says over it."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from provider_core import ConfigurationError
from provider_core.plugin_settings import read_backend_settings
from provider_genai.folder import read_folder
from provider_genai.runtime import UNSUPPORTED
from provider_genai.settings import GenaiSettings

read_settings = partial(read_backend_settings, "genai", GenaiSettings)
MODEL = {"vocab_size": 96, "eos_token_id": [1, 2], "context_length": 512}


def write(folder: Path, config: Any) -> Path:
    """A folder with this configuration."""
    (folder / "genai_config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_says_its_limits(tmp_path: Path) -> None:
    """The search's length, or the context's."""
    said = read_folder(write(tmp_path, {"model": MODEL, "search": {"max_length": 200}}))

    assert (said.vocab_size, said.eos_token_ids, said.max_length) == (96, (1, 2), 200)
    assert not said.batches_dynamically
    assert read_folder(write(tmp_path, {"model": MODEL})).max_length == 512


def test_one_end_may_stand_alone_and_batches_may_be_dynamic(tmp_path: Path) -> None:
    """As older builders write it, and as those of paged caches."""
    engine = {"dynamic_batching": {"block_size": 16}}
    said = read_folder(write(tmp_path, {"model": {**MODEL, "eos_token_id": 3}, "engine": engine}))

    assert (said.eos_token_ids, said.batches_dynamically) == ((3,), True)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ([], "no configuration"),
        ({"model": {}}, "no configuration"),
        ({"model": {"vocab_size": "many"}}, "no configuration"),
        (
            {"model": {**MODEL, "decoder": {"session_options": {"custom_ops_library": "x.so"}}}},
            "custom_ops_library",
        ),
        ({"model": MODEL, "pipeline": [{"custom_ops_library": "x.so"}]}, "custom_ops_library"),
    ],
)
def test_a_folder_that_must_not_be_opened(tmp_path: Path, config: Any, says: str) -> None:
    """A model's files are data from strangers."""
    with pytest.raises(ConfigurationError, match=says):
        read_folder(write(tmp_path, config))


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options win over the environment; a mistake is named."""
    monkeypatch.setenv("PROVIDER_GENAI_INTRA_OP_NUM_THREADS", "3")

    assert read_settings({}).intra_op_num_threads == 3
    assert read_settings({"intra_op_num_threads": 2}).intra_op_num_threads == 2
    with pytest.raises(ConfigurationError, match="genai option provider: "):
        read_settings({"provider": "abacus"})


def test_the_page_names_what_is_refused() -> None:
    """An operator reads it before a client does."""
    page = (Path(__file__).parents[3] / "docs/genai.md").read_text(encoding="utf-8")
    names = UNSUPPORTED - {"grammar", "prompt_logprobs"} | set(GenaiSettings.model_fields)

    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
    assert "grammars" in page
