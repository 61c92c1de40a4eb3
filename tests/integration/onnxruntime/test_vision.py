"""A tiny model that sees: its parts together are the decoder that they were taken from."""

import io
import json
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import provider_onnxruntime
from provider_core import ConfigurationError, ModelRunner, ModelSpec
from provider_core.interfaces import Batch
from provider_core.testing import prefill_batch
from provider_core.vision import ImageEncoder
from tests.decoder_variants import GrowingTarget, write_variant
from tests.serving import make_model_dir, serving
from tests.tiny_checkpoints import write_checkpoint
from tests.vision_folders import IMAGE_TOKEN, SIDE, VECTORS, embedding_of, see, write_vision_model

PROMPT = (3, 11, 5, 2, 9, 40, 8, 1)
PIXELS = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One random decoder for all."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def load(folder: Path, **options: object) -> ModelRunner:
    """Load a folder as the server does."""
    spec = ModelSpec(id="m", source="", max_model_len=64, max_num_seqs=4, options=options)
    runner = provider_onnxruntime.load_model(model=spec, model_dir=folder)
    assert isinstance(runner, ModelRunner)
    runner.warm_up()
    return runner


def logits_of(
    runner: ModelRunner, ids: tuple[int, ...], vectors: list[tuple[int, np.ndarray]] | None = None
) -> np.ndarray:
    """Logits behind a prompt in slot 0, with vectors in place of some ids."""
    plain = prefill_batch(0, ids)
    batch = Batch(
        "prefill", plain.slots, plain.token_ids, plain.num_computed_tokens, 1, vectors or ()
    )
    return runner.execute_model(batch).copy()


def test_the_parts_are_the_decoder(checkpoint: Path, tmp_path: Path) -> None:
    """Ids through the table give what the whole decoder gives, in prefill and decode."""
    whole = load(write_variant(checkpoint, tmp_path / "whole", GrowingTarget))
    parts = load(write_vision_model(checkpoint, tmp_path / "parts"))
    assert np.allclose(logits_of(parts, PROMPT), logits_of(whole, PROMPT), atol=1e-5)
    decode = Batch(
        "decode",
        np.zeros(1, np.int32),
        np.array([[4]], np.int64),
        np.array([len(PROMPT)], np.int32),
        1,
    )
    assert np.allclose(parts.execute_model(decode), whole.execute_model(decode), atol=1e-5)
    whole.close()
    parts.close()


def test_vectors_stand_for_ids(checkpoint: Path, tmp_path: Path) -> None:
    """The table's own vectors, shown where other ids are, give the logits of the table's ids."""
    folder = write_vision_model(checkpoint, tmp_path)
    runner, table = load(folder), embedding_of(folder)
    masked = (*PROMPT[:2], IMAGE_TOKEN, IMAGE_TOKEN, IMAGE_TOKEN, *PROMPT[5:])
    expected = logits_of(runner, PROMPT)
    shown = logits_of(runner, masked, [(2, table[list(PROMPT[2:5])])])
    assert np.array_equal(shown, expected)
    assert not np.allclose(logits_of(runner, masked), expected)
    runner.close()


def test_a_picture_is_seen_as_it_was_prepared(checkpoint: Path, tmp_path: Path) -> None:
    """Resized, scaled and normalised, then the encoder's vectors."""
    size = json.loads((checkpoint / "config.json").read_text())["hidden_size"]
    projection = np.random.default_rng(2).standard_normal((3, size), np.float32)
    runner = load(write_vision_model(checkpoint, tmp_path, projection))
    assert isinstance(runner, ImageEncoder)
    assert runner.image_token_id == IMAGE_TOKEN
    vectors = runner.encode_image(PIXELS)
    assert vectors.shape == (VECTORS, size)
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, see(PIXELS, projection), atol=1e-4)
    larger = runner.encode_image(np.repeat(np.repeat(PIXELS, 5, axis=0), 3, axis=1))
    assert larger.shape == vectors.shape
    runner.close()
    runner.close()


@pytest.mark.parametrize(
    ("part", "message"),
    [("embed_tokens", "embed_tokens"), ("vision_encoder", "vision_encoder")],
)
def test_a_missing_part_is_named(checkpoint: Path, tmp_path: Path, part: str, message: str) -> None:
    """Rather than a decoder that nobody can feed."""
    folder = write_vision_model(checkpoint, tmp_path)
    (folder / "onnx" / f"{part}.onnx").unlink()
    with pytest.raises(ConfigurationError, match=message):
        load(folder, model_file="onnx/decoder_model_merged.onnx")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", {"image_token_index": None}, "image_token_id"),
        ("preprocessor_config.json", {"do_image_splitting": True}, "do_image_splitting"),
        ("preprocessor_config.json", {"size": {}}, "how images are prepared"),
    ],
)
def test_folders_that_leave_something_open_are_refused(
    checkpoint: Path, tmp_path: Path, name: str, content: dict[str, object], message: str
) -> None:
    """With the file's name, at the start."""
    folder = write_vision_model(checkpoint, tmp_path)
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**config, **content}))
    with pytest.raises(ConfigurationError, match=message):
        load(folder)


def test_weights_run_as_supplied(checkpoint: Path, tmp_path: Path) -> None:
    """Nothing is derived for a model in parts, and nobody is told that it was."""
    folder = write_vision_model(checkpoint, tmp_path)
    spec = ModelSpec(id="m", source="", max_model_len=64, precision="int4")
    with pytest.raises(ConfigurationError, match="int4"):
        provider_onnxruntime.load_model(model=spec, model_dir=folder)


TEMPLATE = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{% if part.type == 'image' %}<|image|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)


async def test_a_served_model_answers_to_what_it_sees(tmp_path: Path) -> None:
    """From a data URL to tokens: another picture gives another answer, the same one the same."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint", vocab_size=300)
    folder = write_vision_model(checkpoint, tmp_path / "model")
    config = (folder / "config.json").read_text()
    make_model_dir(folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    image_id = max(token["id"] for token in tokenizer["added_tokens"]) + 1
    token = {**tokenizer["added_tokens"][0], "id": image_id, "content": "<|image|>"}
    tokenizer["added_tokens"].append(token)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (folder / "config.json").write_text(
        json.dumps({**json.loads(config), "image_token_index": image_id})
    )

    def ask(colour: str) -> dict[str, object]:
        file = io.BytesIO()
        Image.new("RGB", (20, 10), colour).save(file, "PNG")
        url = f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}]
        return {
            "model": "test-model",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 12,
            "logprobs": True,
            "temperature": 0,
        }

    models = ({"id": "test-model", "source": str(folder), "max_model_len": 64},)
    async with serving(None, plugins=(provider_onnxruntime,), models=models) as served:
        answers = []
        for colour in ("red", "blue", "red"):
            response = await served.post("/v1/chat/completions", ask(colour))
            answer = await response.json()
            assert answer["usage"]["prompt_tokens"] == VECTORS + 1
            answers.append([t["logprob"] for t in answer["choices"][0]["logprobs"]["content"]])
    red, blue, again = answers
    assert np.allclose(red, again, atol=1e-5)
    assert not np.allclose(red[0], blue[0], atol=1e-5)
