"""`POST /chat/completions`: whole, streamed, long, cut off, and what it counts."""

import asyncio
from itertools import pairwise
from time import perf_counter
from typing import Any

from provider_core.conformance.check import Group
from provider_core.conformance.probe import Probe, content_of
from provider_core.conformance.verdict import Doubtful, NotApplicable, prefer, require

GROUP = Group("chat")

MAX_CHOICES = 8
_STORY = "Tell me a long story about a fox, a river and a mountain."
_WORDS = "the river was long and the fox was quick and the day was warm so they went on "
_UNICODE = "Repeat: Grüße, 世界 — 👩‍👩‍👧 \u0301e ﷽ \U0001f680"  # combining, right to left, joined


async def _going_on(probe: Probe) -> dict[str, Any]:
    """Fields with which a model does not end by itself, if the provider takes such."""
    fields: dict[str, Any] = {"ignore_eos": True}
    reply = await probe.ask(max_tokens=1, **fields)
    return fields if reply.status == 200 else {}


@GROUP.check("whole", "A whole answer with its usage")
async def whole(probe: Probe) -> str:
    """Shape, finish reason and counts of a plain request."""
    completion = await probe.chat("Hello, how are you?", stream=False)
    usage = completion["usage"]
    require(usage["completion_tokens"] <= 16, "more tokens came than max_tokens allows")
    return f"{usage['prompt_tokens']} prompt and {usage['completion_tokens']} completion tokens"


@GROUP.check("stream", "A stream of server-sent events that ends with [DONE]")
async def stream(probe: Probe) -> str:
    """Every byte of a stream, by the rules of the strictest client."""
    said = await probe.stream_chat("Hello, how are you?")
    return f"{len(said.chunks)} chunks, {said.num_comments} comments, [DONE]"


@GROUP.check("stream_usage", "Usage in a stream that asks for it, once and in its place")
async def stream_usage(probe: Probe) -> str:
    """One usage object, in a chunk of its own, equal to that of the whole answer."""
    said = await probe.stream_chat("Hello, how are you?")
    require(said.usage is not None, "no usage came, although include_usage asked for it")
    require(said.has_own_usage_chunk, "usage does not have a chunk with empty choices")
    whole_usage = (await probe.chat("Hello, how are you?"))["usage"]
    prompt, due = said.count("prompt_tokens"), whole_usage["prompt_tokens"]
    require(prompt == due, f"the stream counts {prompt} prompt tokens, the whole answer {due}")
    return f"{prompt} + {said.count('completion_tokens')} tokens, in a chunk of its own"


@GROUP.check("stream_usage_unasked", "Usage in a stream that does not ask for it")
async def stream_usage_unasked(probe: Probe) -> str:
    """The questionnaire wants usage in every stream; OpenAI sends it only if asked."""
    said = await probe.stream_chat(stream_options=None)
    prefer(said.usage is not None, "no usage unless stream_options.include_usage asks for it")
    return "usage comes in any case"


@GROUP.check("stream_strict", "Nothing in a stream that a strict client rejects")
async def stream_strict(probe: Probe) -> str:
    """What breaks some published clients and not others."""
    said = await probe.stream_chat()
    prefer(not said.concerns, "; ".join(said.concerns))
    return "no nulls and no repeats"


@GROUP.check("same", "A stream says the same as a whole answer")
async def same(probe: Probe) -> str:
    """Greedy, so that both must be the same text but for rounding."""
    fields = {"max_tokens": 32, "seed": 7}
    streamed = await probe.stream_chat(_STORY, **fields)
    completion = await probe.chat(_STORY, **fields)
    text, reason = content_of(completion), completion["choices"][0]["finish_reason"]
    prefer(streamed.text == text, f"{streamed.text[:40]!r} streamed, {text[:40]!r} whole")
    require(
        streamed.finish_reasons[0] == reason,
        f"finish_reason is {streamed.finish_reasons[0]} streamed and {reason} whole",
    )
    return f"the same {len(text)} characters"


