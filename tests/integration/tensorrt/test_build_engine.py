"""Engines built by TensorRT's own parser and builder, without a GPU."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import onnx
import pytest
import typer
from typer.testing import CliRunner

from provider_core import ConfigurationError
from provider_export.export import Activations, export_decoder
from provider_starter import MODEL_DIR
from provider_tensorrt import builder as builder_module
from provider_tensorrt import register_commands
from provider_tensorrt.artefact import (
    FOLDER,
    MANIFEST,
    EngineKey,
    EngineLimits,
    find_engine,
    read_manifest,
)
from provider_tensorrt.builder import Cancelled, build_engine, check_capability
from provider_tensorrt.building import build_engines
from provider_tensorrt.decoder_graph import read_decoder
from provider_tensorrt.engine_folder import open_folder
from provider_tensorrt.library import TensorRt
from tests.tiny_checkpoints import FAMILIES, write_checkpoint

ROOT = Path(__file__).parents[3]
WEIGHTS_DIR = ROOT / "plugins/provider_starter/recipe"
LIMITS = EngineLimits(max_model_len=128, max_num_seqs=4, max_prefill_tokens=32)
KILLED_AT = range(1, 10)  # points of `EngineFolder.add`, and one behind the last


def provider(*arguments: str) -> tuple[int, str]:
    """Run the plugin's commands; exit code and output."""
    app = typer.Typer()
    app.callback()(lambda: None)
    register_commands(app)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def test_the_command_builds_for_each_gpu_and_keeps_what_is_there(
    tiny_model: Path, library: TensorRt
) -> None:
    """A second run adds what is missing and builds nothing again."""
    arguments = ("build-engine", str(tiny_model), "--max-num-seqs", "4", "--compute-capability")

    code, first = provider(*arguments, "8.9")
    assert code == 0, first
    code, second = provider(*arguments, "8.9", "--compute-capability", "12.0")
    assert code == 0, second

    kept, built = (line for line in second.splitlines() if ".engine: " in line)
    assert "compute capability 8.9" in kept
    assert "was there" in kept
    assert "compute capability 12.0" in built
    assert "was there" not in built
    for capability in ("8.9", "12.0"):
        found = find_engine(
            tiny_model,
            library=library.name,
            version=library.version,
            compute_capability=capability,
            max_model_len=128,
            max_num_seqs=4,
        )
        assert len(found.read()) == found.record.num_bytes
        assert found.record.sha256 in second


