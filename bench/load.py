"""One streamed chat with the server of a benchmark."""

from provider_core.loadtest.exchange import Client
from provider_core.loadtest.replies import Reply
from provider_core.loadtest.target import Sampling, make_target
from provider_core.loadtest.workload import Request

TIMEOUT_S = 600.0


async def stream_chat(host: str, port: int, key: str, body: dict[str, object]) -> Reply:
    """Send one streamed chat request and read it to its end.

    Raises:
        RuntimeError: The answer is not a complete stream.
    """
    target = make_target(
        f"http://{host}:{port}/v1/chat/completions",
        label="server",
        key=key,
        sampling=Sampling(ignore_eos=False, extra=body),
    )
    client = Client(target, timeout_s=TIMEOUT_S)
    reply = await client.stream(target.post(Request(prompt="", max_tokens=1)))
    if reply.error is not None or not reply.arrivals_s:
        raise RuntimeError(f"no answer: {reply.error} {reply.detail}")
    return reply
