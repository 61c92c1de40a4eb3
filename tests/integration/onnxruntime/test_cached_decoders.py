"""Decoders out of the cache: the tokens of the decoder as supplied, whatever lies in the cache."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from structlog.testing import capture_logs

from provider_core import Batch, ConfigurationError, ModelRunner, ModelSpec
from provider_export.export import export_decoder
from provider_onnxruntime import load_model
from provider_onnxruntime.model_folder import check_prepacked
from provider_onnxruntime.onnx_file import StoredTensor, read_onnx_file
from provider_onnxruntime.optimise.cache import (
    DATA,
    MANIFEST,
    SAMPLE_BYTES,
    SAMPLED_BYTES,
    fingerprint,
    hash_content,
)
from provider_onnxruntime.optimise.graph import ALIGNMENT
from tests.decoder_variants import GrowingTarget, MaskedGenaiTarget, write_variant
from tests.generation import generate_greedily
from tests.tiny_checkpoints import write_checkpoint

VARIANTS: dict[str, Callable[[Path, Path], object]] = {
    "ours": export_decoder,
    "ours-tensorrt": partial(export_decoder, target="tensorrt"),
    "ours-int4": partial(export_decoder, precision="int4"),
    "genai-mask": partial(write_variant, make_target=MaskedGenaiTarget, keeps_all_logits=True),
    "optimum": partial(write_variant, make_target=GrowingTarget, keeps_all_logits=True),
    "optimum-branch": partial(write_variant, make_target=partial(GrowingTarget, has_branch=True)),
    "half-logits": partial(
        write_variant, make_target=MaskedGenaiTarget, keeps_all_logits=True, has_half_logits=True
    ),
}
PROMPTS = [[5, 3, 80, 41, 7, 7, 12, 9], [1, 2, 3], [60] * 20]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint with biases, wide enough for every pass."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), "qwen2", hidden_size=64)


@pytest.fixture(params=VARIANTS)
def folder(request: pytest.FixtureRequest, checkpoint: Path, tmp_path: Path) -> Path:
    """Each variant's folder."""
    VARIANTS[request.param](checkpoint, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def exported(checkpoint: Path, tmp_path: Path) -> Path:
    """The folder of our own export."""
    export_decoder(checkpoint, tmp_path / "model")
    return tmp_path / "model"


def load(folder: Path, precision: str | None = None, **options: object) -> ModelRunner:
    """A runner that has run nothing yet."""
    spec = ModelSpec(
        id="tiny",
        source=str(folder),
        precision=precision,
        max_num_seqs=4,
        max_model_len=96,
        options=options,
    )
    runner = load_model(spec, folder)
    assert isinstance(runner, ModelRunner)
    return runner


def answer(folder: Path, precision: str | None = None, **options: object) -> list[list[int]]:
    """Greedy tokens."""
    runner = load(folder, precision, **options)
    try:
        return generate_greedily(runner, PROMPTS, 24)
    finally:
        runner.close()


def entries(folder: Path) -> list[Path]:
    """Graphs in a model's own cache."""
    return sorted((folder / ".provider-cache").glob("*/decoder.onnx"))


def events(logs: Sequence[Mapping[str, object]]) -> list[object]:
    """Names of what was logged."""
    return [entry["event"] for entry in logs]


def test_the_cache_changes_no_token(folder: Path) -> None:
    """Neither when it is filled nor when it is used."""
    supplied = answer(folder, cache=False)
    assert entries(folder) == []
    assert answer(folder, cache=True) == supplied
    [entry] = entries(folder)
    written = entry.stat().st_mtime_ns
    assert answer(folder, cache=True, verify_cache=False) == supplied
    assert entry.stat().st_mtime_ns == written


def test_logits_of_all_positions_are_had_from_a_rewritten_graph(folder: Path) -> None:
    """Who asks for every position gets what the graph as supplied gives."""
    found = []
    for cache in (False, True):
        runner = load(folder, cache=cache)
        ids, zeros = np.array(PROMPTS[:1]), np.zeros(1, np.int32)
        found.append(runner.execute_model(Batch("prefill", zeros, ids, zeros, ids.size)).copy())
        runner.close()
    assert found[0].shape == (len(PROMPTS[0]), 96)
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


@pytest.mark.parametrize("precision", ["int4", "int8", "hybrid"])
def test_derived_weights_are_kept(exported: Path, precision: str) -> None:
    """One entry for each weight set, and the tokens of those derived anew."""
    derived = answer(exported, precision, cache=False)
    for _ in range(2):
        assert answer(exported, precision, cache=True) == derived
    assert len(entries(exported)) == (2 if precision == "hybrid" else 1)


def test_a_start_from_the_cache_imports_no_onnx(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its import takes longer than the rest of the start."""
    answer(exported, cache=True)

    def refuse(*_: object) -> None:
        pytest.fail("the graph was rewritten")

    monkeypatch.setattr("provider_onnxruntime.optimise.prepare._rewrite", refuse)
    answer(exported, cache=True)


def test_small_models_are_not_cached_unasked(exported: Path) -> None:
    """They load in an instant, and the built-in one lies among the installed files."""
    answer(exported)
    assert entries(exported) == []


def break_graph(entry: Path) -> None:
    """A byte of the graph."""
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 0xFF
    entry.write_bytes(content)


def break_graph_and_manifest(entry: Path) -> None:
    """A graph that its manifest vouches for and no runtime can read."""
    cache_file = entry.parent / "manifest.json"
    entry.write_bytes(b"\x08\x0a" + b"no graph at all")
    manifest = json.loads(cache_file.read_bytes())
    manifest["files"][entry.name] = {**fingerprint(entry), "xxh3_128": hash_content(entry)}
    cache_file.write_text(json.dumps(manifest))


def break_weights(entry: Path) -> None:
    """One bit amid weights that are sampled."""
    with entry.with_name(DATA).open("r+b") as weights:
        weights.truncate(SAMPLED_BYTES + 2**16)  # a hole behind them, which no graph knows of
    manifest = json.loads((entry.parent / MANIFEST).read_bytes())
    data = entry.with_name(DATA)
    manifest["files"][DATA] = {**fingerprint(data), "xxh3_128": hash_content(data)}
    (entry.parent / MANIFEST).write_text(json.dumps(manifest))
    with data.open("r+b") as weights:
        weights.seek(SAMPLE_BYTES + 5)
        byte = weights.read(1)[0]
        weights.seek(SAMPLE_BYTES + 5)
        weights.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("damage", [break_graph, break_graph_and_manifest, break_weights])
def test_a_broken_entry_is_made_again(exported: Path, damage: Callable[[Path], None]) -> None:
    """It is told once, and the next start finds nothing to tell."""
    expected = answer(exported, cache=True)
    [entry] = entries(exported)
    damage(entry)
    with capture_logs() as logs:
        assert answer(exported, cache=True) == expected
        assert answer(exported, cache=True) == expected
    assert events(logs) == ["cache.rebuilt"]


@pytest.mark.parametrize(
    "what", ["read_processor_features", "fingerprint_source"], ids=["processor", "model"]
)
def test_another_processor_or_model_gets_its_own_entry(
    exported: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is built on one machine may run on another."""
    answer(exported, cache=True)
    monkeypatch.setattr(f"provider_onnxruntime.optimise.prepare.{what}", lambda *_: "other")
    answer(exported, cache=True)
    assert len(entries(exported)) == 2


def test_a_full_disk_costs_the_cache_and_not_the_start(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says why."""

    def fail(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    expected = answer(exported, cache=False)
    monkeypatch.setattr("provider_onnxruntime.optimise.cache._flush", fail)
    with capture_logs() as logs:
        assert answer(exported, cache=True) == expected
    assert events(logs) == ["cache.unavailable"]
    assert entries(exported) == []


def test_a_folder_that_cannot_be_written_costs_the_cache_and_not_the_start(
    exported: Path, tmp_path: Path
) -> None:
    """A file stands where the folder should be: nobody, not even root, can write there."""
    (tmp_path / "file").write_text("")
    expected = answer(exported, cache=False)
    with capture_logs() as logs:
        assert answer(exported, cache=True, cache_dir=str(tmp_path / "file")) == expected
    assert events(logs) == ["cache.unavailable"]


def test_saved_weights_that_are_read_wrongly_are_not_kept(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime would say nothing: logits tell."""

    def garble(path: Path) -> None:
        data = path.with_name(f"{path.name}.data")
        data.write_bytes(bytes(data.stat().st_size))

    monkeypatch.setattr("provider_onnxruntime.optimise.saved_model.align_weights", garble)
    with capture_logs() as logs:
        answer(exported, cache=True)
    assert events(logs) == ["cache.unavailable"]
    assert entries(exported) == []


def test_a_shared_folder_keeps_models_apart(exported: Path, tmp_path: Path) -> None:
    """Two models of one name, each with its entry."""
    other = tmp_path / "other" / "model"
    shutil.copytree(exported, other)
    shared = tmp_path / "shared"
    for folder in (exported, other, exported):
        answer(folder, cache=True, cache_dir=str(shared))
    assert len(list(shared.glob("*/*/decoder.onnx"))) == 2
    assert entries(exported) == []


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """The entry of a decoder in int4, whose weights are packed."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint", hidden_size=256, vocab_size=960)
    export_decoder(checkpoint, tmp_path / "model", precision="int4")
    answer(tmp_path / "model", cache=True)
    [entry] = entries(tmp_path / "model")
    return entry


def test_every_range_lies_at_the_start_of_a_page(packed: Path) -> None:
    """Packed weights too: kernels lay them out by the address they lie at."""
    model = onnx.load(packed, load_external_data=False)
    offsets, num_packed = [], 0
    for tensor in model.graph.initializer:
        for item in tensor.external_data:
            if item.key == "offset":
                offsets.append(int(item.value))
            elif item.key.startswith("prepacked"):
                num_packed += 1
                offsets += [int(blob.split(";")[0]) for blob in item.value.split("|")[1:]]
    assert num_packed > 5
    assert [offset % ALIGNMENT for offset in offsets] == [0] * len(offsets)
    assert len(set(offsets)) == len(offsets)


def test_packed_weights_beyond_their_file_are_refused(packed: Path) -> None:
    """The runtime would map them and be killed when it reads them."""
    data = packed.with_name(f"{packed.name}.data")
    size = data.stat().st_size
    for weight in read_onnx_file(packed).weights:
        check_prepacked(packed, weight)
    external = {"location": data.name, "prepacked_1": f"MatMulNBits+1|{size - 8};16;0"}
    weight = StoredTensor("w", "uint8", (8,), external)
    with pytest.raises(ConfigurationError, match="cut off"):
        check_prepacked(packed, weight)