def test_progress_is_printed_where_there_is_no_terminal(tiny_model: Path) -> None:
    """A log of a deployment shows that something happens."""
    code, output = provider("build-engine", str(tiny_model), "--compute-capability", "8.9")

    assert code == 0
    assert "building for 8.9: 100%" in output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--compute-capability", "9.9"), "builds for compute capabilities"),
        (("--max-model-len", "4096", "--compute-capability", "8.9"), "made for 128 positions"),
        ((), "there is no GPU here whose engine could be built"),
        (("--library", "tensorrt", "--compute-capability", "8.9"), "tensorrt"),
    ],
)
def test_what_cannot_be_built_is_said(
    tiny_model: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    """Before anything is written."""
    code, output = provider("build-engine", str(tiny_model), *arguments)

    assert code == 2
    assert complaint in " ".join(output.replace("│", " ").split())
    assert not (tiny_model / FOLDER / MANIFEST).exists()


def test_the_parsers_complaint_names_the_node(tiny_model: Path, library: TensorRt) -> None:
    """And what TensorRT has against it."""
    path = tiny_model / "model.onnx"
    model = onnx.load(path)
    attention = next(node for node in model.graph.node if node.op_type == "Attention")
    attention.attribute.append(onnx.helper.make_attribute("softcap", 5.0))
    onnx.save(model, path)

    with pytest.raises(ConfigurationError, match="refuses") as caught:
        build_engine(library, read_decoder(tiny_model), LIMITS, "8.9")

    assert f"node {attention.name!r} (Attention)" in caught.value.message
    assert "softcap" in caught.value.message


def test_progress_grows_to_the_end(tiny_model: Path, library: TensorRt) -> None:
    """Over all engines together."""
    seen: list[tuple[str, float]] = []

    build_engines(
        tiny_model,
        library,
        compute_capabilities=["8.9", "12.0"],
        max_num_seqs=4,
        max_prefill_tokens=32,
        on_progress=lambda capability, part: seen.append((capability, part)),
    )

    parts = [part for _, part in seen]
    assert parts == sorted(parts)
    assert ("8.9", 0.5) in seen
    assert seen[-1] == ("12.0", 1.0)


def test_a_build_that_is_stopped_leaves_nothing(tiny_model: Path, library: TensorRt) -> None:
    """It stops within the engine that is being built."""
    cancelled = threading.Event()

    with pytest.raises(Cancelled):
        build_engines(
            tiny_model,
            library,
            compute_capabilities=["8.9"],
            max_num_seqs=4,
            max_prefill_tokens=32,
            on_progress=lambda _capability, _part: cancelled.set(),
            cancelled=cancelled,
        )

    assert read_manifest(tiny_model / FOLDER) is None
    assert list((tiny_model / FOLDER).glob("*.engine*")) == []


def test_an_interrupted_command_stops_the_build(tiny_model: Path) -> None:
    """And says what is kept; the exit code is the one of SIGINT."""
    code = """
import sys
from provider_tensorrt import building
from provider_tensorrt.builder import Cancelled
from provider_tensorrt.commands import build_engine
from pathlib import Path

def wait(*arguments, cancelled, **options):
    print("building", flush=True)
    assert cancelled.wait(30)
    raise Cancelled

building.build_engine = wait
import typer
app = typer.Typer()
app.command()(build_engine)
app()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tiny_model), "--compute-capability", "8.9"],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=50)
    assert process.returncode == 130
    assert errors == "stopped; engines that were finished are kept\n"


@pytest.mark.parametrize(("here", "complaint"), [(None, "there is none"), ("9.0", "here has 9.0")])
def test_the_data_centre_library_builds_for_its_own_gpu(
    here: str | None, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It measures kernels there."""
    monkeypatch.setattr(builder_module, "find_capability", lambda: here)
    library = TensorRt("tensorrt", "11.4", None)

    with pytest.raises(ConfigurationError, match=complaint):
        check_capability(library, "8.9")
    monkeypatch.setattr(builder_module, "find_capability", lambda: "8.9")
    check_capability(library, "8.9")


def test_the_built_in_model_builds(tmp_path: Path, library: TensorRt) -> None:
    """From the weights that it was exported from."""
    export_decoder(MODEL_DIR, tmp_path, target="tensorrt", precision="int8", weights=WEIGHTS_DIR)

    (built,) = build_engines(
        tmp_path,
        library,
        compute_capabilities=["8.9"],
        max_num_seqs=8,
        max_prefill_tokens=256,
    )

    assert built.record.num_bytes > 5_000_000  # as many weights
    assert built.path.stat().st_size == built.record.num_bytes


@pytest.mark.parametrize("point", KILLED_AT)
def test_a_killed_build_leaves_whole_engines_only(tiny_model: Path, point: int) -> None:
    """Wherever it was: the engine from before is there, the new one is whole or not there."""
    key = EngineKey(library="tensorrt_rtx", version="1", compute_capability="8.9", limits=LIMITS)
    with open_folder(tiny_model / FOLDER, read_decoder(tiny_model)) as engines:
        engines.add(key, b"before")
    code = f"""
import os, signal, sys
from pathlib import Path
from provider_tensorrt.artefact import FOLDER, EngineKey
from provider_tensorrt.decoder_graph import read_decoder
from provider_tensorrt.engine_folder import open_folder

calls = 0

def killed_before(call):
    def run(*arguments, **options):
        global calls
        calls += 1
        if calls == {point}:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return run

model = Path(sys.argv[1])
key = EngineKey.model_validate_json(sys.argv[2])
with open_folder(model / FOLDER, read_decoder(model)) as engines:
    os.fsync = killed_before(os.fsync)
    Path.open = killed_before(Path.open)
    Path.replace = killed_before(Path.replace)
    engines.add(key, b"after")
"""
    other = key.model_copy(update={"compute_capability": "12.0"})
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tiny_model), other.model_dump_json()],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"},
        check=False,
        timeout=50,
    )
    assert ran.returncode == (0 if point == KILLED_AT[-1] else -signal.SIGKILL)

    def find(capability: str) -> bytes:
        return find_engine(
            tiny_model,
            library="tensorrt_rtx",
            version="1",
            compute_capability=capability,
            max_model_len=128,
            max_num_seqs=4,
        ).read()

    assert find("8.9") == b"before"
    named = json.loads((tiny_model / FOLDER / MANIFEST).read_text())["engines"]
    if len(named) == 2:
        assert find("12.0") == b"after"
    else:
        with pytest.raises(ConfigurationError, match="run: provider build-engine"):
            find("12.0")
    with open_folder(tiny_model / FOLDER, read_decoder(tiny_model)) as engines:
        engines.add(other, b"again")
    assert find("12.0") == b"again"
    assert len(list((tiny_model / FOLDER).glob("*.engine*"))) == 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("capability", "floats"), [("8.9", "fp32"), ("12.0", "bf16")])
def test_every_family_builds(
    family: str, capability: str, floats: Activations, tmp_path: Path, library: TensorRt
) -> None:
    """Two or three layers, for Ada and for Blackwell."""
    source = write_checkpoint(tmp_path / "source", family, max_position_embeddings=128)
    out = tmp_path / "model"
    export_decoder(source, out, target="tensorrt", precision=floats, activations=floats)

    engine, times = build_engine(library, read_decoder(out), LIMITS, capability)

    assert engine.nbytes > 1000
    assert times == b""  # this library has no timing cache