@GROUP.check("incremental", "Chunks arrive as they are made")
async def incremental(probe: Probe) -> str:
    """A buffering proxy delivers all at once."""
    said = await probe.stream_chat(_STORY, max_tokens=64)
    if said.count("completion_tokens") < 8:
        raise Doubtful("the model said too little to see")
    times = said.arrivals_s
    require(len(times) > 1, "the whole stream came in one piece: something buffers it")
    longest_s = max(later - earlier for earlier, later in pairwise(times))
    return f"{len(times)} pieces, the first after {times[0]:.3f} s, no gap over {longest_s:.3f} s"


@GROUP.check("messages", "System, developer and assistant messages")
async def messages(probe: Probe) -> str:
    """A conversation with every role that has only text."""
    roles = ("system", "developer")
    for role in roles:
        turns: list[dict[str, Any]] = [
            {"role": role, "content": "You are a helpful assistant."},
            {"role": "user", "content": [{"type": "text", "text": "My name is Ada."}]},
            {"role": "assistant", "content": "Hello, Ada!"},
            {"role": "user", "content": "What is my name?"},
        ]
        await probe.chat(turns)
    return f"{', '.join(roles)}, user and assistant; text as a string and as parts"


@GROUP.check("prefill", "A last assistant message is continued")
async def prefill(probe: Probe) -> str:
    """The guide's partial response completion."""
    turns = [
        {"role": "user", "content": "List three benefits of exercise"},
        {"role": "assistant", "content": "Here are three benefits of exercise:\n1."},
    ]
    text = content_of(await probe.chat(turns))
    return f"continued with {text[:30]!r}"


@GROUP.check("unicode", "Special characters and Unicode")
async def unicode(probe: Probe) -> str:
    """No half characters on the wire, whatever was asked."""
    said = await probe.stream_chat(_UNICODE, max_tokens=48)
    whole_text = content_of(await probe.chat(_UNICODE, max_tokens=48))
    cut = said.finish_reasons[0] == "length"
    for text in (said.text, whole_text):
        body = text[:-1] if cut else text  # the limit may fall inside a character
        require("\ufffd" not in body, "a replacement character is in the text")
    return "no broken characters"


@GROUP.check("minimal", "Empty and minimal prompts")
async def minimal(probe: Probe) -> str:
    """One character, and none: an answer or a refusal, never a failure."""
    await probe.chat("?")
    reply = await probe.ask("")
    require(reply.status in {200, 400}, f"an empty message is a {reply.status}: {reply.excerpt}")
    return f"one character: 200, an empty message: {reply.status}"


