"""`provider export`: what it reads, what it writes, and what it refuses by name."""

import errno
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import typer
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from provider_core import ConfigurationError
from provider_export import register_commands
from provider_export.checkpoint import Checkpoint
from provider_export.export import COMPANION_FILES, export_decoder
from tests.tiny_checkpoints import write_checkpoint


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A Qwen3 checkpoint."""
    return write_checkpoint(tmp_path / "source")


def change_config(folder: Path, **changes: Any) -> None:
    """Replace keys of config.json."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def exported_bytes(source: Path, out: Path, **options: Any) -> bytes:
    """The model file of an export."""
    return export_decoder(source, out, **options).read_bytes()


def test_shards_are_one_checkpoint(source: Path, tmp_path: Path) -> None:
    """A sharded checkpoint exports to the same file as a whole one."""
    whole = exported_bytes(source, tmp_path / "whole")
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    weight_map = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(tensors)}
    for shard in set(weight_map.values()):
        names = [name for name in tensors if weight_map[name] == shard]
        save_file({name: tensors[name] for name in names}, source / shard)
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert exported_bytes(source, tmp_path / "sharded") == whole


def test_weights_may_lie_elsewhere(source: Path, tmp_path: Path) -> None:
    """The configuration in one folder, the safetensors in another."""
    whole = exported_bytes(source, tmp_path / "whole")
    weights = tmp_path / "weights"
    weights.mkdir()
    (source / "model.safetensors").rename(weights / "model.safetensors")
    assert exported_bytes(source, tmp_path / "apart", weights=weights) == whole


def test_bfloat16_is_read_exactly(source: Path, tmp_path: Path) -> None:
    """A bfloat16 checkpoint equals a float32 one of the same values."""
    tensors = load_file(source / "model.safetensors")
    short = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()}
    save_file(short, source / "model.safetensors")
    from_short = exported_bytes(source, tmp_path / "short")
    long = {name: tensor.astype(np.float32) for name, tensor in short.items()}
    save_file(long, source / "model.safetensors")
    assert exported_bytes(source, tmp_path / "long") == from_short


def test_nothing_is_stored_twice(source: Path, tmp_path: Path) -> None:
    """Tied embeddings once, rotation tables never: the file is little more than the weights."""
    change_config(source, max_position_embeddings=32768)
    num_weights = sum(tensor.size for tensor in load_file(source / "model.safetensors").values())
    sizes = {
        precision: len(exported_bytes(source, tmp_path / precision, precision=precision))
        for precision in ("fp32", "fp16")
    }
    skeleton = sizes["fp32"] - 4 * num_weights
    assert 0 < skeleton < 16_000
    assert sizes["fp16"] < 2 * num_weights + skeleton + 6_000


