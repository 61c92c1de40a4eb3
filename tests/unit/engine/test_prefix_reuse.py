"""Prompts that begin alike: what is computed, what is told, and that the text stays the same."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.engine.core import EngineCore
from provider_core.engine.sequence import make_sequence
from provider_core.testing import Recorder, ScriptedRunner
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams
from tests.unit.engine.manual_clock import ManualClock
from tests.unit.engine.prefix_bench import BLOCK, Bench, alone, make_runner


def test_a_second_prompt_computes_only_what_is_new() -> None:
    """The text is its own; the cached tokens are said once, with the first token."""
    bench = Bench()
    shared = list(range(10, 30))
    bench.run("a", [*shared, 1, 2, 3])
    assert (bench.core.num_prompt_tokens, bench.num_cached("a")) == (23, 0)
    outputs = bench.run("b", [*shared, 7, 8])
    assert bench.core.num_prompt_tokens == 23 + 2
    assert bench.core.num_settled_prompt_tokens == 23 + 22
    assert [output.num_cached_tokens for output in outputs] == [0, 20, 0, 0, 0]
    assert bench.recorders["b"].token_ids == alone([*shared, 7, 8])


@pytest.mark.parametrize("length", range(1, 22))
def test_the_same_prompt_again_leaves_two_tokens_at_least(length: int) -> None:
    """A chunk of one would round otherwise; a prompt shorter than that is computed whole."""
    bench = Bench()
    prompt = list(range(5, 5 + length))
    expected = bench.run("a", prompt)[-1]
    assert bench.run("b", prompt)[-1] == expected
    assert bench.num_cached("b") == max(0, (length - 2) // BLOCK * BLOCK)
    assert bench.recorders["b"].token_ids == bench.recorders["a"].token_ids


def test_other_salts_get_nothing() -> None:
    """Neither from another tenant nor from one without a salt."""
    bench = Bench()
    prompt = list(range(20))
    bench.run("a", prompt, salt="one")
    bench.run("b", prompt, salt="two")
    bench.run("c", prompt)
    bench.run("d", prompt, salt="two")
    assert [bench.num_cached(name) for name in "abcd"] == [0, 0, 0, 16]


def test_the_choices_of_one_prompt_compute_it_once() -> None:
    """Each but the first takes what the first has stored, in the same step."""
    bench = Bench()
    for i in range(3):
        bench.add(str(i), range(30), temperature=1.0, seed=i)
    bench.step()
    assert bench.core.num_prompt_tokens == 30 + 2 * 2
    assert [bench.num_cached(str(i)) for i in range(3)] == [0, 28, 28]
    bench.finish()
    for i in range(3):
        assert bench.recorders[str(i)].token_ids == alone(range(30), temperature=1.0, seed=i)


def test_the_next_turn_of_a_conversation_reuses_the_last_prompt() -> None:
    """Not the answer, which decoding computed: with other rounding than prefill has."""
    bench = Bench()
    first = list(range(21))
    bench.run("turn 1", first)
    second = [*first, *bench.recorders["turn 1"].token_ids, 50, 51, 52]
    bench.run("turn 2", second)
    assert bench.num_cached("turn 2") == 20
    bench.run("turn 3", [*second, 53, 54])
    assert bench.num_cached("turn 3") == 28
    assert bench.recorders["turn 2"].token_ids == alone(second)


def test_a_prompt_that_is_mostly_cached_counts_as_short() -> None:
    """It overtakes a long one that nobody has sent before."""
    bench = Bench(chunk=32)
    known = list(range(60)) * 2
    bench.run("known", known)
    bench.add("long", list(range(60, 0, -1)) * 3)
    bench.step()
    bench.add("again", [*known, 5, 6])
    bench.step()
    assert bench.recorders["again"].token_ids
    assert not bench.recorders["long"].token_ids
    bench.finish()
    assert bench.recorders["again"].token_ids == alone([*known, 5, 6])


def test_what_was_expected_and_is_gone_is_computed() -> None:
    """A store too small for both: the second prompt's beginning is evicted while it waits."""
    bench = Bench(make_runner(6))
    known = list(range(24))
    bench.run("known", known)
    bench.add("other", range(60, 30, -1))
    bench.add("again", [*known, 5, 6])
    bench.finish()
    assert bench.num_cached("again") == 0
    assert bench.recorders["again"].token_ids == alone([*known, 5, 6])


