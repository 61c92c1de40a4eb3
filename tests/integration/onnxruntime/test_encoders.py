"""Tiny encoders of every kind against numpy, alone and served."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import provider_onnxruntime
from provider_core import ConfigurationError
from provider_core.encoders import Encoder, EncoderRow
from provider_core.types import ModelSpec
from tests.encoder_folders import SIZE, TinyEncoder, make_encoder, write_encoder
from tests.serving import serving

LENGTHS = (3, 17, 1, 8, 30)
Vector = npt.NDArray[np.float64]


def load(folder: Path, **fields: Any) -> Encoder:
    """Load a folder as the server does."""
    spec = ModelSpec(id="m", source="", max_model_len=64, **fields)
    loaded = provider_onnxruntime.load_model(model=spec, model_dir=folder)
    assert isinstance(loaded, Encoder)
    loaded.warm_up()
    return loaded


def rows_of(*lengths: int, pairs: bool = False) -> list[EncoderRow]:
    """Random rows; the second half of a pair has the other type."""
    random = np.random.default_rng(1)
    rows = []
    for length in lengths:
        types = (np.arange(length) >= length // 2).astype(np.int8) if pairs else None
        rows.append(EncoderRow(random.integers(1, 16, length, np.int32), types))
    return rows


def unit(vector: Vector) -> Vector:
    """Of length 1."""
    return vector / np.linalg.norm(vector)


POOLED: Mapping[str, Callable[[Vector], Vector]] = {
    "cls": lambda hidden: hidden[0],
    "mean": lambda hidden: hidden.mean(axis=0),
    "max": lambda hidden: hidden.max(axis=0),
    "mean_sqrt_len": lambda hidden: hidden.sum(axis=0) / len(hidden) ** 0.5,
    "weightedmean": lambda hidden: np.average(hidden, 0, np.arange(1, len(hidden) + 1)),
    "lasttoken": lambda hidden: hidden[-1],
}


@pytest.mark.parametrize("pooling", POOLED)
@pytest.mark.parametrize("normalize", [False, True])
def test_vectors_are_numpys(tmp_path: Path, pooling: str, *, normalize: bool) -> None:
    """Rows of all lengths in one batch, each as if it were alone."""
    tiny, rows = make_encoder(), rows_of(*LENGTHS)
    options = {"pooling": pooling, "normalize": normalize}
    encoder = load(write_encoder(tmp_path, tiny), options=options)
    expected = [POOLED[pooling](tiny.hidden(row)) for row in rows]
    if normalize:
        expected = [unit(vector) for vector in expected]
    vectors = encoder.encode(rows)
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, expected, atol=1e-5)
    alone = np.concatenate([encoder.encode([row]) for row in rows])
    assert np.allclose(vectors, alone, atol=1e-6)
    encoder.close()


def test_a_graph_that_pools_gives_vectors(tmp_path: Path) -> None:
    """Its own output is taken."""
    tiny, rows = make_encoder(), rows_of(*LENGTHS)
    folder = write_encoder(tmp_path, tiny, output="sentence_embedding", modules=("Transformer",))
    encoder = load(folder)
    # The graph's vector is the mean before it was mixed in: half of the mean after.
    expected = [tiny.hidden(row).mean(axis=0) / 2 for row in rows]
    assert np.allclose(encoder.encode(rows), expected, atol=1e-5)
    encoder.close()


@pytest.mark.parametrize("is_identity", [False, True])
def test_scores_are_numpys(tmp_path: Path, *, is_identity: bool) -> None:
    """Types tell query and document apart; the config chooses the activation."""
    tiny, rows = make_encoder(), rows_of(*LENGTHS, pairs=True)
    name = "linear.Identity" if is_identity else "activation.Sigmoid"
    config = {"sentence_transformers": {"activation_fn": f"torch.nn.modules.{name}"}}
    encoder = load(write_encoder(tmp_path, tiny, output="logits", config=config))
    logits = np.array([tiny.logit(row) for row in rows])
    expected = logits if is_identity else 1 / (1 + np.exp(-logits))
    scores = encoder.encode(rows)
    assert (encoder.info.task, scores.shape) == ("score", (len(rows),))
    assert np.allclose(scores, expected, atol=1e-5)
    encoder.close()


def test_the_info_says_what_runs(tmp_path: Path) -> None:
    """Sizes, limits and precision."""
    config = {"is_matryoshka": True}
    files = {"sentence_bert_config.json": {"max_seq_length": 16}}
    encoder = load(write_encoder(tmp_path, make_encoder(), config=config, files=files))
    info = encoder.info
    assert (info.task, info.embedding_size, info.is_normalized) == ("embed", SIZE, True)
    assert (info.max_model_len, info.max_num_seqs, info.precision) == (16, 32, "fp32")
    assert list(info.shorter_sizes) == list(range(1, SIZE))
    encoder.close()
    encoder.close()


def test_graphs_without_token_types_are_not_fed_any(tmp_path: Path) -> None:
    """Only what the graph declares."""
    tiny, rows = make_encoder(), rows_of(*LENGTHS)
    silent = TinyEncoder(tiny.tokens, np.zeros_like(tiny.types), tiny.head)
    encoder = load(write_encoder(tmp_path, tiny, inputs=("input_ids", "attention_mask")))
    expected = [unit(silent.hidden(row).mean(axis=0)) for row in rows]
    assert np.allclose(encoder.encode(rows), expected, atol=1e-5)
    encoder.close()


def test_weights_run_as_supplied(tmp_path: Path) -> None:
    """Nothing is derived for an encoder, and nobody is told that it was."""
    folder = write_encoder(tmp_path, make_encoder())
    load(folder, precision="fp32").close()
    with pytest.raises(ConfigurationError, match="int8"):
        load(folder, precision="int8")


async def test_a_served_folder_answers_with_its_vectors(tmp_path: Path) -> None:
    """From text to vector, through tokenizer, prompts, batches and pooling."""
    tiny = make_encoder()
    files = {"config_sentence_transformers.json": {"prompts": {"query": "query: "}}}
    folder = write_encoder(tmp_path, tiny, files=files)
    models = ({"id": "test-model", "source": str(folder)},)
    async with serving(None, plugins=(provider_onnxruntime,), models=models) as served:
        body = {"model": "test-model", "input": ["The cat sat", "dogs ran"]}
        plain = await (await served.post("/v1/embeddings", body)).json()
        query = await (
            await served.post("/v1/embeddings", {**body, "input_type": "search_query"})
        ).json()
    words = [[2, 4, 5, 7, 3], [2, 6, 12, 8, 3]]  # [CLS] the cat sat [SEP], [CLS] dog ##s ran [SEP]
    for answer, prompt in ((plain, []), (query, [13, 14])):
        vectors = [item["embedding"] for item in answer["data"]]
        rows = [EncoderRow(np.array([ids[0], *prompt, *ids[1:]], np.int32)) for ids in words]
        expected = [unit(tiny.hidden(row).mean(axis=0)) for row in rows]
        assert np.allclose(vectors, expected, atol=1e-5)
        assert answer["usage"]["prompt_tokens"] == sum(map(len, rows))
