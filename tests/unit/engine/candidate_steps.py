"""Steps of candidates of given logits, and the same drawn from whole rows."""

import numpy as np
import numpy.typing as npt
import pytest

from provider_core.engine.candidates import CandidateSteps
from provider_core.engine.constraints import MaskWorker
from provider_core.engine.sampler import Sampled, SamplingMetadata, sample
from provider_core.engine.sequence import Sequence, make_sequence
from provider_core.interfaces import RunnerInfo
from provider_core.testing import decode_batch
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams
from tests.unit.engine.candidate_runner import GivenLogits
from tests.unit.engine.scripted_grammar import ScriptedGrammar

VOCAB_SIZE, K = 45, 9
GREEDY = SamplingParams(max_tokens=100, temperature=0.0)
Logits = npt.NDArray[np.float32]


def new_sequence(params: SamplingParams, position: int = 0) -> Sequence:
    """A sequence that has drawn so many ids."""
    request = GenerationRequest(
        request_id="r",
        prompt_token_ids=(1, 2),
        sampling=params,
        eos_token_ids=frozenset({0}),
    )
    sequence = make_sequence(request, ignore, max_model_len=10_000)
    sequence.num_generated_tokens = position
    return sequence


def ignore(output: EngineOutput) -> None:
    """Take an output that nobody reads."""


def constrain(sequence: Sequence, masks: MaskWorker, allowed: set[int], *, is_ready: bool) -> None:
    """Let a grammar allow these ids, and its mask be there before the step, or be late."""
    sequence.constraint = masks.begin(ScriptedGrammar(allowed, range(masks.vocab_size)))
    with sequence.constraint.ready:
        pass
    if not is_ready:
        sequence.constraint.ready_bitmask = lambda: None  # type: ignore[method-assign] # a race


def new_steps(runner: GivenLogits, k: int = K) -> CandidateSteps:
    """What asks it."""
    info = RunnerInfo(
        backend="given",
        backend_version="1",
        device="cpu",
        max_num_seqs=64,
        max_model_len=100,
        vocab_size=runner.logits.shape[1],
        max_candidates=k,
    )
    return CandidateSteps(runner, info)


def run(runner: GivenLogits, sequences: list[Sequence], k: int = K) -> Sampled | None:
    """Draw from candidates; `None` if nothing but whole logits will do."""
    batch = decode_batch([1] * len(sequences), [5] * len(sequences))
    step = new_steps(runner, k).run(batch, sequences)
    return None if step is None else step.sample()


def run_whole(logits: Logits, sequences: list[Sequence]) -> Sampled:
    """Draw from whole logits."""
    return sample(logits.copy(), SamplingMetadata(sequences, logits.shape[1]))


def random_logits(num_rows: int = 1, *, scale: float = 3.0) -> Logits:
    """No two alike."""
    rng = np.random.default_rng(11)
    return rng.normal(0, scale, (num_rows, VOCAB_SIZE)).astype(np.float32)


def check_same(expected: Sampled, actual: Sampled, *, tolerance: float = 2e-5) -> None:
    """Compare all that was drawn, log probabilities as far as rounding goes."""
    sound = [row for row in range(len(expected.token_ids)) if row not in expected.failed_rows]
    assert actual.failed_rows == expected.failed_rows
    assert actual.token_ids[sound].tolist() == expected.token_ids[sound].tolist()
    assert actual.token_ids.dtype == np.int64
    assert actual.complete_rows == expected.complete_rows
    assert actual.rejected_rows.keys() == expected.rejected_rows.keys()
    assert set(actual.logprobs) - set(expected.failed_rows) == set(expected.logprobs) - set(
        expected.failed_rows
    )
    for row in set(sound) & set(expected.logprobs):
        found, wanted = actual.logprobs[row], expected.logprobs[row]
        assert found.token_id == wanted.token_id
        assert found.logprob == pytest.approx(wanted.logprob, abs=tolerance)
        assert [i for i, _ in found.top] == [i for i, _ in wanted.top]
        assert [v for _, v in found.top] == pytest.approx([v for _, v in wanted.top], abs=tolerance)
