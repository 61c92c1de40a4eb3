"""Who comes next."""

from hypothesis import given
from hypothesis import strategies as st

from provider_core.engine.sequence import Sequence
from provider_core.engine.waiting_queue import OVERTAKING_TOKENS, WaitingQueue
from tests.unit.engine.sequences import new_sequence


def _drain(queue: WaitingQueue, cost: int = 0) -> str:
    """Take turns until nobody waits; each costs its key so many tokens."""
    names = ""
    while (sequence := queue.first()) is not None:
        queue.take_turn(sequence)
        queue.charge(sequence, cost or sequence.num_prompt_tokens)
        names += sequence.request.request_id
    return names


def _fill(queue: WaitingQueue, names: str, *, key: str = "", length: int = 3) -> list[Sequence]:
    sequences = [new_sequence(name, key=key, length=length) for name in names]
    for sequence in sequences:
        queue.append(sequence)
    return sequences


def test_one_key_is_served_in_order() -> None:
    """First come, first served."""
    queue = WaitingQueue()
    _fill(queue, "abcd")
    assert (len(queue), _drain(queue), len(queue)) == (4, "abcd", 0)


def test_keys_with_equal_work_take_turns() -> None:
    """Who sends ten at once does not hold up who sends one."""
    queue = WaitingQueue()
    _fill(queue, "aeiou", key="loud")
    _fill(queue, "xy", key="quiet")
    assert _drain(queue) == "axeyiou"


def test_long_prompts_do_not_get_more_than_their_share() -> None:
    """One of 400 tokens is worth four of 100."""
    queue = WaitingQueue()
    _fill(queue, "AB", key="long", length=400)
    _fill(queue, "abcdefgh", key="short", length=100)
    assert _drain(queue) == "AabcdBefgh"


def test_generated_tokens_count() -> None:
    """Who generates much has had its share."""
    queue = WaitingQueue()
    first, *_ = _fill(queue, "abc", key="talkative")
    _fill(queue, "xyz", key="brief")
    queue.take_turn(first)
    queue.charge(first, 3 + 2 * 100)
    assert _drain(queue) == "xyzbc"


def test_idleness_earns_no_credit() -> None:
    """A key that comes late shares from now on, and does not catch up on what it never asked."""
    queue = WaitingQueue()
    early = _fill(queue, "abcdefgh", key="early", length=100)
    for sequence in early[:4]:
        queue.take_turn(sequence)
        queue.charge(sequence, 100)
    _fill(queue, "wxyz", key="late", length=100)
    assert _drain(queue) == "wexfygzh"


def test_leaving_and_returning_clears_nothing() -> None:
    """A key that empties its line keeps its count."""
    queue = WaitingQueue()
    [greedy] = _fill(queue, "a", key="greedy")
    _fill(queue, "xy", key="other")
    queue.take_turn(greedy)
    queue.charge(greedy, 1000)
    _fill(queue, "b", key="greedy")
    assert _drain(queue) == "xyb"


def test_when_all_is_done_the_past_is_forgotten() -> None:
    """Fairness is between those that compete."""
    queue = WaitingQueue()
    [greedy] = _fill(queue, "a", key="greedy")
    queue.take_turn(greedy)
    queue.charge(greedy, 1000)
    queue.forget()
    _fill(queue, "b", key="greedy")
    _fill(queue, "x", key="other")
    assert _drain(queue) == "bx"


def test_discarding_takes_one_out_and_keeps_the_order() -> None:
    """And says whether it was there."""
    queue = WaitingQueue()
    sequences = _fill(queue, "abc")
    assert queue.discard(sequences[1])
    assert not queue.discard(sequences[1])
    assert len(queue) == 2
    assert _drain(queue) == "ac"


def test_the_shortest_is_found_up_to_a_length() -> None:
    """The older of two that are equal; none if all are longer."""
    queue = WaitingQueue()
    _fill(queue, "a", length=50)
    [b, _] = _fill(queue, "bc", length=20, key="other")
    assert queue.shortest(50) is b
    assert queue.shortest(20) is b
    assert queue.shortest(19) is None


