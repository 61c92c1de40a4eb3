"""Exported decoders and the reference decoder against the families' own code in transformers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    PreTrainedModel,
)

from provider_core import ModelSpec
from provider_core.interfaces import ModelRunner
from provider_core.testing import prefill_batch
from provider_export.export import TargetName, export_decoder
from provider_onnxruntime import load_model
from tests.reference_decoder import ReferenceDecoder
from tests.tiny_checkpoints import VARIANTS, max_model_len_of, write_checkpoint_of

NUM_TOKENS, CHUNK, VOCAB_SIZE = 60, 23, 96


@pytest.fixture(scope="module", params=VARIANTS)
def case(request: pytest.FixtureRequest) -> str:
    """The name of a case."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(case: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its random checkpoint."""
    return write_checkpoint_of(case, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def theirs(folder: Path) -> PreTrainedModel:
    """The checkpoint as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )


@pytest.fixture(scope="module")
def token_ids() -> list[int]:
    """A text longer than every window."""
    ids: list[int] = np.random.default_rng(5).integers(0, VOCAB_SIZE, NUM_TOKENS).tolist()
    return ids


def torch_logits(model: PreTrainedModel, token_ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """Of every position, by one forward pass."""
    with torch.no_grad():
        logits: npt.NDArray[np.float32] = model.eval()(torch.tensor([token_ids])).logits[0].numpy()
    return logits


def exported_logits(
    source: Path, out: Path, target: TargetName, token_ids: Sequence[int], max_model_len: int | None
) -> npt.NDArray[np.float32]:
    """Of every position, by a prefill in chunks."""
    export_decoder(source, out, target=target, max_model_len=max_model_len)
    runner = load_model(ModelSpec(id="tiny", source="", max_num_seqs=2, max_model_len=64), out)
    assert isinstance(runner, ModelRunner)
    try:
        return np.concatenate(
            [
                runner.execute_model(
                    prefill_batch(1, piece, num_computed_tokens=start, num_logits=len(piece))
                )
                for start in range(0, len(token_ids), CHUNK)
                if (piece := token_ids[start : start + CHUNK])
            ]
        )
    finally:
        runner.close()


def test_the_reference_decoder_equals_transformers(
    case: str, folder: Path, theirs: PreTrainedModel, token_ids: list[int]
) -> None:
    """So that tests without torch compare with the right thing."""
    reference = ReferenceDecoder(folder, max_len=max_model_len_of(case))
    expected = torch_logits(theirs, token_ids)
    np.testing.assert_allclose(reference.logits(token_ids), expected, atol=1e-3)


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_the_export_equals_transformers(
    case: str,
    folder: Path,
    theirs: PreTrainedModel,
    token_ids: list[int],
    tmp_path: Path,
    target: TargetName,
) -> None:
    """Every logit of every position."""
    ours = exported_logits(folder, tmp_path, target, token_ids, max_model_len_of(case))
    np.testing.assert_allclose(ours, torch_logits(theirs, token_ids), atol=1e-3)


def test_what_transformers_saves_exports_to_the_same_numbers(
    case: str, theirs: PreTrainedModel, token_ids: list[int], tmp_path: Path
) -> None:
    """Its newer configuration has other keys than the ones that checkpoints came with so far."""
    theirs.save_pretrained(tmp_path / "saved")
    ours = exported_logits(
        tmp_path / "saved", tmp_path / "out", "cpu", token_ids, max_model_len_of(case)
    )
    np.testing.assert_allclose(ours, torch_logits(theirs, token_ids), atol=1e-3)


def test_a_multimodal_gemma3_exports_its_text_decoder(token_ids: list[int], tmp_path: Path) -> None:
    """As transformers nests and names it."""
    torch.manual_seed(1)
    text = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 12,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    config._attn_implementation = "eager"
    model = Gemma3ForConditionalGeneration(config)
    model.save_pretrained(tmp_path / "saved")
    ours = exported_logits(tmp_path / "saved", tmp_path / "out", "cpu", token_ids, None)
    np.testing.assert_allclose(ours, torch_logits(model, token_ids), atol=1e-3)
