"""Candidates from the runner on the host device: what crosses the bus, and what does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from provider_core import Batch, Candidates, SamplingParams
from provider_core.engine import LLMEngine
from provider_core.testing import decode_batch, prefill_batch, submit, succeeded
from provider_export.export import export_decoder
from provider_tensorrt.artefact import EngineLimits
from provider_tensorrt.decoder_graph import read_decoder
from provider_tensorrt.device import DeviceArray
from provider_tensorrt.host_device import HostDevice
from provider_tensorrt.loading import HOST_VERIFY_MARGIN
from provider_tensorrt.memory_plan import MemoryPlan
from provider_tensorrt.runner import TensorRtRunner
from tests.integration.tensorrt.test_runner import TOKEN_OF_NAN, poison
from tests.tiny_checkpoints import write_checkpoint
from tests.unit.engine.scripted_grammar import ScriptedGrammar

VOCAB_SIZE, K = 96, 8
LIMITS = EngineLimits(max_model_len=128, max_num_seqs=8, max_prefill_tokens=16, num_candidates=K)
ROW_BYTES = 4 * VOCAB_SIZE
PROMPT = [3, 14, 15, 92, 65, 35, 89, 79]
ONES = np.ones(8, np.float32)


class CountingDevice(HostDevice):
    """Counts the bytes that come to the host, and those that go to the device."""

    num_downloaded = num_uploaded = 0

    def download(self, target: npt.NDArray[Any], source: DeviceArray) -> None:
        """Copy and count."""
        self.num_downloaded += target.nbytes
        super().download(target, source)

    def upload(self, target: DeviceArray, source: npt.NDArray[Any]) -> None:
        """Copy and count."""
        self.num_uploaded += source.nbytes
        super().upload(target, source)


@pytest.fixture
def device(folder: Path) -> Iterator[CountingDevice]:
    """It on the CPU."""
    device = CountingDevice(read_decoder(folder), LIMITS)
    yield device
    device.close()


def make_runner(device: HostDevice, folder: Path, **options: Any) -> TensorRtRunner:
    """A runner over a device."""
    io = read_decoder(folder).io
    return TensorRtRunner(device, io, LIMITS, max_num_seqs=8, max_model_len=128, **options)


def choose(runner: TensorRtRunner, batch: Batch, *forbidding: int) -> Candidates:
    """Candidates of a batch; the rows named may have the ids from 64 on only."""
    bitmask = np.array([0, 0, -1], np.int32)
    bitmasks = dict.fromkeys(forbidding, bitmask)
    return runner.execute_candidates(batch, ONES[: len(batch.slots)], bitmasks)


def test_a_step_brings_candidates_and_no_logits(device: CountingDevice, folder: Path) -> None:
    """A few bytes for each row; a row that is fetched is one row more."""
    runner = make_runner(device, folder)
    for slot in range(3):
        choose(runner, prefill_batch(slot, PROMPT))
    device.num_downloaded = 0

    choose(runner, decode_batch([1, 2, 3], [8, 8, 8]))

    assert device.num_downloaded == 4 * 256  # ids, logits and two sums of four rows, aligned
    runner.fetch_logits([1])
    assert device.num_downloaded == 4 * 256 + ROW_BYTES
    runner.fetch_logits([0, 2])
    assert device.num_downloaded == 4 * 256 + 3 * ROW_BYTES


def test_masks_are_sent_for_rows_with_a_grammar_only(device: CountingDevice, folder: Path) -> None:
    """The others are allowed all ids, and that is sent when it was otherwise."""
    runner = make_runner(device, folder)
    decode = decode_batch([1, 2, 3], [8, 8, 8])
    for slot in range(3):
        choose(runner, prefill_batch(slot, PROMPT))
    sizes = []
    for rows in ((), (1,), (1,), (), ()):
        device.num_uploaded = 0
        found = choose(runner, decode, *rows)
        sizes.append(device.num_uploaded)
        assert (found.token_ids.min(axis=1) >= 64).tolist() == [False, 1 in rows, False]
    mask_bytes = VOCAB_SIZE // 8
    assert np.diff([sizes[0], *sizes]).tolist() == [0, 2 * mask_bytes, 0, 0, -2 * mask_bytes]


def test_a_prompt_in_pieces_has_the_candidates_of_its_end(
    device: CountingDevice, folder: Path
) -> None:
    """One of 100 tokens is seven of at most 16; no logits of any come."""
    runner = make_runner(device, folder)
    prompt = np.random.default_rng(3).integers(0, VOCAB_SIZE, 100).tolist()
    [logits] = runner.execute_model(prefill_batch(1, prompt)).copy()
    device.num_downloaded = 0

    found = choose(runner, prefill_batch(0, prompt))

    assert device.num_downloaded == 4 * 256
    np.testing.assert_allclose(found.logits[0], -np.sort(-logits)[:K], atol=1e-5)
    assert found.token_ids[0, 0] == logits.argmax()


def test_what_a_step_needs_is_planned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is allocated beside slots: logits, candidates, masks, and inputs."""
    plans: list[MemoryPlan] = []

    def plan(**numbers: Any) -> MemoryPlan:
        plans.append(MemoryPlan(**numbers))
        return plans[-1]

    monkeypatch.setattr("provider_tensorrt.runner.MemoryPlan", plan)
    device = HostDevice(read_decoder(folder), LIMITS)
    runner = make_runner(device, folder)

    slots_bytes = plans[0].slot_bytes * runner.info.max_num_seqs
    assert sum(array.nbytes for array in device._arrays) - slots_bytes == plans[0].step_bytes
    runner.close()