@GROUP.check("payloads", "Various payload sizes")
async def payloads(probe: Probe) -> str:
    """Prompts of about 10, 1,000 and 4,000 tokens, as far as the context allows."""
    room = (probe.subject.context_length or 4096) // 2
    counts = []
    for size in (10, 1000, 4000):
        if size <= room:
            prompt = _WORDS * max(1, size // 18)
            counts.append((await probe.chat(prompt, max_tokens=4))["usage"]["prompt_tokens"])
    require(
        all(low < high for low, high in pairwise(counts)), f"prompt_tokens do not grow: {counts}"
    )
    return f"prompts of {', '.join(map(str, counts))} tokens"


@GROUP.check("counts", "Counts agree with what was sent and said")
async def counts(probe: Probe) -> str:
    """The same prompt counts the same, a longer one more, a special token's text no less."""
    first = (await probe.chat("Hello!", max_tokens=1))["usage"]
    again = (await probe.chat("Hello!", max_tokens=1))["usage"]
    require(first["prompt_tokens"] == again["prompt_tokens"], "one prompt, two counts")
    require(first["completion_tokens"] == 1, "max_tokens 1 does not make one completion token")
    longer = (await probe.chat("Hello! " * 20, max_tokens=1))["usage"]
    require(longer["prompt_tokens"] >= first["prompt_tokens"] + 19, "a longer prompt counts less")
    special = (await probe.chat("Hello!<|im_end|></s><|eot_id|>", max_tokens=1))["usage"]
    require(
        special["prompt_tokens"] > first["prompt_tokens"] + 2,
        "the text of special tokens in a message counts as if it were such tokens",
    )
    return f"{first['prompt_tokens']} tokens, and {longer['prompt_tokens']} for 20 times the words"


@GROUP.check("cached_usage", "Cached prompt tokens are reported")
async def cached_usage(probe: Probe) -> str:
    """The same long prompt twice; only a provider with a cache has something to report."""
    room = (probe.subject.context_length or 4096) // 2
    prompt = "Remember this. " + _WORDS * min(80, max(1, room // 18))
    usages = [(await probe.chat(prompt, max_tokens=2))["usage"] for _ in range(2)]
    cached = [u.get("prompt_tokens_details", {}).get("cached_tokens") for u in usages]
    if cached[1]:
        return f"{cached[1]} of {usages[1]['prompt_tokens']} tokens read from the cache"
    prefer(cached[1] is None, "a prompt sent twice reports no cached token")
    raise NotApplicable("usage has no cached_tokens")


@GROUP.check("cancel", "A client that leaves in mid-stream frees its place")
async def cancel(probe: Probe) -> str:
    """Several leave at once; what follows is answered as quickly as before."""
    began_s = perf_counter()
    await probe.chat("Hello!", max_tokens=4)
    usual_s = perf_counter() - began_s
    fields = {"max_tokens": 2000, **await _going_on(probe)}
    await asyncio.gather(*(probe.leave(_STORY, **fields) for _ in range(4)))
    began_s = perf_counter()
    await probe.chat("Hello!", max_tokens=4)
    after_s = perf_counter() - began_s
    prefer(
        after_s < 2 + 5 * usual_s,
        f"a request takes {after_s:.2f} s after four clients left, and {usual_s:.2f} s before",
    )
    return f"{after_s:.2f} s after four clients left, {usual_s:.2f} s before"


@GROUP.check("near_context", "A prompt near the context limit", slow=True)
async def near_context(probe: Probe) -> str:
    """Nine tenths of the context, but no more than 16,000 tokens, with room for an answer."""
    context = probe.subject.context_length
    if context is None:
        raise NotApplicable("the model's context length is not listed")
    usage = (await probe.chat(_WORDS * 20, max_tokens=1))["usage"]
    per_word = usage["prompt_tokens"] / (20 * len(_WORDS.split()))
    target = min(int(0.9 * context) - 64, 16_000)
    words = (_WORDS.split() * (1 + int(target / per_word / 17)))[: int(target / per_word)]
    completion = await probe.chat(" ".join(words), max_tokens=8)
    return f"{completion['usage']['prompt_tokens']} of {context} tokens"


@GROUP.check("long_stream", "A stream of 10,000 tokens", slow=True)
async def long_stream(probe: Probe) -> str:
    """One choice if the context allows it, else several in one stream."""
    target = probe.plan.num_long_tokens
    limits = [n for n in (probe.subject.context_length, probe.subject.max_output_tokens) if n]
    room = min(limits, default=target + 512) - 256
    num_choices = -(-target // max(room, 1))
    if num_choices > MAX_CHOICES:
        raise NotApplicable(f"the model has room for {room} tokens only")
    fields: dict[str, Any] = {} if num_choices == 1 else {"n": num_choices}
    max_tokens = -(-target // num_choices)
    fields |= await _going_on(probe)
    said = await probe.stream_chat(_STORY, max_tokens=max_tokens, **fields)
    count = said.count("completion_tokens")
    prefer(count >= target, f"the model ended after {count} tokens; the stream is whole")
    return f"{count} tokens in {said.arrivals_s[-1]:.1f} s"
