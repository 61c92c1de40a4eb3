"""Each parameter alone and all together: that it is taken, and that it has its effect."""

import math
from typing import Any

from provider_core.conformance.check import Group
from provider_core.conformance.probe import Probe, content_of
from provider_core.conformance.verdict import Failed, NotApplicable, prefer, require
from provider_core.conformance.wire_rules import check_completion

GROUP = Group("parameters")

_STORY = "Tell me a story about a fox."
_PROMPT = {"max_tokens": 24}
_BIASED_ID = 300  # in every vocabulary, and no special token of any that is known


async def _optional(probe: Probe, name: str, **fields: Any) -> dict[str, Any]:  # of the body
    """Ask with a parameter that a provider may lack, if it says so with a 400.

    Raises:
        NotApplicable: It is refused, and not listed.
        Failed: It is refused although listed, or the answer is wrong.
    """
    reply = await probe.ask(_STORY, **{**_PROMPT, **fields})
    if reply.status == 400:
        if probe.subject.declares(name):
            raise Failed(f"it is listed as supported, and refused: {reply.excerpt}")
        raise NotApplicable(f"refused with a 400, and not listed: {reply.excerpt}")
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    completion: dict[str, Any] = reply.json()
    check_completion(completion, kind="chat", num_choices=fields.get("n", 1))
    return completion


async def _greedy(probe: Probe) -> str:
    return content_of(await probe.chat(_STORY, **_PROMPT))


@GROUP.check("max_tokens", "max_tokens limits the answer, finish_reason says so")
async def max_tokens(probe: Probe) -> str:
    """Both names of the limit."""
    for name in ("max_tokens", "max_completion_tokens"):
        fields: dict[str, Any] = {"max_tokens": None, name: 3}
        completion = await probe.chat(_STORY, **fields)
        count = completion["usage"]["completion_tokens"]
        reason = completion["choices"][0]["finish_reason"]
        require(count <= 3, f"{name} 3 made {count} tokens")
        require(count < 3 or reason == "length", f"{name} 3 ended with {reason!r}, not 'length'")
    return "3 tokens, finish_reason length"


@GROUP.check("max_tokens_default", "Without max_tokens answers are not cut short")
async def max_tokens_default(probe: Probe) -> str:
    """A small hidden default would end this one."""
    completion = await probe.chat(
        _STORY + " Make it as long as you can.", max_tokens=None, temperature=0
    )
    count = completion["usage"]["completion_tokens"]
    reason = completion["choices"][0]["finish_reason"]
    context = probe.subject.context_length or 0
    total = completion["usage"]["total_tokens"]
    longest = min(probe.subject.max_output_tokens or math.inf, context or math.inf)
    prefer(
        reason != "length" or count >= longest or total >= context - 1,
        f"the answer was cut after {count} tokens",
    )
    return f"{count} tokens, finish_reason {reason}"


@GROUP.check("temperature", "temperature 0 repeats itself, and 2 is taken")
async def temperature(probe: Probe) -> str:
    """Greedy answers are the same but for rounding."""
    first, second = await _greedy(probe), await _greedy(probe)
    await probe.chat(_STORY, temperature=2, **_PROMPT)
    prefer(first == second, f"{first[:40]!r} and then {second[:40]!r} at temperature 0")
    return "two answers at temperature 0 are the same"


@GROUP.check("top_p", "top_p of almost nothing leaves the likeliest token")
async def top_p(probe: Probe) -> str:
    """At a high temperature, so that without effect it would wander."""
    said = content_of(await probe.chat(_STORY, temperature=1.5, top_p=1e-6, **_PROMPT))
    prefer(said == await _greedy(probe), "top_p 0.000001 is not the greedy text")
    return "equal to the greedy text"


@GROUP.check("stop", "stop ends the text, and is not in it")
async def stop(probe: Probe) -> str:
    """A word of the greedy text, as a string and in a list; the stream holds nothing of it."""
    words = (await _greedy(probe)).split()
    if len(words) < 3:
        raise NotApplicable("the model says too little to stop it")
    word = words[2]
    for value in (word, [word, "no such words"]):
        completion = await probe.chat(_STORY, stop=value, **_PROMPT)
        text, reason = content_of(completion), completion["choices"][0]["finish_reason"]
        require(word not in text, f"the stop string {word!r} is in {text!r}")
        require(reason == "stop", f"finish_reason is {reason!r} at a stop string")
    streamed = await probe.stream_chat(_STORY, stop=word, **_PROMPT)
    require(word not in streamed.text, f"the stop string {word!r} is in the stream")
    return f"ended before {word!r}"


@GROUP.check("seed", "seed repeats the text")
async def seed(probe: Probe) -> str:
    """At temperature 1, twice the same seed."""
    fields = {"temperature": 1, "seed": 42, **_PROMPT}
    first, second = [content_of(await probe.chat(_STORY, **fields)) for _ in range(2)]
    prefer(first == second, f"{first[:40]!r} and then {second[:40]!r} with one seed")
    return "two answers with one seed are the same"


