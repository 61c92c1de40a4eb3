"""What holds in every step, whatever arrives: dense rows, kept budgets, progress, fair shares."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.engine.core import EngineCore
from provider_core.engine.sequence import make_sequence
from provider_core.engine.slot_shares import LATELY_S
from provider_core.engine.step_budget import MIN_TOKENS
from provider_core.engine.waiting_queue import GENERATED_TOKEN_WEIGHT, OVERTAKING_TOKENS
from provider_core.interfaces import Batch
from provider_core.testing import Recorder, ScriptedRunner
from provider_core.types import GenerationRequest, SamplingParams
from tests.unit.engine.manual_clock import ManualClock

DECODE_S, TOKEN_S = 0.010, 0.001


class Machine:
    """A core on a machine of known speed, that looks at every batch.

    Args:
        max_num_seqs: Slots.
        chunk: Most prompt tokens in a step.
        max_model_len: Positions of a slot.
        max_kv_tokens: Tokens all sequences may reserve.
        target_itl_s: Inter-token latency to keep.
        mixes: A prompt and a decode are one call.
    """

    def __init__(
        self,
        *,
        max_num_seqs: int,
        chunk: int,
        max_model_len: int = 256,
        max_kv_tokens: int = 1_000_000,
        target_itl_s: float = 0.050,
        mixes: bool = False,
    ) -> None:
        self.clock = ManualClock()
        runner = ScriptedRunner(
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            vocab_size=32,
            on_execute=self._look_at,
            mixes_phases=mixes,
        )
        self._has_waited = False  # the first in line, for one step
        self.max_model_len = max_model_len
        self.chunk = chunk
        self.target_itl_s = target_itl_s
        self.core = EngineCore(
            runner,
            prefill_chunk_tokens=chunk,
            target_itl_s=target_itl_s,
            max_kv_tokens=max_kv_tokens,
            clock=self.clock,
        )
        self.recorders: dict[str, Recorder] = {}
        self.prefilled: list[tuple[int, bool]] = []  # this step's chunks, whether rows ran before
        self.add("warm-up", length=3, max_tokens=3)
        while self.core.scheduler.has_work:  # from here on it knows what things cost
            self.core.step()
        self.clock.now_s += 2 * LATELY_S  # and nobody comes back whom no test has sent

    def add(self, name: str, *, length: int, max_tokens: int, key: str = "") -> None:
        """Submit a sequence that runs to its limit."""
        request = GenerationRequest(
            request_id=name,
            prompt_token_ids=tuple((length + 3 * i) % 32 for i in range(length)),
            sampling=SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True),
            fairness_key=key,
        )
        recorder = self.recorders[name] = Recorder(name)
        self.core.add(make_sequence(request, recorder, max_model_len=self.max_model_len))

    def step(self) -> None:
        """Run a step and check what must hold in each."""
        scheduler = self.core.scheduler
        self.prefilled = []
        first = scheduler.prefilling[0] if scheduler.prefilling else None
        num_slots = self.core.runner.info.max_num_seqs
        has_room = scheduler.num_running + len(scheduler.waiting) < num_slots
        num_missing = first.num_prompt_tokens - first.num_computed_tokens if first else 0
        num_before = sum(scheduler.waiting._served.values())
        self.core.step()
        for on_output, output in self.core.take_outputs()[0]:
            on_output(output)
        self._check_slots()
        self._check_budget()
        if first is not None and has_room:
            num_granted = self._budget() // 2 - 1
            num_left = first.num_prompt_tokens - first.num_computed_tokens
            has_advanced = num_missing - num_left >= min(num_missing, num_granted)
            assert has_advanced or (self._is_mixing and not self._has_waited)
            self._has_waited = not has_advanced
        else:
            self._has_waited = False
        if scheduler.waiting or scheduler.running():
            assert sum(scheduler.waiting._served.values()) >= num_before

    @property
    def _is_mixing(self) -> bool:
        return self.core.runner.info.mixes_phases

    def _look_at(self, batch: Batch) -> None:
        if batch.phase == "decode":
            assert batch.slots.tolist() == list(range(len(batch.slots)))
            self.clock.now_s += DECODE_S
        else:
            num_tokens = batch.token_ids.size
            self.prefilled.append((num_tokens, bool(self.core.scheduler.rows)))
            self.clock.now_s += num_tokens * TOKEN_S

    def _check_slots(self) -> None:
        scheduler = self.core.scheduler
        assert [sequence.slot for sequence in scheduler.rows] == list(range(len(scheduler.rows)))
        behind = [sequence.slot for sequence in scheduler.prefilling if sequence.slot >= 0]
        assert len(set(behind)) == len(behind)
        assert all(slot >= len(scheduler.rows) for slot in behind)

    def _check_budget(self) -> None:
        assert sum(num_tokens for num_tokens, _ in self.prefilled) <= self.chunk
        beside_rows = sum(num_tokens for num_tokens, has_rows in self.prefilled if has_rows)
        assert beside_rows <= self._budget()

    def _budget(self) -> int:
        """Prompt tokens of a step with decoding rows."""
        fitting = round((0.9 * self.target_itl_s - DECODE_S) / TOKEN_S)
        return min(self.chunk, max(MIN_TOKENS, fitting))


ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 15),  # the step it comes in
        st.one_of(st.integers(1, 12), st.integers(1, 200)),  # prompt length
        st.integers(1, 10),  # max_tokens
        st.sampled_from([None, None, None, 0, 1, 4]),  # steps until it is aborted
        st.sampled_from(["a", "b", "c"]),  # fairness key
    ),
    min_size=1,
    max_size=16,
)


@settings(max_examples=150, deadline=None)
@given(
    arrivals=ARRIVALS,
    max_num_seqs=st.integers(1, 6),
    chunk=st.sampled_from([3, 5, 16, 24, 64, 512]),
    max_kv_tokens=st.sampled_from([210, 400, 1_000_000]),
    mixes=st.booleans(),
)
def test_every_step_keeps_the_rules_and_everybody_gets_on(
    arrivals: list[tuple[int, int, int, int | None, str]],
    max_num_seqs: int,
    chunk: int,
    max_kv_tokens: int,
    *,
    mixes: bool,
) -> None:
    """A step with work computes two prompt tokens at least, or a token of every row."""
    machine = Machine(
        max_num_seqs=max_num_seqs, chunk=chunk, max_kv_tokens=max_kv_tokens, mixes=mixes
    )
    num_steps = 0
    while num_steps <= 20 or machine.core.scheduler.has_work:
        for i, (start, length, max_tokens, abort_after, key) in enumerate(arrivals):
            if start == num_steps:
                machine.add(str(i), length=length, max_tokens=max_tokens, key=key)
            if abort_after is not None and start + abort_after == num_steps:
                machine.core.abort(str(i))
        machine.step()
        num_steps += 1
        assert num_steps <= 21 + sum((n + 1) // 2 + m for _, n, m, *_ in arrivals)
    machine.recorders.pop("warm-up")
    for recorder in machine.recorders.values():
        assert recorder.violation is None
        assert recorder.outputs[-1].finish_reason in {"length", "abort"}


@pytest.mark.parametrize("num_slots", [2, 4, 8])
@pytest.mark.parametrize("mixes", [False, True])
def test_keys_with_enough_work_get_equal_shares(num_slots: int, *, mixes: bool) -> None:
    """However long their prompts and answers are, and although short prompts may overtake."""
    rng = random.Random(num_slots)  # noqa: S311 - a fixed seed is the point
    machine = Machine(
        max_num_seqs=num_slots, chunk=512, max_model_len=1024, target_itl_s=1.0, mixes=mixes
    )
    served: Counter[str] = Counter()
    costs: dict[str, tuple[str, int]] = {}  # of the sequences that wait or run: key and tokens
    kinds = {"long": (400, 800, 1), "short": (5, 60, 2), "talkative": (20, 40, 8)}
    in_flight = num_slots * max(most + 2 * new for _, most, new in kinds.values())
    bound = OVERTAKING_TOKENS + in_flight
    while sum(served.values()) < 4 * bound:  # so that the bound says something
        for key, (least, most, num_new) in kinds.items():
            for _ in range(num_slots + 2 - sum(k == key for k, _ in costs.values())):
                name, length = str(len(machine.recorders)), rng.randint(least, most)
                machine.add(name, length=length, max_tokens=num_new, key=key)
                costs[name] = (key, length + GENERATED_TOKEN_WEIGHT * num_new)
        machine.step()
        for name, (key, cost) in list(costs.items()):
            outputs = machine.recorders[name].outputs
            if outputs and outputs[-1].finish_reason:
                served[key] += cost
                del costs[name]
        assert max(served.values(), default=0) - min(served[key] for key in kinds) <= bound


@pytest.mark.parametrize("mixes", [False, True])
def test_a_short_prompt_behind_a_long_one_answers_in_a_step_or_two(*, mixes: bool) -> None:
    """And the long one still gets half of what there is."""
    machine = Machine(max_num_seqs=8, chunk=64, max_model_len=4096, mixes=mixes)
    machine.add("talking", length=4, max_tokens=500)
    machine.step()
    machine.add("long", length=3000, max_tokens=5)
    machine.step()
    for i in range(20):
        machine.add(f"short-{i}", length=15, max_tokens=2)
        machine.step()
        machine.step()
        assert machine.recorders[f"short-{i}"].token_ids
    [long] = machine.core.scheduler.prefilling
    assert long.num_computed_tokens >= 40 * 16


@pytest.mark.parametrize("target_itl_s", [0.09, 0.12, 0.2])
@pytest.mark.parametrize("mixes", [False, True])
def test_running_sequences_keep_their_pace_whatever_arrives(
    target_itl_s: float, *, mixes: bool
) -> None:
    """Twelve clients, each with the next prompt of up to 1,500 tokens as soon as it is answered."""
    rng = random.Random(1)  # noqa: S311 - a fixed seed is the point
    machine = Machine(
        max_num_seqs=8, chunk=512, max_model_len=2048, target_itl_s=target_itl_s, mixes=mixes
    )
    names = [str(i) for i in range(60)]
    gaps_s: list[float] = []
    last_s: dict[str, float] = {}
    num_seen: Counter[str] = Counter()
    num_submitted = num_finished = 0
    while num_finished < len(names):
        while num_submitted < len(names) and num_submitted - num_finished < 12:
            length = rng.choice([20, 60, 200, 1500])
            machine.add(names[num_submitted], length=length, max_tokens=30)
            num_submitted += 1
        machine.step()
        now_s = machine.clock.now_s
        for name in names[:num_submitted]:
            recorder = machine.recorders[name]
            if len(recorder.token_ids) > num_seen[name]:
                num_seen[name] = len(recorder.token_ids)
                if name in last_s:
                    gaps_s.append(now_s - last_s[name])
                last_s[name] = now_s
        num_finished = sum(num_seen[name] == 30 for name in names)
    gaps_s.sort()
    assert gaps_s[int(0.95 * len(gaps_s))] <= target_itl_s
    assert gaps_s[int(0.5 * len(gaps_s))] > 0.5 * target_itl_s  # and makes use of it
