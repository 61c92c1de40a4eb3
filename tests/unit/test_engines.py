"""What every engine does alike: what it refuses, and how it hands outputs over."""

import asyncio
from typing import Any

import pytest

from provider_core import ContextLengthExceeded, EngineOutput, InvalidRequest, RunnerInfo
from provider_core.engines import call_on_loop, check_request, deliver
from provider_core.types import GenerationRequest, SamplingParams

INFO = RunnerInfo(
    backend="x", backend_version="1", device="cpu", max_num_seqs=1, max_model_len=8, vocab_size=16
)


def check(*prompt_token_ids: int, open_ids: tuple[str, ...] = ()) -> None:
    """Offer a sequence of the id `a`."""
    request = GenerationRequest(
        request_id="a",
        prompt_token_ids=prompt_token_ids,
        sampling=SamplingParams(max_tokens=1),
    )
    check_request(request, INFO, open_ids)


def test_what_an_engine_can_run_is_taken() -> None:
    """Every id of the vocabulary, and as many as leave room for one token."""
    check(0, 15, open_ids=("b",))
    check(*range(7))


@pytest.mark.parametrize(
    ("prompt", "error", "says"),
    [
        ((), InvalidRequest, "the prompt has no tokens"),
        (range(8), ContextLengthExceeded, "the prompt has 8 tokens and the model's limit is 8,"),
        ((1, 16), InvalidRequest, r"a prompt token id is not in 0\.\.15"),
        ((-1, 1), InvalidRequest, r"a prompt token id is not in 0\.\.15"),
    ],
)
def test_what_no_engine_can_run_is_refused(prompt: Any, error: type[Exception], says: str) -> None:
    """With the limit, for the client who can keep to it."""
    with pytest.raises(error, match=says):
        check(*prompt)


def test_an_id_is_that_of_one_sequence() -> None:
    """Outputs would go to the wrong one; no client chooses it."""
    with pytest.raises(ValueError, match="request id 'a' is in use"):
        check(1, open_ids=("b", "a"))


async def test_outputs_come_in_order_and_whoever_fails_is_told_to_the_loop() -> None:
    """Nobody waits for another's mistake to be mended."""
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    taken: list[int] = []

    def take(output: EngineOutput) -> None:
        taken.extend(output.token_ids)

    def fail(output: EngineOutput) -> None:
        raise RuntimeError(f"of {output.token_ids}")

    outputs = [EngineOutput((token_id,)) for token_id in range(3)]
    deliver([(take, outputs[0]), (fail, outputs[1]), (take, outputs[2])])

    assert taken == [0, 2]
    assert [str(report["exception"]) for report in reports] == ["of (1,)"]


def test_a_loop_that_was_closed_hears_nothing() -> None:
    """The engine's thread ends later than its server, and in peace."""
    loop = asyncio.new_event_loop()
    calls: list[int] = []
    call_on_loop(loop, calls.append, 1)
    call_on_loop(loop, calls.append, 2)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    call_on_loop(loop, calls.append, 3)

    assert calls == [1, 2]


def test_what_else_a_loop_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not lost."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no")

    loop = asyncio.new_event_loop()
    monkeypatch.setattr(loop, "call_soon_threadsafe", refuse)
    with pytest.raises(RuntimeError, match="no"):
        call_on_loop(loop, print)
    loop.close()
