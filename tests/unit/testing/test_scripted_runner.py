"""The runner that other tests stand on."""

import numpy as np
import numpy.typing as npt
import pytest

from provider_core.errors import StepFailed
from provider_core.interfaces import Batch, ModelRunner
from provider_core.testing import ScriptedRunner, decode_batch, prefill_batch


def _likeliest(logits: npt.NDArray[np.float32]) -> list[int]:
    return [int(token_id) for token_id in logits.argmax(axis=1)]


def test_it_is_a_model_runner() -> None:
    """With facts, a warm-up and a close."""
    runner = ScriptedRunner(max_num_seqs=3, max_model_len=9, vocab_size=11)
    assert isinstance(runner, ModelRunner)
    info = runner.info
    assert (info.max_num_seqs, info.max_model_len, info.vocab_size) == (3, 9, 11)
    runner.warm_up()
    runner.close()
    assert (runner.is_warm, runner.is_closed) == (True, True)


def test_logits_depend_on_every_token_and_its_place() -> None:
    """One other token, or two exchanged, is another text."""
    runner = ScriptedRunner()
    rows = [
        runner.execute_model(prefill_batch(0, prompt))[0].tolist()
        for prompt in ([1, 2, 3, 4], [9, 2, 3, 4], [2, 1, 3, 4], [1, 2, 3], [1, 2, 3, 4])
    ]
    assert rows[0] == rows[4]
    assert all(rows[0] != other for other in rows[1:4])


def test_another_seed_is_another_model() -> None:
    """The same seed is the same one."""
    batch = prefill_batch(0, [1, 2])
    rows = [ScriptedRunner(seed=seed).execute_model(batch).tolist() for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]


def test_a_script_follows_its_prompt_only() -> None:
    """Fed back id by id; the prompt may be anywhere in a batch, and another prompt is free."""
    runner = ScriptedRunner(scripts={(1, 2): [7, 8, 9]})
    assert _likeliest(runner.execute_model(prefill_batch(1, [1, 2]))) == [7]
    runner.execute_model(prefill_batch(0, [2, 1]))
    assert _likeliest(runner.execute_model(decode_batch([5, 7], [2, 2])))[1] == 8
    assert _likeliest(runner.execute_model(decode_batch([5, 8], [3, 3])))[1] == 9


def test_a_wrong_position_loses_the_script() -> None:
    """It is no table of answers: what is stored decides."""
    runner = ScriptedRunner(scripts={(1, 2): [7, 8, 9]}, spread=0.0)
    runner.execute_model(prefill_batch(0, [1, 2]))
    assert _likeliest(runner.execute_model(decode_batch([7], [1]))) == [0]


def test_a_reply_follows_every_prompt_and_moves_along() -> None:
    """Also one that was computed in chunks."""
    runner = ScriptedRunner(reply=[7, 8, 9])
    assert _likeliest(runner.execute_model(prefill_batch(0, [3, 4]))) == [7]
    runner.execute_model(prefill_batch(2, [5, 1], num_logits=0))
    batch = prefill_batch(2, [6, 2], num_computed_tokens=2)
    assert _likeliest(runner.execute_model(batch)) == [7]
    runner.move_slot(2, 1, 4)
    assert _likeliest(runner.execute_model(decode_batch([7, 7], [2, 4]))) == [8, 8]


def test_it_refuses_a_chunk_of_one_token() -> None:
    """Of a longer prompt, in front as behind; a prompt of one token is whole."""
    runner = ScriptedRunner()
    with pytest.raises(ValueError, match="one token"):
        runner.execute_model(prefill_batch(0, [1], num_logits=0))
    with pytest.raises(ValueError, match="one token"):
        runner.execute_model(prefill_batch(0, [1], num_computed_tokens=3))
    assert len(runner.execute_model(prefill_batch(0, [1]))) == 1


def test_a_moved_slot_leaves_garbage_behind() -> None:
    """So that who goes on reading the source is found out."""
    runner = ScriptedRunner(scripts={(1, 2): [7, 8]}, spread=0.0)
    runner.execute_model(prefill_batch(0, [1, 2]))
    runner.move_slot(0, 1, 2)
    assert _likeliest(runner.execute_model(decode_batch([7, 7], [2, 2]))) == [0, 8]


def test_it_lasts_as_long_as_told() -> None:
    """Each call, and each token of a prefill."""
    slept: list[float] = []
    runner = ScriptedRunner(step_time_s=2.0, prefill_token_time_s=0.5, sleep=slept.append)
    runner.execute_model(prefill_batch(0, [1, 2, 3]))
    runner.execute_model(decode_batch([1], [3]))
    assert slept == [3.5, 2.0]


def test_it_fails_at_the_calls_it_was_told_to() -> None:
    """And goes on after."""
    runner = ScriptedRunner(failures={1: StepFailed("lost")})
    batch = prefill_batch(0, [1])
    runner.execute_model(batch)
    with pytest.raises(StepFailed, match="lost"):
        runner.execute_model(batch)
    runner.execute_model(batch)
    assert runner.num_calls == 3


def test_batches_can_be_watched_and_logits_spoiled() -> None:
    """What a test needs to block, to record, or to send NaN."""
    phases: list[str] = []

    def spoil(batch: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.full_like(logits, np.nan)

    runner = ScriptedRunner(on_execute=lambda batch: phases.append(batch.phase), corrupt=spoil)
    assert np.isnan(runner.execute_model(prefill_batch(0, [1]))).all()
    runner.execute_model(decode_batch([1], [1]))
    assert phases == ["prefill", "decode"]