def test_overtaking_has_a_limit_between_keys() -> None:
    """A stream of short prompts does not take all from a key whose prompts are long."""
    queue = WaitingQueue()
    _fill(queue, "L", key="long", length=5000)
    [short, _] = _fill(queue, "ab", key="short", length=10)
    queue.charge(short, OVERTAKING_TOKENS)
    assert queue.shortest(2500) is short
    queue.charge(short, 1)
    assert queue.shortest(2500) is None


def test_a_key_with_many_slots_goes_behind_others_within_a_limit() -> None:
    """Before whom was served far more, and past whom was served no less."""
    queue = WaitingQueue()
    [large] = _fill(queue, "l", key="large", length=10)
    [other] = _fill(queue, "o", key="other", length=50)
    assert queue.first() is queue.first(barred={"other"}) is large
    assert queue.first(large={"large"}) is other
    assert queue.shortest(20, large={"large"}) is large
    assert queue.shortest(20, large={"large"}, barred={"large"}) is None
    queue.charge(other, OVERTAKING_TOKENS)
    assert queue.first(large={"large"}) is large
    queue.charge(large, 1)
    assert queue.first(large={"large"}) is other
    assert queue.first(barred={"large", "other"}) is None


def test_a_key_with_many_slots_overtakes_nobody_who_was_served_less() -> None:
    """Short as its prompts are."""
    queue = WaitingQueue()
    [large] = _fill(queue, "l", key="large", length=10)
    _fill(queue, "o", key="other", length=50)
    queue.charge(large, 1)
    assert queue.shortest(20) is large
    assert queue.shortest(20, large={"large"}) is None


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 500)), min_size=2, max_size=60))
def test_keys_that_wait_stay_within_one_request_of_each_other(
    arrivals: list[tuple[str, int]],
) -> None:
    """As long as two keys have work, their shares differ by the largest piece of it at most."""
    queue = WaitingQueue()
    for i, (key, length) in enumerate(arrivals):
        queue.append(new_sequence(str(i), key=key, length=length))
    left = {key: sum(1 for k, _ in arrivals if k == key) for key, _ in arrivals}
    served = dict.fromkeys(left, 0)
    largest = max(length for _, length in arrivals)
    while (sequence := queue.first()) is not None:
        key = sequence.request.fairness_key
        queue.take_turn(sequence)
        queue.charge(sequence, sequence.num_prompt_tokens)
        waiting = [served[key] for key, number in left.items() if number]
        assert served[key] == min(waiting)
        served[key] += sequence.num_prompt_tokens
        left[key] -= 1
        backlogged = [served[key] for key, number in left.items() if number]
        if backlogged:
            assert max(backlogged) - min(backlogged) <= largest


def test_counters_of_many_keys_do_not_pile_up() -> None:
    """A key behind the others is as good as unknown."""
    queue = WaitingQueue()
    for i in range(5000):
        sequence = new_sequence("a", key=f"key-{i}")
        queue.append(sequence)
        queue.take_turn(sequence)
        queue.charge(sequence, 10)
    assert len(queue._served) < 2100


def test_a_stream_of_unknown_keys_does_not_starve_one_that_was_served_much() -> None:
    """And their counters do not pile up meanwhile."""
    queue = WaitingQueue()
    [heavy] = _fill(queue, "h", key="heavy")
    queue.take_turn(heavy)
    names = iter(range(100_000))
    for _ in range(8):
        queue.append(new_sequence("new", key=f"key-{next(names)}", length=500))
    queue.charge(heavy, 1_000_000)
    queue.append(heavy)
    num_turns = 0
    while (sequence := queue.first()) is not heavy:
        assert sequence is not None
        queue.take_turn(sequence)
        queue.charge(sequence, 500)
        queue.append(new_sequence("new", key=f"key-{next(names)}", length=500))
        num_turns += 1
        assert num_turns <= 10 * OVERTAKING_TOKENS / 500 + 10
    assert num_turns > 8  # it has had its share, though
    for _ in range(5000):
        sequence = queue.first()
        assert sequence is not None
        queue.take_turn(sequence)
        queue.charge(sequence, 500)
        queue.append(new_sequence("new", key=f"key-{next(names)}", length=500))
    assert len(queue._served) < 2100
