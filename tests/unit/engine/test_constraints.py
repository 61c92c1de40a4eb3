"""Constrained decoding in the engine: what is allowed, where it ends, and who it may hurt."""

from threading import Event, Thread, current_thread
from typing import Any

import numpy as np
import pytest

from provider_core.engine import constraints
from provider_core.engine.constraints import (
    ALLOWANCE_PER_TOKEN_S,
    ALLOWANCE_S,
    MaskWorker,
)
from provider_core.engine.core import MAX_CONSECUTIVE_FAILURES
from provider_core.errors import BackendError, StepFailed
from provider_core.types import EngineOutput
from tests.unit.engine.core_bench import EOS, Bench
from tests.unit.engine.scripted_grammar import ScriptedGrammar

_TWO_SETS = ({5, 40}, {6, 200}, {7})


def _raise(value: int) -> None:
    message = f"broken at {value}"
    raise RuntimeError(message)


def _panic(_: int) -> None:
    raise BaseException("broken at it")  # noqa: TRY002 - as pyo3 does when Rust panics


def _raise_after_the_first(position: int) -> None:
    if position > 0:
        _raise(position)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(
    "params",
    [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.2}, {"frequency_penalty": 1.0}],
    ids=str,
)
def test_only_what_the_grammar_allows_is_drawn(
    temperature: float, params: dict[str, float]
) -> None:
    """From the first id on, whatever the sampling, and a finished grammar ends the text."""
    bench = Bench()
    for seed in range(10):
        bench.add(
            f"{seed}",
            grammar=ScriptedGrammar(*_TWO_SETS),
            temperature=temperature,
            seed=seed,
            **params,
        )
    bench.run()
    texts = [bench.ids(f"{seed}") for seed in range(10)]
    assert all(first in {5, 40} and second in {6, 200} for first, second, _ in texts)
    assert {bench.last(f"{seed}") for seed in range(10)} == {EngineOutput((7,), "stop")}


def test_random_draws_keep_the_models_distribution_among_what_is_allowed() -> None:
    """Both ids of a set come up, so the mask is no argmax in disguise."""
    bench = Bench(spread=0.1)
    for seed in range(40):
        bench.add(f"{seed}", grammar=ScriptedGrammar({5, 40}), temperature=1.0, seed=seed)
    bench.run()
    assert {bench.ids(f"{seed}")[0] for seed in range(40)} == {5, 40}


def test_eos_comes_only_where_the_grammar_lets_the_text_end() -> None:
    """The model wants it at once."""
    bench = Bench(reply=[EOS] * 5)
    bench.add("a", grammar=ScriptedGrammar({5}, {6, EOS}, {7}))
    bench.run()
    assert (bench.ids("a"), bench.last("a").stop_token_id) == ([5, EOS], EOS)


def test_a_grammars_end_counts_even_when_eos_is_ignored() -> None:
    """There is nothing that could follow it."""
    bench = Bench(reply=[EOS] * 5)
    bench.add("a", grammar=ScriptedGrammar({5}, {6, EOS}, {7}), ignore_eos=True)
    bench.run()
    assert bench.last("a") == EngineOutput((EOS,), "stop")


def test_min_tokens_cannot_make_a_grammar_longer() -> None:
    """It puts off an eos that may come, and not the end of what is complete."""
    bench = Bench(reply=[EOS] * 5)
    bench.add("a", grammar=ScriptedGrammar({5, EOS}, {6, EOS}, {7}), min_tokens=5)
    bench.run()
    assert (bench.ids("a"), bench.last("a").finish_reason) == ([5, 6, 7], "stop")


def test_a_bias_chooses_among_what_is_allowed() -> None:
    """And cannot make anything else possible."""
    bench = Bench()
    bench.add("a", grammar=ScriptedGrammar({5, 40}), logit_bias=((40, 50.0), (90, 100.0)))
    bench.add("b", grammar=ScriptedGrammar({5, 40}), logit_bias=((5, 50.0), (90, 100.0)))
    bench.run()
    assert (bench.ids("a"), bench.ids("b")) == ([40], [5])


def test_max_tokens_cuts_a_grammar_short() -> None:
    """With `length`, as any text."""
    bench = Bench()
    bench.add("a", grammar=ScriptedGrammar(*_TWO_SETS), max_tokens=2)
    bench.run()
    assert (len(bench.ids("a")), bench.last("a").finish_reason) == (2, "length")


def test_the_other_rows_draw_what_they_would_alone() -> None:
    """Greedy or random, with a constrained row beside them, that moves when another ends."""
    alone, beside = Bench(), Bench()
    beside.add("first", grammar=ScriptedGrammar({9}))
    beside.add("second", grammar=ScriptedGrammar(*_TWO_SETS))
    for bench in (alone, beside):
        bench.add("greedy", 1, 2)
        bench.add("random", 1, 2, temperature=1.0, seed=3)
        bench.run()
    assert [beside.ids(name) for name in ("greedy", "random")] == [
        alone.ids(name) for name in ("greedy", "random")
    ]
    assert beside.ids("second")[-1] == 7


