"""What the runner does on any device, and which folders it takes; run on the host device."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from structlog.testing import capture_logs

from provider_core import ConfigurationError, ModelRunner, ModelSpec
from provider_core.testing import decode_batch, prefill_batch
from provider_export.export import export_decoder
from provider_tensorrt import artefact, load_model, loading
from provider_tensorrt.artefact import EngineLimits
from provider_tensorrt.decoder_graph import read_decoder
from provider_tensorrt.device import MemoryInfo
from provider_tensorrt.host_device import HostDevice
from provider_tensorrt.kv_slots import KvSlots
from provider_tensorrt.memory_plan import slot_bytes
from provider_tensorrt.runner import TensorRtRunner
from tests.generation import generate_greedily, prefill
from tests.tiny_checkpoints import write_checkpoint

SPEC = ModelSpec(
    id="tiny",
    source="",
    backend="tensorrt",
    max_num_seqs=4,
    max_model_len=128,
    options={"device": "host", "memory_reserve_mib": 0},
)
LIMITS = EngineLimits(max_model_len=128, max_num_seqs=8, max_prefill_tokens=16)
TOKEN_OF_NAN = 77
KEPT = "num_logits_to_keep"
PROMPT = [3, 14, 15, 92, 65, 35, 89, 79]


@pytest.fixture
def device(folder: Path) -> Iterator[HostDevice]:
    """It on the CPU."""
    device = HostDevice(read_decoder(folder), LIMITS)
    yield device
    device.close()


def make_runner(device: HostDevice, folder: Path) -> TensorRtRunner:
    """A runner over a device."""
    io = read_decoder(folder).io
    return TensorRtRunner(device, io, LIMITS, max_num_seqs=4, max_model_len=128)


def test_prompts_longer_than_the_engine_takes_at_once_are_cut(
    device: HostDevice, folder: Path
) -> None:
    """One prefill of 100 tokens is seven of at most 16, with the same logits at every position."""
    prompt = np.random.default_rng(3).integers(0, 96, 100).tolist()
    runner = make_runner(device, folder)
    whole = load_model(SPEC, folder, print)
    assert isinstance(whole, ModelRunner)
    for num_logits in (0, 1, 40, 100):
        batch = prefill_batch(1, prompt, num_logits=num_logits)
        expected = whole.execute_model(batch).copy()
        np.testing.assert_allclose(runner.execute_model(batch), expected, atol=1e-5)
    whole.close()


def test_slots_are_fewer_where_memory_is_short(
    device: HostDevice, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as fit, and a line that says so."""
    io = read_decoder(folder).io
    room = 2 * slot_bytes(io.caches, io.cache_dtype, LIMITS.max_model_len) + 2**16
    monkeypatch.setattr(device, "memory_info", lambda: MemoryInfo(room, 2**30))
    with capture_logs() as logs:
        runner = make_runner(device, folder)
    assert runner.info.max_num_seqs == 2
    [line] = [line for line in logs if line["event"] == "slots.reduced"]
    assert (line["wanted"], line["slots"]) == (4, 2)


