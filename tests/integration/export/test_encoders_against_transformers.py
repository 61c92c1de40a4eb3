"""Encoders as PyTorch exports them, against the families' own code in transformers."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

import provider_onnxruntime
from provider_core import Encoder, EncoderRow, ModelSpec

LENGTHS = (5, 17, 1, 9, 30)
SMALL: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
    "attn_implementation": "eager",
}
QWEN3: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8, "use_cache": False}
MODERN: dict[str, Any] = {
    f"{name}_token_id": i for i, name in enumerate(("pad", "cls", "sep", "bos", "eos"))
}
FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertModel(BertConfig(**SMALL)),
    "xlm-roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**SMALL, pad_token_id=1)),
    "mpnet": lambda: MPNetModel(MPNetConfig(**SMALL)),
    "modernbert": lambda: ModernBertModel(ModernBertConfig(**SMALL, **MODERN)),
    "qwen3": lambda: Qwen3Model(Qwen3Config(**SMALL, **QWEN3)),
    "cross-encoder": lambda: BertForSequenceClassification(BertConfig(**SMALL, num_labels=1)),
}


class Exported(torch.nn.Module):  # type: ignore[misc]  # torch is absent where types are checked
    """A model with one output and inputs by position, as the exporter wants it."""

    def __init__(self, model: PreTrainedModel, names: list[str], output: str) -> None:
        super().__init__()
        self.model, self.names, self.output = model, names, output

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The one output."""
        answer = self.model(**dict(zip(self.names, inputs, strict=True)))
        values: torch.Tensor = getattr(answer, self.output)
        return values


def write_folder(folder: Path, model: PreTrainedModel, names: list[str], output: str) -> None:
    """Export a model and describe it as Sentence Transformers does."""
    ids = torch.arange(3, 17).reshape(2, 7)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            Exported(model, names, output).eval(),
            tuple(values[name] for name in names),
            str(folder / "model.onnx"),
            input_names=names,
            output_names=[output],
            dynamic_axes={name: {0: "n", 1: "s"} for name in names}
            | {output: {0: "n"} if output == "logits" else {0: "n", 1: "s"}},
            dynamo=False,
        )
    model.config.save_pretrained(folder)
    modules = [{"type": f"models.{name}"} for name in ("Transformer", "Pooling", "Normalize")]
    (folder / "modules.json").write_text(json.dumps(modules))
    pooling = "pooling_mode_lasttoken" if is_causal(model) else "pooling_mode_mean_tokens"
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({pooling: True}))


def is_causal(model: PreTrainedModel) -> bool:
    """Whether only the last token has seen all."""
    return isinstance(model, Qwen3Model)


def expected(model: PreTrainedModel, row: EncoderRow, names: list[str], output: str) -> np.ndarray:
    """What a row alone gives in transformers."""
    ids = torch.tensor(row.token_ids[np.newaxis], dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "token_type_ids" in names:
        types = np.zeros(len(row)) if row.token_type_ids is None else row.token_type_ids
        inputs["token_type_ids"] = torch.tensor(types[np.newaxis], dtype=torch.int64)
    with torch.no_grad():
        values = getattr(model(**inputs), output)[0].numpy()
    if output == "logits":
        return np.asarray(1 / (1 + np.exp(-values[0])))
    vector = values[-1] if is_causal(model) else values.mean(axis=0)
    return np.asarray(vector / np.linalg.norm(vector))


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_a_padded_batch_are_transformers_rows_alone(family: str, tmp_path: Path) -> None:
    """Positions, masks, types, pooling, activation: all as the family's own code has them."""
    torch.manual_seed(0)
    model = FAMILIES[family]()
    is_pair = family == "cross-encoder"
    names = ["input_ids", "attention_mask"]
    names += ["token_type_ids"] if isinstance(model.config, BertConfig) else []
    output = "logits" if is_pair else "last_hidden_state"
    write_folder(tmp_path, model, names, output)
    model.eval()
    random = np.random.default_rng(1)
    rows = []
    for length in LENGTHS:
        types = (np.arange(length) >= length // 2).astype(np.int8) if is_pair else None
        rows.append(EncoderRow(random.integers(5, 120, length, np.int32), types))

    spec = ModelSpec(id="m", source="", max_model_len=64)
    encoder = provider_onnxruntime.load_model(model=spec, model_dir=tmp_path)
    assert isinstance(encoder, Encoder)
    values = encoder.encode(rows)
    encoder.close()

    assert np.allclose(values, [expected(model, row, names, output) for row in rows], atol=1e-5)
