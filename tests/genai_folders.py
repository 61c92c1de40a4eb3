"""Tiny models as onnxruntime-genai wants them: our exporter's decoder and a genai_config.json."""

import json
from pathlib import Path
from typing import Any

from tests.decoder_variants import MaskedGenaiTarget, write_variant
from tests.tiny_checkpoints import write_checkpoint

LAYERS, HEADS, KV_HEADS, HEAD_DIM, HIDDEN = 2, 4, 2, 16, 48
MAX_LENGTH = 512


def write_genai_folder(folder: Path, *, vocab_size: int, eos_token_id: int = 1) -> Path:
    """Write a random decoder of two layers.

    Args:
        folder: Made if it is missing; its checkpoint goes into a folder beside it.
        vocab_size: Ids.
        eos_token_id: At which the runtime ends a text.
    """
    checkpoint = write_checkpoint(
        folder.with_name(f"{folder.name}-checkpoint"), vocab_size=vocab_size
    )
    write_variant(checkpoint, folder, MaskedGenaiTarget, keeps_all_logits=True)
    decoder = {
        "session_options": {"log_id": "test", "provider_options": [], "intra_op_num_threads": 1},
        "filename": "model.onnx",
        "head_size": HEAD_DIM,
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    config: dict[str, Any] = {
        "model": {
            "type": "qwen3",
            "bos_token_id": 0,
            "eos_token_id": [eos_token_id],
            "pad_token_id": 0,
            "context_length": MAX_LENGTH,
            "vocab_size": vocab_size,
            "decoder": decoder,
        },
        "search": {"max_length": MAX_LENGTH, "past_present_share_buffer": True},
    }
    (folder / "genai_config.json").write_text(json.dumps(config))
    return folder
