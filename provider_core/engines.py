"""What every `Engine` does, whatever runs inside: refuse what cannot run, hand over what was made.

The core's own engine goes by this, and so may one that a plugin gives.
"""

import asyncio
from collections.abc import Callable, Container, Iterable

from provider_core.errors import ContextLengthExceeded, InvalidRequest
from provider_core.interfaces import RunnerInfo
from provider_core.types import EngineOutput, GenerationRequest

OnOutput = Callable[[EngineOutput], None]
"""Takes an output of one sequence, on the event loop."""

Delivery = tuple[OnOutput, EngineOutput]
"""An output, and who waits for it."""


def check_request(request: GenerationRequest, info: RunnerInfo, open_ids: Container[str]) -> None:
    """Refuse a sequence that the engine cannot run, before it is taken in.

    Args:
        request: The sequence.
        info: Of the engine.
        open_ids: Ids of the sequences that have not ended.

    Raises:
        ContextLengthExceeded: The prompt leaves no room for one token.
        InvalidRequest: The prompt is empty, or holds ids the model does not have.
        ValueError: The request id is in use.
    """
    prompt = request.prompt_token_ids
    if not prompt:
        raise InvalidRequest("the prompt has no tokens")
    if len(prompt) >= info.max_model_len:
        raise ContextLengthExceeded(
            f"the prompt has {len(prompt)} tokens and the model's limit is {info.max_model_len},"
            " the completion included"
        )
    if min(prompt) < 0 or max(prompt) >= info.vocab_size:
        raise InvalidRequest(f"a prompt token id is not in 0..{info.vocab_size - 1}")
    if request.request_id in open_ids:
        raise ValueError(f"request id {request.request_id!r} is in use")


def call_on_loop(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object
) -> None:
    """Have a loop call something, from an engine's own thread; in order."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:  # the loop was closed before us: nobody is left to hear it
        if not loop.is_closed():
            raise


def deliver(deliveries: Iterable[Delivery]) -> None:
    """Hand outputs over, on the loop, in order; what a callback raises is told to the loop."""
    for on_output, output in deliveries:
        try:
            on_output(output)
        except Exception as error:  # noqa: BLE001 - one consumer must not starve the others
            message = "an output callback of the engine failed"
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": message, "exception": error})
