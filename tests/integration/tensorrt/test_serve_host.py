"""Each family, exported for TensorRT, served over HTTP from the host device."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import provider_tensorrt
from provider_export.export import export_decoder
from provider_tensorrt.block_store import BLOCK_SIZE
from tests.reference_decoder import ReferenceDecoder
from tests.serving import EOS, VOCAB_SIZE, ids_of, make_model_dir, serving
from tests.tiny_checkpoints import FAMILIES, write_checkpoint

PROMPTS = ("Tell me", "A much longer text, of which more than a window is read", "x")
NUM_TOKENS = 12


def make_served_folder(folder: Path, family: str, **changes: Any) -> tuple[Path, Path]:
    """A checkpoint with changes to its configuration, and its export with a tokenizer beside it."""
    source = write_checkpoint(
        folder / "checkpoint", family, vocab_size=VOCAB_SIZE, eos_token_id=EOS, **changes
    )
    out = folder / "out"
    export_decoder(source, out, target="tensorrt")
    texts = make_model_dir(folder / "texts")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(texts / name, out / name)
    return source, out


def served_model(folder: Path) -> dict[str, Any]:
    """The model's entry in the configuration."""
    return {
        "id": "test-model",
        "source": str(folder),
        "backend": "tensorrt",
        "max_num_seqs": 4,
        "max_model_len": 256,
        "options": {"device": "host", "memory_reserve_mib": 0},
    }


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_family_is_served(tmp_path: Path, family: str) -> None:
    """Three completions at a time, greedy, equal to a plain forward pass of the checkpoint.

    The longest prompt comes again, and finds its beginning kept.
    """
    source, folder = make_served_folder(tmp_path, family)
    reference = ReferenceDecoder(source)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = [
        tokenizer.decode(reference.greedy(ids_of(prompt), NUM_TOKENS)) for prompt in PROMPTS
    ]
    fields = {"model": "test-model", "max_tokens": NUM_TOKENS, "temperature": 0, "ignore_eos": True}
    async with serving(plugins=(provider_tensorrt,), models=(served_model(folder),)) as served:
        responses = await asyncio.gather(
            *(served.post("/v1/completions", {**fields, "prompt": prompt}) for prompt in PROMPTS)
        )
        answers = [await response.json() for response in responses]
        assert [answer["choices"][0]["text"] for answer in answers] == expected
        assert [answer["usage"]["completion_tokens"] for answer in answers] == [NUM_TOKENS] * 3
        response = await served.post("/v1/completions", {**fields, "prompt": PROMPTS[1]})
        again = await response.json()
        assert again["choices"][0]["text"] == expected[1]
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == BLOCK_SIZE
        await served.settled()
        assert {event["backend"] for event in served.usage.events} == {"tensorrt"}