def test_logprobs_are_of_the_unconstrained_distribution() -> None:
    """They say what the model thought, as without a grammar."""
    plain, constrained = Bench(), Bench()
    plain.add("a", logprobs=3)
    constrained.add("a", logprobs=3, grammar=ScriptedGrammar({5}, {6}))
    plain.step()
    constrained.step()
    (before,), (after,) = plain.last("a").logprobs, constrained.last("a").logprobs
    assert after.token_id == 5
    assert after.top == before.top
    assert after.logprob is not None
    assert -np.inf < after.logprob < before.top[0][1]


@pytest.mark.parametrize(
    "grammar",
    [
        ScriptedGrammar(on_fill=_raise),
        ScriptedGrammar({5}, on_accept=_raise),
        ScriptedGrammar({5}, on_accept=_panic),
        ScriptedGrammar({5}, set()),
        ScriptedGrammar({5}, {6}, on_fill=_raise_after_the_first),
        ScriptedGrammar({300}),
    ],
    ids=["first mask", "accept", "panic", "nothing allowed", "later mask", "beyond the vocabulary"],
)
def test_a_broken_grammar_ends_its_own_sequence(grammar: ScriptedGrammar) -> None:
    """With an error of the server, and its neighbour goes on."""
    bench, alone = Bench(vocab_size=280), Bench(vocab_size=280)
    bench.add("bad", grammar=grammar)
    for each in (bench, alone):
        each.add("good", 4, 5)
        each.run()
    last = bench.last("bad")
    assert (last.finish_reason, type(last.error)) == ("error", BackendError)
    assert last.error is not None
    assert "broken at" not in str(last.error)
    assert bench.ids("good") == alone.ids("good")


def test_a_grammar_at_odds_with_the_request_ends_with_an_error() -> None:
    """`min_tokens` rules out the one id that is allowed. No such request brings the engine down."""
    bench = Bench()
    for i in range(2 * MAX_CONSECUTIVE_FAILURES):
        bench.add(
            f"{i}",
            grammar=ScriptedGrammar({5}, {6}),
            stop_token_ids=frozenset({5}),
            min_tokens=2,
            temperature=float(i % 2),
        )
        bench.run()
        assert bench.last(f"{i}").finish_reason == "error"
    bench.add("good")
    bench.run()
    assert bench.last("good").finish_reason == "length"


def test_logits_that_are_not_finite_are_the_models_fault() -> None:
    """Not the grammar's: the error says so."""
    bench = Bench(corrupt=lambda _, logits: np.full_like(logits, np.nan))
    bench.add("a", grammar=ScriptedGrammar({5}, {6}))
    bench.run()
    assert isinstance(bench.last("a").error, StepFailed)


def test_masks_are_made_while_the_model_runs() -> None:
    """The engine calls the model before the mask it will need is there."""
    has_run = Event()
    threads = []

    def wait_for_the_model(position: int) -> None:
        threads.append(current_thread().name)
        if position == 1:
            assert has_run.wait(60)

    bench = Bench(on_execute=lambda batch: has_run.set() if batch.phase == "decode" else None)
    bench.add("a", grammar=ScriptedGrammar(*_TWO_SETS, on_fill=wait_for_the_model))
    bench.run()
    assert bench.last("a") == EngineOutput((7,), "stop")
    assert current_thread().name not in threads


def test_a_constrained_text_is_not_drafted() -> None:
    """A draft knows no grammar."""
    prompt = (5, 6, 7) * 5
    drafted, constrained = (
        Bench(speculates=True, max_model_len=64, reply=[5, 6, 7] * 10) for _ in range(2)
    )
    drafted.add("a", *prompt, max_tokens=20)
    constrained.add("a", *prompt, max_tokens=20, grammar=ScriptedGrammar(*[{5, 6, 7}] * 20))
    drafted.run()
    constrained.run()
    assert drafted.core.speculator is not None
    assert drafted.core.speculator.num_draft_tokens > 0
    assert constrained.core.speculator is not None
    assert constrained.core.speculator.num_draft_tokens == 0
    assert constrained.ids("a") == [*drafted.ids("a")]