def test_who_wants_the_prompts_logprobs_gets_all_of_them() -> None:
    """They are not stored, so such a prompt is computed whole; what it computes is stored."""
    bench = Bench()
    prompt = list(range(20))
    first = bench.run("a", prompt, prompt_logprobs=1)[1]
    again = bench.run("b", prompt, prompt_logprobs=1)[1]
    assert first.prompt_logprobs == again.prompt_logprobs
    assert len(first.prompt_logprobs) == 20
    bench.run("c", prompt)
    assert [bench.num_cached(name) for name in "abc"] == [0, 0, 16]


def test_a_prompt_that_draws_nothing_says_what_was_cached() -> None:
    """In its only output beside the announcement."""
    bench = Bench()
    bench.run("a", range(20), max_tokens=0)
    assert bench.run("b", range(20), max_tokens=0)[-1] == EngineOutput(
        (), "length", num_cached_tokens=16
    )


def test_a_long_prompt_goes_on_in_chunks_behind_what_is_cached() -> None:
    """The announcement comes once."""
    bench = Bench(chunk=16)
    shared = list(range(40))
    bench.run("a", shared)
    outputs = bench.run("b", [*shared, *range(60, 5, -1)])
    assert bench.num_cached("b") == 40
    assert sum(output.started_s is not None for output in outputs) == 1
    assert bench.recorders["b"].token_ids == alone([*shared, *range(60, 5, -1)])


def test_the_first_token_does_not_wait_for_the_store() -> None:
    """It is handed over before the blocks are copied."""
    events: list[str] = []

    class Spy(ScriptedRunner):
        def save_blocks(self, slot: int, first_token: int, block_ids: Sequence[int]) -> None:
            """Note when."""
            events.append("saved")

    core = EngineCore(
        Spy(num_cache_blocks=8),
        prefill_chunk_tokens=64,
        max_kv_tokens=1000,
        clock=ManualClock(),
        on_urgent=lambda: events.extend(
            "token" if output.token_ids else "begun" for _, output in core.take_outputs()[0]
        ),
    )
    request = GenerationRequest(
        request_id="a", prompt_token_ids=tuple(range(20)), sampling=SamplingParams(max_tokens=4)
    )
    core.add(make_sequence(request, Recorder("a"), max_model_len=256))
    core.step()
    assert events == ["begun", "token", "saved"]


def test_a_runner_that_stores_nothing_is_asked_nothing() -> None:
    """Without blocks there is no cache."""
    assert Bench(make_runner(0)).core.scheduler.prefix_cache is None


ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 8),  # the step it comes in
        st.integers(0, 2),  # which text it begins with
        st.integers(1, 40),  # and how much of that
        st.integers(0, 6),  # own tokens behind
        st.sampled_from(["x", "y"]),  # salt
        st.sampled_from([None, None, 0, 1, 3]),  # steps until it is aborted
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=100, deadline=None)
@given(arrivals=ARRIVALS, num_blocks=st.integers(1, 24), chunk=st.sampled_from([5, 16, 64]))
def test_any_arrivals_make_the_text_they_make_alone(
    arrivals: list[tuple[int, int, int, int, str, int | None]], num_blocks: int, chunk: int
) -> None:
    """Whatever is stored, evicted and reused meanwhile; counts add up."""
    bench = Bench(make_runner(num_blocks), chunk=chunk)
    prompts = [
        [*(20 * text + i % 20 for i in range(length)), *range(own)] or [1]
        for _, text, length, own, _, _ in arrivals
    ]
    num_steps = 0
    while num_steps <= 12 or bench.core.scheduler.has_work:
        for i, (start, *_, salt, abort_after) in enumerate(arrivals):
            if start == num_steps:
                bench.add(str(i), prompts[i], salt=salt)
            if abort_after is not None and start + abort_after == num_steps:
                bench.core.abort(str(i))
        bench.step()
        num_steps += 1
    num_cached = 0
    for i, prompt in enumerate(prompts):
        recorder = bench.recorders[str(i)]
        expected = alone(prompt)
        assert recorder.violation is None
        assert recorder.token_ids == expected[: len(recorder.token_ids)]
        if arrivals[i][-1] is None:
            assert recorder.token_ids == expected
        assert bench.num_cached(str(i)) <= max(0, len(prompt) - 2)
        num_cached += bench.num_cached(str(i))
    core = bench.core
    assert core.num_settled_prompt_tokens == sum(map(len, prompts))
    assert core.num_prompt_tokens + num_cached <= core.num_settled_prompt_tokens
