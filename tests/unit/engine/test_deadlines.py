"""Sequences whose deadline passes, wherever they are."""

from provider_core.errors import DeadlineExceeded
from provider_core.interfaces import Batch
from tests.unit.engine.core_bench import Bench


def test_an_expired_sequence_is_dropped_before_work_is_done_for_it() -> None:
    """Waiting, in prefill, or decoding; the ones with time left are not touched."""
    bench = Bench(max_num_seqs=2)
    bench.add("decoding", max_tokens=50, deadline_s=1010)
    bench.add("patient", max_tokens=50, deadline_s=1030)
    bench.add("waiting", deadline_s=1010)
    bench.step(3)
    calls = bench.runner.num_calls
    bench.clock.now_s = 1010.0
    bench.step()
    assert bench.runner.num_calls == calls + 1  # the decode of the one that is left
    for name in ("decoding", "waiting"):
        assert isinstance(bench.last(name).error, DeadlineExceeded)
    assert len(bench.ids("patient")) == 4
    bench.clock.now_s = 1030.0
    bench.step()
    assert isinstance(bench.last("patient").error, DeadlineExceeded)
    assert not bench.core.scheduler.has_work


def test_a_deadline_ends_a_prefill_between_chunks() -> None:
    """The rest of a long prompt is not computed."""
    bench = Bench()
    bench.add("a", *range(1, 60), deadline_s=1001)
    bench.step()
    bench.clock.now_s = 1001.0
    bench.step()
    assert isinstance(bench.last("a").error, DeadlineExceeded)
    assert bench.core.num_prompt_tokens == 16
    assert bench.core.num_settled_prompt_tokens == 59


def test_a_row_that_expires_while_a_prompt_is_computed_moves_nobody_under_it() -> None:
    """The prompt becomes the row whose slot it was computed in; the other ends a step later."""
    alone = Bench()
    alone.add("c", 7, 8, 9)
    alone.run()

    def pass_time(batch: Batch) -> None:
        if batch.phase == "prefill":
            bench.clock.now_s += 1

    bench = Bench(on_execute=pass_time)
    bench.add("a", max_tokens=50, deadline_s=1003)
    bench.add("b", 4, 5, 6, max_tokens=50)
    bench.step(2)
    bench.add("c", 7, 8, 9)
    bench.step()
    assert [sequence.slot for sequence in bench.core.scheduler.rows] == [0, 1, 2]
    bench.run()
    assert isinstance(bench.last("a").error, DeadlineExceeded)
    assert bench.ids("c") == alone.ids("c")


def test_a_first_token_that_comes_too_late_is_not_sent() -> None:
    """The prompt ends with its deadline, and its slot is free."""

    def pass_time(batch: Batch) -> None:
        bench.clock.now_s += len(batch.slots)

    bench = Bench(on_execute=pass_time)
    bench.add("a", deadline_s=1001)
    bench.step()
    assert isinstance(bench.last("a").error, DeadlineExceeded)
    assert bench.ids("a") == []
    assert bench.core.scheduler.num_running == 0