def test_a_device_without_room_refuses(
    device: HostDevice, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is allocated."""
    monkeypatch.setattr(device, "memory_info", lambda: MemoryInfo(2**12, 2**30))
    with pytest.raises(ConfigurationError, match="no slot fits"):
        make_runner(device, folder)


def test_close_gives_all_memory_back(
    device: HostDevice, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every array that was allocated is let go of, at once, and again is no error."""
    runner = make_runner(device, folder)
    generate_greedily(runner, [PROMPT], 4)
    assert device._arrays
    runner.close()
    runner.close()
    assert not device._arrays


def test_a_decode_is_bound_once_for_each_shape(device: HostDevice, folder: Path) -> None:
    """Rows are rounded up and windows are powers of two, so that steps find theirs again."""
    runner = make_runner(device, folder)
    runner.warm_up()
    generate_greedily(runner, [PROMPT, PROMPT, PROMPT], 70)
    assert set(runner._decodes) == {(1, 64), (4, 64), (4, 128)}


def test_shapes_that_were_not_used_for_long_are_let_go(
    device: HostDevice, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest unused first; coming back they are bound anew."""
    monkeypatch.setattr("provider_tensorrt.runner.MAX_DECODES", 2)
    runner = make_runner(device, folder)
    expected = generate_greedily(runner, [PROMPT, PROMPT, PROMPT, PROMPT], 6)
    for num_rows in (1, 2, 4, 1):
        assert generate_greedily(runner, [PROMPT] * num_rows, 6) == expected[:num_rows]
    assert set(runner._decodes) == {(4, 64), (1, 64)}


def test_padding_is_written_behind_what_a_slot_holds(device: HostDevice, folder: Path) -> None:
    """And on the last position of one that is full, where nobody goes on."""
    io = read_decoder(folder).io
    slots = KvSlots(device, io.caches, io.cache_dtype, 4, 128)
    slots.ends.note(1, [5, 128])
    assert slots.ends.free_positions(0, 4).tolist() == [0, 5, 127, 0]
    slots.move(1, 3, 4)
    slots.clear(1)
    assert slots.ends.free_positions(0, 4).tolist() == [0, 0, 127, 4]


def test_padding_leaves_loaded_blocks_alone(folder: Path) -> None:
    """Three rows decode as four, after the blocks of a prompt and before the rest of it."""
    prompt = np.random.default_rng(3).integers(0, 96, 70).tolist()
    rest = prefill_batch(3, prompt[64:], num_computed_tokens=64)
    runner = load_model(replace(SPEC, prefix_cache_mib=4), folder, print)
    assert isinstance(runner, TensorRtRunner)
    prefill(runner, 3, prompt[:64])
    runner.save_blocks(3, 0, [0, 1])
    expected = runner.execute_model(rest).copy()
    for slot in range(4):
        prefill(runner, slot, PROMPT)

    runner.load_blocks(3, [0, 1])
    runner.execute_model(decode_batch([1, 2, 3], [8, 8, 8]))

    np.testing.assert_array_equal(runner.execute_model(rest), expected)
    runner.close()


def test_a_text_that_came_to_nan_does_not_reach_the_next_in_its_slot(tmp_path: Path) -> None:
    """It failed alone: after it, shorter texts in the same slots are what they were."""
    write_checkpoint(tmp_path)
    export_decoder(tmp_path, tmp_path, target="tensorrt")
    poison(tmp_path / "model.onnx")
    runner = load_model(SPEC, tmp_path, print)
    assert isinstance(runner, ModelRunner)
    expected = generate_greedily(runner, [PROMPT, PROMPT[::-1]], 10)
    for slot in range(2):
        batch = prefill_batch(slot, [*range(30), TOKEN_OF_NAN, *range(10)])
        assert np.isnan(runner.execute_model(batch)).all()
    assert generate_greedily(runner, [PROMPT, PROMPT[::-1]], 10) == expected
    prefill(runner, 0, PROMPT)
    prefill(runner, 1, PROMPT)
    logits = runner.execute_model(decode_batch([1, TOKEN_OF_NAN], [8, 8]))
    assert np.isnan(logits).all(axis=1).tolist() == [False, True]
    assert generate_greedily(runner, [PROMPT, PROMPT[::-1]], 10) == expected
    begun = [*range(30), TOKEN_OF_NAN, *range(10)]  # and left before it had any logits
    runner.execute_model(prefill_batch(2, begun, num_logits=0))
    runner.move_slot(2, 0, len(begun))
    runner.execute_model(prefill_batch(1, begun, num_logits=0))
    assert generate_greedily(runner, [PROMPT, PROMPT[::-1]], 10) == expected
    runner.execute_model(prefill_batch(0, begun, num_logits=0))
    prefill(runner, 1, PROMPT)
    runner.move_slot(1, 0, len(PROMPT))
    assert np.isfinite(runner.execute_model(decode_batch([1], [8]))[0, 0])
    runner.close()


def poison(model_file: Path) -> None:
    """Make one id's vector NaN."""
    model = onnx.load(str(model_file))
    [table] = [w for w in model.graph.initializer if w.name == "model.embed_tokens.weight"]
    values = numpy_helper.to_array(table).copy()
    values[TOKEN_OF_NAN] = np.nan
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    onnx.save(model, str(model_file))


def test_the_backend_has_to_be_named(folder: Path, tmp_path: Path) -> None:
    """Engines beside a model are code of whoever put them there: no reason to open them."""
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / artefact.FOLDER).mkdir()
    for backend in (None, "onnxruntime"):
        assert load_model(replace(SPEC, backend=backend), tmp_path / "model", print) is None


def test_without_a_gpu_it_says_what_to_do(folder: Path) -> None:
    """CUDA is the default, and never falls back."""
    with pytest.raises(ConfigurationError, match="no GPU 0 or no driver"):
        load_model(replace(SPEC, options={}), folder, print)


def test_a_precision_that_the_weights_are_not_in_is_refused(folder: Path) -> None:
    """Nothing is derived here."""
    with pytest.raises(ConfigurationError, match="int4 is asked for and the weights are fp32"):
        load_model(replace(SPEC, precision="int4"), folder, print)


@pytest.mark.parametrize(("activations", "margin"), [("fp32", 0.02), ("fp16", None)])
def test_drafts_are_tried_where_rounding_is_known(
    tmp_path: Path, activations: Literal["fp32", "fp16"], margin: float | None
) -> None:
    """In float32 only; and half precision is served like any other."""
    write_checkpoint(tmp_path)
    export_decoder(tmp_path, tmp_path, target="tensorrt", activations=activations)
    runner = load_model(SPEC, tmp_path, print)
    assert runner is not None
    assert runner.info.verify_margin == margin
    [ids] = generate_greedily(runner, [PROMPT], 8)
    assert len(ids) == 8
    runner.close()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("no num_logits_to_keep", "makes logits of every position"),
        ("float64 caches", "'past_key_values.0.key' is float64, not bfloat16 or float16"),
    ],
)
def test_decoders_that_cannot_be_run_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: str, complaint: str
) -> None:
    """Before the device is asked."""
    decoder = read_decoder(folder)
    io = replace(decoder.io, cache_dtype="float64")
    if change == "no num_logits_to_keep":
        inputs = {role: spec for role, spec in decoder.io.inputs.items() if role != KEPT}
        io = replace(decoder.io, inputs=inputs)
    monkeypatch.setattr(loading, "read_decoder", lambda _folder: replace(decoder, io=io))
    with pytest.raises(ConfigurationError, match=complaint):
        load_model(SPEC, folder, print)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"device": "tpu"}, "tensorrt option device"),
        ({"devise": "host"}, "'devise' is not one of device"),
    ],
)
def test_options_that_are_wrong_are_named(
    folder: Path, options: dict[str, object], complaint: str
) -> None:
    """As the file spells them."""
    with pytest.raises(ConfigurationError, match=complaint):
        load_model(replace(SPEC, options=options), folder, print)


def test_a_variable_that_does_not_exist_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip in a name is no silent default."""
    monkeypatch.setenv("PROVIDER_TENSORRT_DEVISE", "host")
    with pytest.raises(ConfigurationError, match="PROVIDER_TENSORRT_DEVISE is no variable"):
        load_model(SPEC, folder, print)


def test_it_says_that_it_runs_on_the_cpu(folder: Path) -> None:
    """Whoever reads /v1/models or a usage line is not told of a GPU."""
    runner = load_model(SPEC, folder, print)
    assert runner is not None
    assert runner.info.device == "cpu"
    assert runner.info.backend_version.startswith("onnxruntime ")
    runner.close()