@pytest.mark.parametrize("vocab_size", [31, 32, 33, 1000])
def test_a_mask_is_one_bit_an_id(vocab_size: int) -> None:
    """Low bits first, and bits beyond the vocabulary mean nothing."""
    is_allowed = np.random.default_rng(vocab_size).random(-(-vocab_size // 32) * 32) < 0.5
    bitmask = np.packbits(is_allowed, bitorder="little").view(np.int32)
    ceilings = MaskWorker(vocab_size).expand(bitmask)
    assert np.array_equal(ceilings == np.inf, is_allowed[:vocab_size])
    assert np.array_equal(ceilings == -np.inf, ~is_allowed[:vocab_size])


@pytest.mark.parametrize("num_allowed", [1, 100, 2000, 20_000, 40_000 - 100, 39_999, 40_000])
def test_every_mask_rules_out_the_same_ids_for_a_draw_and_for_the_likeliest(
    num_allowed: int,
) -> None:
    """Few allowed, few forbidden, or many of both: the likeliest is found in different ways."""
    random = np.random.default_rng(num_allowed)
    allowed = set(random.permutation(40_000)[:num_allowed].tolist())
    masks = MaskWorker(40_000)
    sequence = masks.begin(ScriptedGrammar(allowed))
    for _ in range(5):
        logits = random.normal(size=40_000).astype(np.float32)
        expected = np.full_like(logits, -np.inf)
        expected[list(allowed)] = logits[list(allowed)]
        likeliest = int(logits.argmax())
        chosen = sequence.choose(logits.copy(), likeliest, float(logits[likeliest]))
        assert chosen == (int(expected.argmax()), float(expected.max()))
        sequence.restrict(logits)
        assert np.array_equal(logits, expected)
    masks.close()


def test_bits_beyond_the_vocabulary_allow_nothing() -> None:
    """A plugin may leave them set."""
    sequence = MaskWorker(40).begin(ScriptedGrammar({50}))
    sequence.restrict(np.zeros(40, dtype=np.float32))
    assert sequence.error is not None
    assert "allows no token" in str(sequence.error)


def test_closing_ends_the_thread() -> None:
    """Nothing is left running, and it may be closed twice."""
    threads: list[Thread] = []
    masks = MaskWorker(64)
    sequence = masks.begin(ScriptedGrammar({5}, on_fill=lambda _: threads.append(current_thread())))
    assert sequence.choose(np.zeros(64, dtype=np.float32), 5, 0.0) == (5, 0.0)
    masks.close()
    masks.close()
    threads[0].join(60)
    assert not threads[0].is_alive()
    with pytest.raises(RuntimeError):
        masks.begin(ScriptedGrammar({5}))


def test_a_worker_that_is_forgotten_ends_its_thread() -> None:
    """Closed or not."""
    threads: list[Thread] = []
    sequence = MaskWorker(64).begin(
        ScriptedGrammar({5}, on_fill=lambda _: threads.append(current_thread()))
    )
    sequence.restrict(np.zeros(64, dtype=np.float32))
    del sequence
    threads[0].join(60)
    assert not threads[0].is_alive()


def test_s9_a_panic_in_a_grammar_ends_its_own_sequence() -> None:
    """Rust's are no `Exception`; the thread goes on with the next."""
    masks = MaskWorker(64)
    broken = masks.begin(ScriptedGrammar({5}, on_fill=_panic))
    whole = masks.begin(ScriptedGrammar({5}))
    logits = np.zeros(64, dtype=np.float32)
    assert broken.choose(logits, 3, 0.0) == (3, 0.0)
    assert broken.error is not None
    assert whole.choose(logits, 3, 0.0) == (5, 0.0)
    masks.close()


class ManualTime:
    """Processor time that passes when a grammar says so."""

    now_s = 0.0

    def spend(self, duration_s: float) -> None:
        """Let it pass."""
        self.now_s += duration_s

    def __call__(self) -> float:
        """Seconds."""
        return self.now_s


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> ManualTime:
    """What grammars spend."""
    manual = ManualTime()
    monkeypatch.setattr(constraints, "thread_time", manual)
    return manual


@pytest.mark.parametrize("where", ["on_fill", "on_accept"])
def test_a_grammar_that_takes_too_long_ends_its_own_sequence(time: ManualTime, where: str) -> None:
    """Once its allowance is used up, in masks or in taking ids; the others go on."""
    spend: Any = {where: lambda _: time.spend(3 * ALLOWANCE_PER_TOKEN_S)}
    bench = Bench()
    bench.add("slow", grammar=ScriptedGrammar(*[{5}] * 60, **spend), max_tokens=60)
    bench.add("beside", grammar=ScriptedGrammar(*[{6}] * 60), max_tokens=60)
    bench.run()
    assert isinstance(bench.last("slow").error, BackendError)
    most = ALLOWANCE_S / (2 * ALLOWANCE_PER_TOKEN_S)
    assert most / 2 < len(bench.ids("slow")) <= most + 1
    assert bench.ids("beside") == [6] * 60


def test_a_grammar_may_take_its_time_now_and_then(time: ManualTime) -> None:
    """As long as it is little for each token."""
    bench = Bench()

    def spend(position: int) -> None:
        time.spend(20 * ALLOWANCE_PER_TOKEN_S if position % 30 == 0 else 0.0)

    bench.add("a", grammar=ScriptedGrammar(*[{5}] * 60, on_fill=spend), max_tokens=60)
    bench.run()
    assert bench.ids("a") == [5] * 60
