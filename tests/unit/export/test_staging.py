"""Folders that are written whole: what they replace, and what killed processes leave."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from provider_core import ConfigurationError
from provider_export.export import COMPANION_FILES, export_decoder
from provider_export.staging import staged_folder
from tests.tiny_checkpoints import write_checkpoint

MODEL_FILES = ("model.onnx", "model.onnx.data")


def test_companions_of_the_model_before_go(tmp_path: Path) -> None:
    """An export over another leaves none of its tokenizer and templates; other files stay."""
    first, second = (write_checkpoint(tmp_path / name) for name in ("first", "second"))
    for name in COMPANION_FILES:
        (first / name).write_text("first")
    (second / "tokenizer.json").write_text("second")
    export_decoder(first, tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")

    export_decoder(second, tmp_path / "out")

    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"model.onnx", "config.json", "tokenizer.json", "notes.txt"}
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "second"


def test_an_export_in_place_keeps_its_companions(tmp_path: Path) -> None:
    """They are the source's own."""
    source = write_checkpoint(tmp_path / "source")
    (source / "chat_template.jinja").write_text("mine")

    export_decoder(source, source)

    assert (source / "chat_template.jinja").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.safetensors.index.json", "genai_config.json"]
)
def test_the_folder_of_another_kind_of_model_is_no_output(tmp_path: Path, name: str) -> None:
    """Its configuration and tokenizer would be lost, or its description believed."""
    source = write_checkpoint(tmp_path / "source")
    out = tmp_path / "other"
    out.mkdir()
    (out / name).touch()
    (out / "config.json").write_text("other")

    with pytest.raises(ConfigurationError, match=f"other holds {name} of another model"):
        export_decoder(source, out)

    assert (out / "config.json").read_text() == "other"


@pytest.mark.parametrize("exists", [False, True])
def test_what_killed_processes_left_is_swept(tmp_path: Path, *, exists: bool) -> None:
    """Beside a folder that is to be made, or in the one that is there; nothing else goes."""
    out = tmp_path / "out[1]"
    parent = out if exists else tmp_path
    parent.mkdir(exist_ok=True)
    for name in (".out[1].0123abcd.partial", ".out[1].mine.partial", ".other.0123abcd.partial"):
        (parent / name).mkdir()
        (parent / name / "model.onnx").touch()

    with staged_folder(out, MODEL_FILES) as folder:
        left = {path.name for path in parent.iterdir()} - {folder.name}

    assert left == {".out[1].mine.partial", ".other.0123abcd.partial"}


def test_a_folder_that_is_being_written_is_not_swept(tmp_path: Path) -> None:
    """Two exports into one place: each has a folder of its own, and the last one stays."""
    out = tmp_path / "out"
    out.mkdir()

    with staged_folder(out, MODEL_FILES) as one:
        (one / "model.onnx").write_text("one")
        with staged_folder(out, MODEL_FILES) as two:
            (two / "model.onnx").write_text("two")
        assert (out / "model.onnx").read_text() == "two"

    assert [path.name for path in out.iterdir()] == ["model.onnx"]
    assert (out / "model.onnx").read_text() == "one"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """What looks like a folder of ours and is a link to one of somebody else's."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").touch()
    (tmp_path / ".out.0123abcd.partial").symlink_to("theirs", target_is_directory=True)

    with staged_folder(tmp_path / "out", MODEL_FILES):
        pass

    assert (tmp_path / "theirs" / "file").exists()


def test_a_file_system_without_locks_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is swept there, because nobody knows what is still being written."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    left = tmp_path / ".out.0123abcd.partial"
    left.mkdir()

    with staged_folder(tmp_path / "out", MODEL_FILES) as folder:
        (folder / "model.onnx").touch()

    assert left.is_dir()
    assert (tmp_path / "out" / "model.onnx").is_file()
