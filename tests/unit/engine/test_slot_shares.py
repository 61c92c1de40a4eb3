"""No key's answers lock another key out, and a key that is alone gets everything."""

from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.engine.core import EngineCore
from provider_core.engine.sequence import make_sequence
from provider_core.engine.slot_shares import LATELY_S, SlotShares
from provider_core.testing import Recorder, ScriptedRunner
from provider_core.types import GenerationRequest, SamplingParams
from tests.unit.engine.manual_clock import ManualClock

LONG = 400  # tokens of an answer that outlasts a test


class Slots:
    """A core whose steps compute every prompt that a slot is given to."""

    def __init__(self, num_slots: int, *, chunk: int = 512) -> None:
        self.clock = ManualClock()
        runner = ScriptedRunner(max_num_seqs=num_slots, max_model_len=512, vocab_size=32)
        self.core = EngineCore(
            runner, prefill_chunk_tokens=chunk, max_kv_tokens=1_000_000, clock=self.clock
        )
        self.num_slots = num_slots
        self._num_added = 0

    def add(self, key: str, *, length: int = 3, max_tokens: int = LONG) -> Recorder:
        """Submit a sequence that runs to its limit."""
        name = f"{key}-{self._num_added}"
        self._num_added += 1
        request = GenerationRequest(
            request_id=name,
            prompt_token_ids=tuple(range(length)),
            sampling=SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True),
            fairness_key=key,
        )
        recorder = Recorder(name)
        self.core.add(make_sequence(request, recorder, max_model_len=512))
        return recorder

    def step(self, num_steps: int = 1) -> None:
        """Run steps."""
        for _ in range(num_steps):
            self.core.step()
            for on_output, output in self.core.take_outputs()[0]:
                on_output(output)

    def end_one(self, key: str) -> None:
        """Abort the oldest answer of a key that runs."""
        scheduler = self.core.scheduler
        self.core.abort(
            next(
                sequence.request.request_id
                for sequence in scheduler.rows
                if sequence.request.fairness_key == key
            )
        )

    def held(self) -> dict[str, int]:
        """Slots by key, counted from what runs."""
        held: dict[str, int] = {}
        for sequence in self.core.scheduler.running():
            key = sequence.request.fairness_key
            held[key] = held.get(key, 0) + 1
        return held


def _visit(slots: Slots, key: str) -> None:
    """Let a key ask for something small and have it."""
    slots.add(key, max_tokens=1)
    slots.step()
    assert key not in slots.held()


def _flood(slots: Slots, *keys: str) -> None:
    for _ in range(2 * slots.num_slots):
        for key in keys:
            slots.add(key)
    slots.step(2)


def test_a_key_alone_fills_every_slot() -> None:
    """Nobody else was here, or long ago."""
    slots = Slots(4)
    _visit(slots, "other")
    slots.clock.now_s += LATELY_S + 1
    _flood(slots, "loud")
    assert slots.held() == {"loud": 4}


def test_a_key_that_was_here_finds_a_slot_beside_endless_answers() -> None:
    """At once, each time it comes."""
    slots = Slots(4)
    _visit(slots, "quiet")
    _flood(slots, "loud")
    assert slots.held() == {"loud": 3}
    for _ in range(3):
        slots.clock.now_s += LATELY_S - 1
        answer = slots.add("quiet", max_tokens=2)
        slots.step()
        assert answer.token_ids
        slots.step(3)
        assert slots.held() == {"loud": 3}
    slots.clock.now_s += LATELY_S + 1
    slots.step()
    assert slots.held() == {"loud": 4}


def test_keys_that_fill_the_slots_together_leave_one_too() -> None:
    """A second key does not help."""
    slots = Slots(6)
    _visit(slots, "quiet")
    _flood(slots, "loud", "shrill")
    assert sum(slots.held().values()) == 5
    answer = slots.add("quiet")
    slots.step()
    assert answer.token_ids


def test_a_key_that_comes_to_full_slots_has_the_next() -> None:
    """And those after it, until both hold half and take turns."""
    slots = Slots(4)
    _flood(slots, "loud")
    for _ in range(3):
        slots.add("late")
    held = []
    for _ in range(4):
        slots.end_one("loud")
        slots.step()
        held.append(slots.held())
    assert held == [{"loud": 3, "late": 1}] + 3 * [{"loud": 2, "late": 2}]