def test_nan_is_seen_by_the_sum(tmp_path: Path) -> None:
    """And cleared, so that the next text in the slot is what it was."""
    write_checkpoint(tmp_path, tie_word_embeddings=False)
    export_decoder(tmp_path, tmp_path, target="tensorrt")
    poison(tmp_path / "model.onnx")
    runner = make_runner(HostDevice(read_decoder(tmp_path), LIMITS), tmp_path)
    expected = choose(runner, prefill_batch(0, PROMPT)).logits.copy()
    ill = [*range(30), TOKEN_OF_NAN, *range(10)]

    assert np.isnan(choose(runner, prefill_batch(0, ill)).log_sum_exps).all()

    np.testing.assert_array_equal(choose(runner, prefill_batch(0, PROMPT)).logits, expected)
    choose(runner, prefill_batch(1, PROMPT))
    found = choose(runner, decode_batch([1, TOKEN_OF_NAN], [8, 8]))
    assert np.isnan(found.log_sum_exps).tolist() == [False, True]
    np.testing.assert_array_equal(choose(runner, prefill_batch(1, PROMPT)).logits, expected)
    runner.close()


TRAFFIC: dict[str, SamplingParams] = {
    "greedy": SamplingParams(max_tokens=24, temperature=0.0, logprobs=2),
    "top_k": SamplingParams(max_tokens=24, temperature=0.5, top_k=5, seed=1),
    "nucleus": SamplingParams(max_tokens=24, temperature=0.2, top_p=0.9, seed=2),
    "plain": SamplingParams(max_tokens=24, seed=3),
    "penalty": SamplingParams(max_tokens=24, temperature=0.0, frequency_penalty=0.5),
    "grammar": SamplingParams(max_tokens=24, temperature=0.0),
    "sampled grammar": SamplingParams(max_tokens=24, seed=4),
}


async def write_all(runner: TensorRtRunner) -> dict[str, list[int]]:
    """The ids of all texts, written together."""
    runner.warm_up()
    engine = LLMEngine(runner, prefill_chunk_tokens=64)
    try:
        recorders = {
            name: submit(
                engine,
                name,
                [*PROMPT, i],
                params,
                grammar=ScriptedGrammar(*[range(1, 96, 4)] * 24) if "grammar" in name else None,
            )
            for i, (name, params) in enumerate(TRAFFIC.items())
        }
        return {name: succeeded(r, await r.result()) for name, r in recorders.items()}
    finally:
        await engine.close()


@pytest.mark.parametrize("margin", [None, HOST_VERIFY_MARGIN])
async def test_texts_are_those_of_whole_logits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, margin: float | None
) -> None:
    """With grammars, seeds and penalties side by side, with drafts and without."""
    texts = []
    for max_candidates in (0, K):
        runner = make_runner(
            CountingDevice(read_decoder(folder), LIMITS), folder, verify_margin=margin
        )
        if not max_candidates:
            monkeypatch.setattr(runner, "execute_candidates", None)
            monkeypatch.setattr("provider_core.engine.execution.CandidateRunner", Exception)
        texts.append(await write_all(runner))
        monkeypatch.undo()
    assert texts[0] == texts[1]


def overflow(model_file: Path, token_id: int) -> None:
    """Make one id's logit infinite wherever a text's first feature is positive."""
    model = onnx.load(str(model_file))
    [table] = [w for w in model.graph.initializer if w.name == "logits.weight"]
    values = numpy_helper.to_array(table).copy()
    values[:, token_id] = 0.0
    values[0, token_id] = np.finfo(np.float32).max
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    onnx.save(model, str(model_file))


async def write_without(runner: TensorRtRunner, token_id: int) -> dict[str, list[int]]:
    """Texts that may not have an id: by a grammar, sampled, and by `min_tokens`, greedy."""
    runner.warm_up()
    engine = LLMEngine(runner, prefill_chunk_tokens=64)
    others = [i for i in range(VOCAB_SIZE) if i != token_id]
    sampled = SamplingParams(max_tokens=12, temperature=0.5, top_k=4, seed=0)
    held_back = SamplingParams(max_tokens=12, temperature=0.0, min_tokens=12)
    try:
        recorders = {
            "grammar": submit(
                engine, "g", PROMPT, sampled, grammar=ScriptedGrammar(*[others] * 12)
            ),
            "min_tokens": submit(
                engine, "m", PROMPT, held_back, eos_token_ids=frozenset({token_id})
            ),
        }
        return {name: succeeded(r, await r.result()) for name, r in recorders.items()}
    finally:
        await engine.close()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("token_id", [0, 50])
async def test_an_infinite_logit_that_is_ruled_out_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token_id: int, *, whole: bool
) -> None:
    """The text keeps what it has in its slot, and goes on as if the logit were any number."""
    write_checkpoint(tmp_path, tie_word_embeddings=False)
    export_decoder(tmp_path, tmp_path, target="tensorrt")
    if whole:
        monkeypatch.setattr("provider_core.engine.execution.CandidateRunner", type("None", (), {}))
    texts = []
    for _ in range(2):
        runner = make_runner(HostDevice(read_decoder(tmp_path), LIMITS), tmp_path)
        texts.append(await write_without(runner, token_id))
        overflow(tmp_path / "model.onnx", token_id)
    assert texts[0] == texts[1]
