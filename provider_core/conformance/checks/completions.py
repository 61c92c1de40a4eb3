"""`POST /completions`: text, whole and streamed."""

from provider_core.conformance.check import Group
from provider_core.conformance.probe import Probe, content_of
from provider_core.conformance.verdict import prefer, require

GROUP = Group("completions")


@GROUP.check("whole", "A whole text completion with its usage")
async def whole(probe: Probe) -> str:
    """Shape, finish reason and counts."""
    usage = (await probe.text(stream=False))["usage"]
    return f"{usage['prompt_tokens']} prompt and {usage['completion_tokens']} completion tokens"


@GROUP.check("stream", "A stream of text that ends with [DONE]")
async def stream(probe: Probe) -> str:
    """Every byte, by the rules of the strictest client."""
    said = await probe.stream_text()
    return f"{len(said.chunks)} chunks, [DONE]"


@GROUP.check("stream_usage", "Usage in a stream that asks for it")
async def stream_usage(probe: Probe) -> str:
    """One usage object, in a chunk of its own, equal to that of the whole answer."""
    said = await probe.stream_text()
    require(said.usage is not None, "no usage came, although include_usage asked for it")
    require(said.has_own_usage_chunk, "usage does not have a chunk with empty choices")
    usage = (await probe.text())["usage"]
    require(
        said.count("prompt_tokens") == usage["prompt_tokens"],
        "the stream and the whole answer count the prompt differently",
    )
    return f"{said.count('prompt_tokens')} + {said.count('completion_tokens')} tokens"


@GROUP.check("default_length", "Without max_tokens 16 tokens come")
async def default_length(probe: Probe) -> str:
    """OpenAI's default of this endpoint, which clients count on."""
    count = (await probe.text(max_tokens=None))["usage"]["completion_tokens"]
    prefer(count <= 16, f"{count} tokens came")
    return f"{count} tokens"


@GROUP.check("prompts", "Several prompts in one request")
async def prompts(probe: Probe) -> str:
    """A list of prompts, answered in order."""
    url = f"{probe.endpoint.base}/completions"
    body = probe.text_body("", max_tokens=4) | {"prompt": ["One, two,", "A, B,"]}
    reply = await probe.send("POST", url, json=body)
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    completion = reply.json()
    indexes = [choice["index"] for choice in completion["choices"]]
    require(sorted(indexes) == [0, 1], f"two prompts made choices {indexes}")
    return f"two choices, {content_of(completion)[:20]!r} the first"
