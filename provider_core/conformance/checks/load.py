"""Many requests at a time: all answered, how quickly, and as well as one alone."""

import asyncio

from provider_core.conformance.check import Group
from provider_core.conformance.probe import Probe
from provider_core.conformance.verdict import prefer, require
from provider_core.loadtest.exchange import Client
from provider_core.loadtest.summary import Summary, summarise
from provider_core.loadtest.target import Sampling, make_target
from provider_core.loadtest.workload import Request

GROUP = Group("load")

_MAX_TOKENS = 64
_ROUNDS = 3


async def _measure(probe: Probe, num_parallel: int, rounds: int) -> Summary:
    """Streamed chats, `num_parallel` at a time, each with a prompt of its own."""
    endpoint = probe.endpoint
    target = make_target(
        endpoint.root,
        label="provider",
        path=_path(endpoint.base) + "/chat/completions",
        key=endpoint.key,
        model=probe.subject.model,
        sampling=Sampling(ignore_eos=False),
    )
    client = Client(target, timeout_s=probe.plan.timeout_s)
    replies = []
    for number in range(rounds):
        texts = [
            f"Story {number * num_parallel + i}: tell me of a fox." for i in range(num_parallel)
        ]
        requests = [Request(prompt=text, max_tokens=_MAX_TOKENS) for text in texts]
        messages = [target.post(request) for request in requests]
        replies += await asyncio.gather(*(client.stream(message) for message in messages))
    return summarise(replies)


def _path(base: str) -> str:
    return "/" + base.split("://", 1)[1].partition("/")[2]


def _described(summary: Summary) -> str:
    return (
        f"{summary.num_ok} answers, TTFT p95 {summary.ttft.p95:.3f} s, "
        f"whole p95 {summary.e2e.p95:.2f} s, {summary.output_tokens_per_s:.0f} tokens/s"
    )


@GROUP.check("alone", "Latency and speed of one request at a time")
async def alone(probe: Probe) -> str:
    """Time to the first token, whole latency, tokens per second."""
    await probe.chat(max_tokens=2)
    summary = await _measure(probe, 1, _ROUNDS)
    require(not summary.errors, f"failed: {summary.error_details}")
    return (
        f"mean {summary.e2e.mean:.2f} s and p95 {summary.e2e.p95:.2f} s for a whole answer, "
        f"TTFT {summary.ttft.p50:.3f} s, {summary.output_tokens_per_s:.0f} tokens/s"
    )


@GROUP.check("parallel", "Several requests at a time, all answered")
async def parallel(probe: Probe) -> str:
    """As many as the command line says; a 429 is a limit, any other failure a fault."""
    await probe.chat(max_tokens=2)
    summary = await _measure(probe, probe.plan.num_parallel, _ROUNDS)
    errors = dict(summary.errors)
    refused = errors.pop("http_429", 0)
    require(not errors, f"failed: {summary.error_details}")
    prefer(not refused, f"{refused} of {summary.num_requests} refused with 429")
    return f"{probe.plan.num_parallel} at a time: {_described(summary)}"


@GROUP.check("quality", "Answers under load are those of a request alone")
async def quality(probe: Probe) -> str:
    """Greedy answers to one prompt, all at once; a batch may differ by rounding."""
    texts = await asyncio.gather(
        *(probe.stream_chat("Tell me of a fox.") for _ in range(probe.plan.num_parallel))
    )
    alone_text = (await probe.stream_chat("Tell me of a fox.")).text
    num_same = sum(said.text == alone_text for said in texts)
    prefer(num_same == len(texts), f"{num_same} of {len(texts)} are the text of a request alone")
    return f"{num_same} of {len(texts)} the same text"