@GROUP.check("n", "n choices, whole and streamed, or a 400")
async def several(probe: Probe) -> str:
    """Never silently one."""
    await _optional(probe, "n", n=2, temperature=1)
    streamed = await probe.stream_chat(_STORY, n=2, temperature=1, **_PROMPT)
    return f"{len(streamed.finish_reasons)} choices, summed usage"


@GROUP.check("top_k", "top_k 1 leaves the likeliest token")
async def top_k(probe: Probe) -> str:
    """At a high temperature."""
    said = content_of(await _optional(probe, "top_k", top_k=1, temperature=1.5))
    prefer(said == await _greedy(probe), "top_k 1 is not the greedy text")
    return "equal to the greedy text"


@GROUP.check("min_p", "min_p 1 leaves the likeliest token")
async def min_p(probe: Probe) -> str:
    """At a high temperature."""
    said = content_of(await _optional(probe, "min_p", min_p=1, temperature=1.5))
    prefer(said == await _greedy(probe), "min_p 1 is not the greedy text")
    return "equal to the greedy text"


@GROUP.check("top_a", "top_a 1 is taken")
async def top_a(probe: Probe) -> str:
    """Its effect depends on the model's certainty and cannot be seen from outside."""
    await _optional(probe, "top_a", top_a=1)
    return "taken"


@GROUP.check("frequency_penalty", "frequency_penalty over its range")
async def frequency_penalty(probe: Probe) -> str:
    """Both ends."""
    for value in (-2, 2):
        await _optional(probe, "frequency_penalty", frequency_penalty=value)
    return "-2 and 2 are taken"


@GROUP.check("presence_penalty", "presence_penalty over its range")
async def presence_penalty(probe: Probe) -> str:
    """Both ends."""
    for value in (-2, 2):
        await _optional(probe, "presence_penalty", presence_penalty=value)
    return "-2 and 2 are taken"


@GROUP.check("repetition_penalty", "repetition_penalty is taken")
async def repetition_penalty(probe: Probe) -> str:
    """1 changes nothing, by definition."""
    neutral = content_of(await _optional(probe, "repetition_penalty", repetition_penalty=1))
    prefer(neutral == await _greedy(probe), "repetition_penalty 1 changes the greedy text")
    await _optional(probe, "repetition_penalty", repetition_penalty=1.5)
    return "1 changes nothing, 1.5 is taken"


@GROUP.check("logit_bias", "logit_bias forces a token")
async def logit_bias(probe: Probe) -> str:
    """One id with +100 is all that is said."""
    bias = {str(_BIASED_ID): 100}
    said = content_of(await _optional(probe, "logit_bias", logit_bias=bias, max_tokens=4))
    prefer(said != (await _greedy(probe))[: len(said)], "a bias of 100 changes nothing")
    return f"token {_BIASED_ID} four times: {said!r}"


@GROUP.check("logprobs", "logprobs and top_logprobs of every token")
async def logprobs(probe: Probe) -> str:
    """Probabilities that are some, tokens that make up the text."""
    completion = await _optional(probe, "logprobs", logprobs=True, top_logprobs=5)
    choice = completion["choices"][0]
    entries: list[dict[str, Any]] = (choice["logprobs"] or {}).get("content") or []
    require(entries, "logprobs.content is empty")
    for entry in entries:
        require(entry["logprob"] <= 1e-6, f"a logprob is {entry['logprob']}")
        top = entry["top_logprobs"]
        require(0 < len(top) <= 5, f"{len(top)} alternatives came, of 5")
        total = sum(math.exp(alternative["logprob"]) for alternative in top)
        require(total <= 1 + 1e-3, f"the alternatives' probabilities add up to {total:.3f}")
    said = b"".join(bytes(entry["bytes"] or entry["token"].encode()) for entry in entries)
    require(
        content_of(completion).encode().strip() in said or len(entries) == 1,
        "the tokens of logprobs do not make up the text",
    )
    return f"{len(entries)} tokens with up to 5 alternatives, their probabilities at most 1"


@GROUP.check("combined", "All parameters together")
async def combined(probe: Probe) -> str:
    """Those that everybody must have, streamed and whole."""
    fields: dict[str, Any] = {
        "temperature": 0.7,
        "top_p": 0.9,
        "stop": ["\n\n\n"],
        "seed": 1,
        "max_tokens": 12,
    }
    if declared := probe.subject.parameters:
        extra = {"top_k": 40, "min_p": 0.01, "frequency_penalty": 0.1, "presence_penalty": 0.1}
        fields |= {name: value for name, value in extra.items() if name in declared}
    whole = content_of(await probe.chat(_STORY, **fields))
    streamed = (await probe.stream_chat(_STORY, **fields)).text
    prefer(whole == streamed, "the same seed says something else when streamed")
    return f"{', '.join(sorted(fields))}"


@GROUP.check("unknown", "Unknown fields are ignored")
async def unknown(probe: Probe) -> str:
    """Marketplaces add fields that a provider has never heard of."""
    await probe.chat(
        provider={"order": ["together"]}, no_such_field={"a": 1}, user="somebody", metadata={}
    )
    return "provider, user, metadata and one that does not exist"
