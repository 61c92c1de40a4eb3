"""Engines on disk: which one may be used, and what is said where none may."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import onnx
import pytest

from provider_core import ConfigurationError
from provider_export.export import export_decoder
from provider_tensorrt.artefact import (
    FOLDER,
    MANIFEST,
    EngineKey,
    EngineLimits,
    EngineMissing,
    EngineRecord,
    FoundEngine,
    find_engine,
    read_manifest,
)
from provider_tensorrt.decoder_graph import read_decoder
from provider_tensorrt.engine_folder import open_folder
from tests.tiny_checkpoints import write_checkpoint

LIMITS = EngineLimits(max_model_len=512, max_num_seqs=8, max_prefill_tokens=64)
KEY = EngineKey(library="tensorrt_rtx", version="1.7.1", compute_capability="8.9", limits=LIMITS)
ENGINE = b"not for TensorRT's eyes"


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """An exported decoder."""
    export_decoder(write_checkpoint(tmp_path / "source"), tmp_path / "model", target="tensorrt")
    return tmp_path / "model"


def add(model_dir: Path, engine: bytes = ENGINE, **changes: Any) -> EngineRecord:
    """Put an engine beside the model."""
    with open_folder(model_dir / FOLDER, read_decoder(model_dir)) as engines:
        return engines.add(KEY.model_copy(update=changes), engine)


def find(model_dir: Path, **changes: Any) -> FoundEngine:
    """Look for the engine of `KEY`."""
    wanted: dict[str, Any] = {
        "library": KEY.library,
        "version": KEY.version,
        "compute_capability": KEY.compute_capability,
        "max_model_len": LIMITS.max_model_len,
        "max_num_seqs": LIMITS.max_num_seqs,
        **changes,
    }
    return find_engine(model_dir, **wanted)


def files(model_dir: Path) -> set[str]:
    """What lies beside the manifest."""
    return {path.name for path in (model_dir / FOLDER).iterdir()} - {MANIFEST, ".lock"}


def test_an_engine_comes_back_with_what_was_said_of_it(model_dir: Path) -> None:
    """The manifest makes the round trip, and describes the model."""
    record = add(model_dir)

    found = find(model_dir)

    assert found.read() == ENGINE
    assert found.record == record
    assert (record.key, record.num_bytes) == (KEY, len(ENGINE))
    assert found.manifest == read_manifest(model_dir / FOLDER)
    assert found.manifest.decoder == read_decoder(model_dir).io
    assert found.manifest.precision == "fp32"


def test_engines_of_several_gpus_share_a_folder(model_dir: Path) -> None:
    """Each is found by its own."""
    add(model_dir, b"first")
    add(model_dir, b"second", compute_capability="12.0")

    assert find(model_dir).read() == b"first"
    assert find(model_dir, compute_capability="12.0").read() == b"second"


def test_an_engine_from_before_candidates_is_outdated(model_dir: Path) -> None:
    """Its manifest is read, does not say how many it gives, and the command is named."""
    add(model_dir, recipe=1)
    path = model_dir / FOLDER / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["engines"][0]["key"]["limits"]["num_candidates"]
    path.write_text(json.dumps(manifest))

    with pytest.raises(EngineMissing, match="built by another version of provider-core; run: prov"):
        find(model_dir)


def test_smaller_needs_are_served_by_a_larger_engine(model_dir: Path) -> None:
    """Its limits are upper ones."""
    add(model_dir)

    assert find(model_dir, max_model_len=100, max_num_seqs=1).read() == ENGINE


def test_a_rebuilt_engine_takes_the_place_of_the_old_one(model_dir: Path) -> None:
    """A folder keeps none that the library has outdated."""
    add(model_dir, b"old", version="1.6.0")
    record = add(model_dir, b"new")

    assert files(model_dir) == {record.file}
    assert find(model_dir).read() == b"new"


def test_engines_of_several_limits_share_a_folder(model_dir: Path) -> None:
    """Each server finds its own, or the least that holds what it needs."""
    limits = [
        EngineLimits(max_model_len=length, max_num_seqs=seqs, max_prefill_tokens=64)
        for length, seqs in ((512, 8), (64, 16), (128, 4))
    ]
    for number, each in enumerate(limits):
        add(model_dir, b"%d" % number, limits=each)

    for length, seqs, number in ((512, 8, 0), (64, 16, 1), (128, 4, 2), (64, 2, 1), (100, 5, 0)):
        found = find(model_dir, max_model_len=length, max_num_seqs=seqs)
        assert found.read() == b"%d" % number
    add(model_dir, b"new", limits=limits[2])
    assert find(model_dir, max_model_len=128, max_num_seqs=4).read() == b"new"
    assert len(files(model_dir)) == 3


def test_a_trusted_engine_goes_before_a_smaller_one(model_dir: Path) -> None:
    """Whoever put that one there does not stop the start."""
    record = add(model_dir)
    small = EngineLimits(max_model_len=64, max_num_seqs=1, max_prefill_tokens=64)
    add(model_dir, b"of somebody else", limits=small)

    found = find(model_dir, max_model_len=64, max_num_seqs=1, trusted={record.sha256})

    assert found.record == record


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"compute_capability": "12.0"}, "one is of .* 8.9, and this GPU has 12.0"),
        ({"library": "tensorrt"}, "one is of tensorrt_rtx .*, and tensorrt is installed"),
        ({"version": "1.8.0"}, "one is of tensorrt_rtx 1.7.1, .* and outdated by 1.8.0"),
        ({"max_model_len": 1024}, "one is for 512 positions, and 1024 are asked for"),
        ({"max_num_seqs": 9}, "one is for 8 sequences, and 9 are asked for"),
    ],
)
def test_a_foreign_engine_is_refused(
    model_dir: Path, changes: dict[str, Any], complaint: str
) -> None:
    """With the reason, and the command that builds what is needed."""
    add(model_dir)

    with pytest.raises(ConfigurationError, match=complaint) as caught:
        find(model_dir, **changes)

    command = caught.value.message.partition("run: ")[2]
    assert command.startswith(f"provider build-engine {model_dir} --compute-capability ")
    for option, name in (("--max-model-len", "max_model_len"), ("--max-num-seqs", "max_num_seqs")):
        number = changes.get(name, getattr(LIMITS, name))
        assert f"{option} {number}" in command


def test_a_folder_without_engines_names_the_command(model_dir: Path) -> None:
    """Nothing is built while serving."""
    with pytest.raises(ConfigurationError, match="holds no engines; run: provider build-engine"):
        find(model_dir)


@pytest.mark.parametrize("damaged", [b"", ENGINE[:-1], b"X" + ENGINE[1:]])
def test_a_changed_engine_is_never_opened(model_dir: Path, damaged: bytes) -> None:
    """Its digest is compared before anybody reads it as an engine."""
    record = add(model_dir)
    (model_dir / FOLDER / record.file).write_bytes(damaged)

    with pytest.raises(ConfigurationError, match="is not the engine that was built"):
        find(model_dir).read()


def test_a_missing_file_is_said(model_dir: Path) -> None:
    """Half a copy of a folder."""
    record = add(model_dir)
    (model_dir / FOLDER / record.file).unlink()

    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        find(model_dir).read()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:40],
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: text.replace(".engine", ".engine/../../x"),
        lambda text: text.replace('"file": "', '"file": "/etc/'),
    ],
)
def test_a_damaged_manifest_is_refused(model_dir: Path, change: Any) -> None:
    """Cut off, of another format, or leading out of its folder."""
    add(model_dir)
    path = model_dir / FOLDER / MANIFEST
    path.write_text(change(path.read_text()))

    with pytest.raises(ConfigurationError, match="is damaged or of another version; run: provider"):
        find(model_dir)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/shadow", "/dev/zero", ".", "", "a//b", "a/../b", "a\0b"]
)
def test_a_manifest_that_names_other_files_than_the_models_is_refused(
    model_dir: Path, name: str
) -> None:
    """Whoever can write it would have the server read, or look for, files anywhere."""
    add(model_dir)
    path = model_dir / FOLDER / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["model"][0]["name"] = name
    path.write_text(json.dumps(manifest))

    with pytest.raises(EngineMissing, match="is damaged or of another version; run: provider"):
        find(model_dir)


def test_a_file_that_cannot_be_looked_at_is_another_one(model_dir: Path) -> None:
    """Its name is too long for the system, say."""
    add(model_dir)
    path = model_dir / FOLDER / MANIFEST
    path.write_text(path.read_text().replace("model.onnx", 5000 * "x"))

    with pytest.raises(EngineMissing, match=r"were built of another x+; run: provider"):
        find(model_dir)


def test_a_pipe_is_no_engine(model_dir: Path) -> None:
    """Reading one would wait for a writer for ever, and so would reading it as the manifest."""
    record = add(model_dir)
    for name, complaint in (
        (record.file, "cannot be read: not a plain file; run: provider"),
        (MANIFEST, "is damaged or of another version; run: provider"),
    ):
        path = model_dir / FOLDER / name
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(EngineMissing, match=complaint):
            find(model_dir).read()
        with open_folder(model_dir / FOLDER, read_decoder(model_dir)) as engines:
            assert engines.find(KEY) is None


def test_a_changed_model_outdates_its_engines(model_dir: Path) -> None:
    """They hold the weights of the old one; its size says nothing."""
    add(model_dir)
    path = model_dir / "model.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"were built of another model\.onnx; run: "):
        find(model_dir)


def test_so_do_changed_weights_in_a_folder_below(model_dir: Path) -> None:
    """Files that hold weights are compared where they lie."""
    path = model_dir / "model.onnx"
    (model_dir / "weights").mkdir()
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights/all.data")
    add(model_dir)
    weights = model_dir / "weights" / "all.data"
    weights.write_bytes(bytes(weights.stat().st_size))

    with pytest.raises(EngineMissing, match=r"were built of another weights/all\.data; run: "):
        find(model_dir)


def test_a_copied_model_is_the_same(model_dir: Path, tmp_path: Path) -> None:
    """Another time alone proves nothing: the content is compared."""
    add(model_dir)
    path = model_dir / "model.onnx"
    path.write_bytes(path.read_bytes())

    assert find(model_dir).read() == ENGINE


def test_engines_are_used_without_the_model(model_dir: Path) -> None:
    """An image for serving need not hold the weights twice."""
    add(model_dir)
    (model_dir / "model.onnx").unlink()

    assert find(model_dir).read() == ENGINE


def test_an_operator_can_name_the_engines_to_trust(model_dir: Path) -> None:
    """For folders that others can write."""
    record = add(model_dir)

    assert find(model_dir, trusted={record.sha256}).read() == ENGINE
    with pytest.raises(ConfigurationError, match="is not among the trusted engines"):
        find(model_dir, trusted={"0" * 64})


def test_a_changed_model_drops_engines_when_it_is_built_again(
    model_dir: Path, tmp_path: Path
) -> None:
    """Those of the old one are of no use beside those of the new one."""
    add(model_dir, compute_capability="12.0")
    other = write_checkpoint(tmp_path / "other", "llama")
    export_decoder(other, model_dir, target="tensorrt")

    record = add(model_dir)

    assert files(model_dir) == {record.file}
    manifest = json.loads((model_dir / FOLDER / MANIFEST).read_text())
    assert [engine["file"] for engine in manifest["engines"]] == [record.file]


def test_what_a_killed_build_left_is_swept(model_dir: Path) -> None:
    """Halves, and engines that no manifest came to name; what others put there stays."""
    record = add(model_dir)
    other = record.file.replace(record.sha256[:12], 12 * "0")
    for name in (f"{record.file}.partial", other, "mine.engine"):
        (model_dir / FOLDER / name).write_bytes(b"?")

    with open_folder(model_dir / FOLDER, read_decoder(model_dir)) as engines:
        kept = engines.find(KEY)
        engines.add(KEY.model_copy(update={"compute_capability": "12.0"}), b"other")

    assert kept == record
    assert len(files(model_dir) - {"mine.engine"}) == 2
    assert (model_dir / FOLDER / "mine.engine").is_file()


def test_a_folder_of_its_own_is_not_taken_from_another_model(
    model_dir: Path, tmp_path: Path
) -> None:
    """Two models that were built into one place would delete each other's engines."""
    out = tmp_path / "out"
    with open_folder(out, read_decoder(model_dir)) as engines:
        engines.add(KEY, ENGINE)
    other = write_checkpoint(tmp_path / "other", "llama")
    export_decoder(other, other, target="tensorrt")

    with (
        pytest.raises(ConfigurationError, match="holds engines of another model"),
        open_folder(out, read_decoder(other)),
    ):
        pass

    assert find(model_dir, folder=out).read() == ENGINE


def test_a_full_disk_leaves_nothing(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the half that fitted; the engines from before are there."""
    record = add(model_dir)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        add(model_dir, b"other", compute_capability="12.0")

    assert files(model_dir) == {record.file}
    assert find(model_dir).read() == ENGINE


def test_a_damaged_engine_is_not_taken_for_finished(model_dir: Path) -> None:
    """A second run of the command builds it again."""
    record = add(model_dir)
    (model_dir / FOLDER / record.file).write_bytes(b"?")

    with open_folder(model_dir / FOLDER, read_decoder(model_dir)) as engines:
        assert engines.find(KEY) is None