def test_companion_files_are_copied(source: Path, tmp_path: Path) -> None:
    """Configuration, tokenizer and template travel; weights and anything else stay."""
    for name in (*COMPANION_FILES, "notes.txt"):
        (source / name).write_text(name)
    export_decoder(source, tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"model.onnx", "config.json", *COMPANION_FILES}
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "chat_template.jinja"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not one of llama, "),
        ({"hidden_size": 64}, r"shape \[96, 48\], config\.json implies \[96, 64\]"),
        ({"num_hidden_layers": 3}, r"no tensor model\.layers\.2\."),
        ({"num_hidden_layers": 1}, "num_hidden_layers is 1, but the checkpoint has 2 layers"),
    ],
)
def test_what_cannot_be_exported_is_named(
    source: Path, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    """The key or the tensor stands in the message."""
    change_config(source, **changes)
    with pytest.raises(ConfigurationError, match=complaint):
        export_decoder(source, tmp_path / "out")


def test_pickled_weights_are_not_looked_at(source: Path, tmp_path: Path) -> None:
    """Only safetensors are weights."""
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match="holds neither model"):
        export_decoder(source, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x10" + b"\x00" * 7 + b"{" * 16])
def test_malformed_safetensors_are_refused(source: Path, tmp_path: Path, content: bytes) -> None:
    """A header that is none, or that claims 2^63 bytes."""
    (source / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not a safetensors file"):
        export_decoder(source, tmp_path / "out")


@pytest.mark.parametrize("shard", ["../model.safetensors", "/model.safetensors", 3])
def test_shards_elsewhere_are_refused(source: Path, tmp_path: Path, shard: object) -> None:
    """An index names files beside it."""
    index = {"weight_map": {"model.norm.weight": shard}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigurationError, match="not a file beside it"):
        export_decoder(source, tmp_path / "out")


@pytest.mark.parametrize("index", ["[" * 100_000, "[]", '{"weight_map": [1]}', "{"])
def test_an_index_that_is_none_is_named(source: Path, tmp_path: Path, index: str) -> None:
    """JSON of another kind, nested too deeply, or none."""
    (source / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ConfigurationError, match=r"index\.json is not an index of shards"):
        export_decoder(source, tmp_path / "out")


def test_a_missing_shard_is_named(source: Path, tmp_path: Path) -> None:
    """Not as a file of another kind."""
    index = {"weight_map": {"model.norm.weight": "part-2.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigurationError, match=r"source has no part-2\.safetensors, which"):
        export_decoder(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("dtype", "stored_as"),
    [
        (ml_dtypes.float8_e4m3fn, "F8_E4M3"),
        (ml_dtypes.float8_e5m2, "F8_E5M2"),
        (np.float64, "F64"),
        (np.int8, "I8"),
        (np.uint32, "U32"),
    ],
)
def test_weights_of_another_type_are_refused(
    source: Path, tmp_path: Path, dtype: type, stored_as: str
) -> None:
    """By the tensor's name and type, also where numpy lacks it, or several share a number."""
    tensors = load_file(source / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    packed: npt.NDArray[Any] = tensors[name].astype(dtype)[:, :8].copy()
    save_file(tensors | {name: packed}, source / "model.safetensors")
    with pytest.raises(ConfigurationError, match=rf"{re.escape(name)} is stored as {stored_as}, "):
        export_decoder(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_weights_that_are_no_numbers_are_refused(
    source: Path, tmp_path: Path, value: float, dtype: type, precision: str
) -> None:
    """By the tensor's name, in every precision."""
    tensors = load_file(source / "model.safetensors")
    tensors = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    tensors["model.layers.1.mlp.up_proj.weight"][2, 3] = value
    save_file(tensors, source / "model.safetensors")
    complaint = r"tensor model\.layers\.1\.mlp\.up_proj\.weight holds infinities"
    with pytest.raises(ConfigurationError, match=complaint):
        export_decoder(source, tmp_path / "out", precision=precision)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_weights_beyond_float16_are_refused_in_fp16(source: Path, tmp_path: Path) -> None:
    """They would become infinite."""
    tensors = load_file(source / "model.safetensors")
    tensors["model.embed_tokens.weight"][0, 0] = 1e5
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(ConfigurationError, match="does not fit into fp16"):
        export_decoder(source, tmp_path / "out", precision="fp16")


def run_command(*arguments: object) -> Result:
    """`provider export` with these arguments, not on a terminal."""
    app = typer.Typer()
    app.callback()(lambda: None)
    register_commands(app)
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_the_command_writes_a_folder(source: Path, tmp_path: Path) -> None:
    """`provider export SOURCE OUT --precision int4` says how far it is and what it wrote."""
    out = tmp_path / "out"
    result = run_command(source, out, "--precision", "int4", "--block-size", "16")
    assert result.exit_code == 0, result.output
    assert (out / "model.onnx").is_file()
    assert "100% of 0.0 million weights" in result.stderr
    assert "int4 in blocks of 16" in result.stdout
    size = (out / "model.onnx").stat().st_size / 1e6
    assert f"{out}: {size:.1f} MB" in result.stdout.replace("\n", "")


def test_the_command_says_what_serving_will_miss(source: Path, tmp_path: Path) -> None:
    """No tokenizer, and a head that a tied decoder does not look at."""
    change_config(source, tie_word_embeddings=True)
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, source / "model.safetensors")
    result = run_command(source, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "cannot be served without a tokenizer.json" in result.stdout
    assert "lm_head.weight is not used" in result.stdout
    del tensors["lm_head.weight"]
    save_file(tensors, source / "model.safetensors")
    (source / "tokenizer.json").write_text("{}")
    assert len(run_command(source, tmp_path / "out").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["missing", "out"], "config.json"),
        (["out"], "give SOURCE and OUT"),
        (["--shape", "qwen2.5-0.5b", "--random", "source", "out"], "give SOURCE and OUT"),
        (["--shape", "qwen2.5-0.5b", "out"], "go together"),
        (["--random", "source", "out"], "go together"),
        (["--layers", "2", "source", "out"], "go together"),
        (["--shape", "gpt-5", "--random", "out"], "not one of qwen2.5-0.5b"),
        (["--block-size", "48", "--precision", "int4", "source", "out"], "power of two"),
        (["--block-size", "1073741824", "--precision", "int4", "source", "out"], "16 to 256"),
        (["--block-size", "32", "source", "out"], "for --precision int4"),
        (["--max-model-len", "513", "source", "out"], "513 positions are asked for"),
        (["source", ""], "name is empty"),
    ],
)
def test_the_command_refuses(
    source: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], complaint: str
) -> None:
    """In a sentence, and writes nothing."""
    monkeypatch.chdir(source.parent)
    refused = run_command(*arguments)
    assert refused.exit_code == 2
    assert complaint in refused.output
    assert [path.name for path in source.parent.iterdir()] == ["source"]


def test_an_output_that_is_a_file_is_refused_at_once(source: Path, tmp_path: Path) -> None:
    """And a folder that cannot be made below one."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is a file, not a folder"):
        export_decoder(source, tmp_path / "file")
    with pytest.raises(ConfigurationError, match=r"a folder in .*file cannot be made: Not a"):
        export_decoder(source, tmp_path / "file" / "out")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match="link is a link to nowhere, which is not there"):
        export_decoder(source, tmp_path / "link")


def test_sigterm_leaves_nothing_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an interrupt from the keyboard; afterwards the signal is the process's own again."""
    before = signal.getsignal(signal.SIGTERM)
    read = Checkpoint.read

    def stop_after(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> Any:
        weight = read(checkpoint, name, shape)
        signal.raise_signal(signal.SIGTERM)
        return weight

    monkeypatch.setattr(Checkpoint, "read", stop_after)
    assert run_command(source, tmp_path / "out").exit_code == 130
    assert list(tmp_path.iterdir()) == [source]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_full_disk_is_one_line(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a traceback; what was written is gone."""

    def fill(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", fill)
    refused = run_command(source, tmp_path / "out")
    assert refused.exit_code == 2
    unboxed = " ".join(refused.output.replace("│", " ").split())
    assert "cannot be written: No space left on device" in unboxed
    assert list(tmp_path.iterdir()) == [source]