def test_a_key_is_not_turned_away_for_what_it_was_served_before() -> None:
    """Its long prompts count for its order, but a whole house of slots counts more."""
    slots = Slots(4)
    slots.add("loud", max_tokens=200)
    for _ in range(5):
        slots.add("quiet", length=500, max_tokens=1)
    slots.step(12)
    _flood(slots, "loud")
    slots.add("quiet", max_tokens=200)
    slots.step()
    assert slots.held() == {"loud": 3, "quiet": 1}


def test_one_slot_is_for_everybody_in_turn() -> None:
    """Half of it is all of it."""
    slots = Slots(1)
    _visit(slots, "quiet")
    _flood(slots, "loud")
    slots.add("quiet")
    assert slots.held() == {"loud": 1}
    slots.end_one("loud")
    slots.step()
    assert slots.held() == {"quiet": 1}


def test_a_prompt_that_overtakes_leaves_the_last_slot() -> None:
    """Short ones go past the first in line, but not past who waits behind it for its only slot."""
    slots = Slots(4, chunk=16)
    slots.add("loud")
    slots.step()
    slots.add("long", length=400)
    slots.step()
    slots.add("quiet", length=300)
    for _ in range(3):
        slots.add("shrill", length=5)
    slots.step(60)
    assert slots.held() == {"loud": 1, "long": 1, "shrill": 1, "quiet": 1}


ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 30),  # the step it comes in
        st.integers(1, 12),  # prompt length
        st.one_of(st.integers(1, 4), st.integers(1, 60)),  # max_tokens
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([0.0, 0.0, LATELY_S / 2, 2 * LATELY_S]),  # seconds that pass before
    ),
    min_size=1,
    max_size=24,
)


@settings(max_examples=100, deadline=None)
@given(arrivals=ARRIVALS, num_slots=st.integers(1, 6))
def test_one_slot_at_most_is_left_and_none_without_a_reason(
    arrivals: list[tuple[int, int, int, str, float]], num_slots: int
) -> None:
    """What stays free while somebody waits is one slot, and only if another key was here."""
    slots = Slots(num_slots)
    scheduler = slots.core.scheduler
    keys = set()
    for step in range(32):
        for start, length, max_tokens, key, wait_s in arrivals:
            if start == step:
                slots.clock.now_s += wait_s
                slots.add(key, length=length, max_tokens=max_tokens)
                keys.add(key)
        slots.step()
        assert scheduler._shares.held == slots.held()
        if len(scheduler.waiting):
            num_free = num_slots - scheduler.num_running
            assert num_free <= min(1, len(keys) - 1)
    while scheduler.has_work:
        slots.step()
    assert not scheduler._shares.held
    assert not scheduler._shares.large


@settings(max_examples=100, deadline=None)
@given(
    floods=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12), st.integers(1, 200))),
    pauses=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    num_slots=st.integers(2, 6),
)
def test_one_request_at_a_time_never_waits_for_another_key(
    floods: list[tuple[int, int, int]], pauses: list[int], num_slots: int
) -> None:
    """However much that one asks for."""
    slots = Slots(num_slots)
    _visit(slots, "quiet")
    step = 0

    def run_step() -> None:
        nonlocal step
        for start, length, max_tokens in floods:
            if start == step:
                slots.add("loud", length=length, max_tokens=max_tokens)
        slots.step()
        step += 1

    for pause in pauses:
        for _ in range(pause):
            run_step()
        answer = slots.add("quiet", max_tokens=3)
        run_step()
        assert answer.token_ids
        while not answer.outputs[-1].finish_reason:
            run_step()


def test_what_is_remembered_of_keys_is_bounded() -> None:
    """The oldest are forgotten first, and all of them in time."""
    clock = ManualClock()
    shares = SlotShares(4, clock.monotonic)
    for i in range(3000):
        shares.ask(str(i))
        clock.now_s += 0.01
    assert len(shares.absent()) == 1024
    assert "2999" in shares.absent()
    clock.now_s += LATELY_S + 1
    assert not shares.absent()
