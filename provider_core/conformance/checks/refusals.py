"""What must be refused, with which status, and in which form."""

import asyncio
from typing import Any

import aiohttp

from provider_core.conformance.check import Group
from provider_core.conformance.exchange import Reply
from provider_core.conformance.probe import Probe
from provider_core.conformance.verdict import Doubtful, NotApplicable, prefer, require
from provider_core.conformance.wire_rules import check_error

GROUP = Group("errors")

_TOO_LARGE_BYTES = 24 * 2**20
_OUT_OF_RANGE: dict[str, Any] = {  # JSON of requests
    "temperature": 2.1,
    "top_p": 1.5,
    "max_tokens": -1,
    "frequency_penalty": 3,
    "presence_penalty": -3,
    "n": 0,
}
_WRONG_TYPE: dict[str, Any] = {
    "temperature": "hot",
    "max_tokens": "many",
    "stream": "yes",
    "stop": 5,
}


def _error(probe: Probe, reply: Reply, *statuses: int) -> dict[str, Any]:
    return check_error(reply, *statuses, integer_code=probe.endpoint.is_openrouter)


async def _both_ways(probe: Probe, *statuses: int, **fields: Any) -> dict[str, Any]:
    """Refused alike with and without `stream`: an error before the first byte has its status."""
    error = _error(probe, await probe.ask(**fields), *statuses)
    streamed = await probe.ask(**{"stream": True, **fields})
    _error(probe, streamed, *statuses)
    return error


@GROUP.check("bad_key", "A wrong key is a 401")
async def bad_key(probe: Probe) -> str:
    """Whole and streamed."""
    if probe.endpoint.key is None:
        raise NotApplicable("no --key was given")
    url = f"{probe.endpoint.base}/chat/completions"
    for stream in (False, True):
        body = probe.chat_body("Hello!", stream=stream)
        reply = await probe.send("POST", url, json=body, key="sk-not-a-key-of-anybody")
        error = _error(probe, reply, 401)
    return f"401 {error.get('code')}"


@GROUP.check("no_key", "No key is a 401")
async def no_key(probe: Probe) -> str:
    """The header is missing."""
    if probe.endpoint.key is None:
        raise NotApplicable("no --key was given")
    url = f"{probe.endpoint.base}/chat/completions"
    reply = await probe.send("POST", url, json=probe.chat_body("Hello!"), key_header=None)
    return f"401 {_error(probe, reply, 401).get('code')}"


@GROUP.check("unknown_model", "An unknown model is a 404")
async def unknown_model(probe: Probe) -> str:
    """OpenRouter's own variant says 400."""
    statuses = (400, 404) if probe.endpoint.is_openrouter else (404,)
    error = await _both_ways(probe, *statuses, model="no-such-model-here")
    return f"{statuses[-1]} {error.get('code')}"


@GROUP.check("malformed", "Malformed JSON is a 400")
async def malformed(probe: Probe) -> str:
    """Cut off, empty, and not an object."""
    url = f"{probe.endpoint.base}/chat/completions"
    for body in (b'{"model": "x", "messages": [', b"", b"[]", b"\xff\xfe"):
        _error(probe, await probe.send("POST", url, body=body), 400)
    return "cut off, empty, no object, no UTF-8: 400 each"


@GROUP.check("out_of_range", "A value out of range is a 400 that names its field")
async def out_of_range(probe: Probe) -> str:
    """Each parameter whose range everybody knows."""
    for name, value in _OUT_OF_RANGE.items():
        error = await _both_ways(probe, 400, **{name: value})
        named = name in str(error.get("param")) or name in error["message"]
        metadata = error.get("metadata")
        require(named or name in str(metadata), f"the 400 for {name} = {value} does not name it")
    return f"{', '.join(_OUT_OF_RANGE)}: 400 each, naming the field"


@GROUP.check("wrong_type", "A value of the wrong type is a 400")
async def wrong_type(probe: Probe) -> str:
    """Never a 5xx, which clients would send again."""
    for name, value in _WRONG_TYPE.items():
        _error(probe, await probe.ask(**{name: value}), 400)
    for messages in ([], [{"role": "nobody", "content": "x"}], [{"role": "user"}]):
        _error(probe, await probe.ask(messages), 400)
    return "wrong types, no messages, an unknown role: 400 each"


@GROUP.check("context", "A prompt that does not fit is a 400")
async def context(probe: Probe) -> str:
    """Named so that clients know to shorten it."""
    length = probe.subject.context_length
    if length is None:
        raise NotApplicable("the model's context length is not listed")
    if length > 200_000:
        raise NotApplicable(f"a context of {length} tokens is not filled for a check")
    error = _error(probe, await probe.ask("word " * (length * 3), stream=True), 400)
    code = error.get("code")
    metadata = error.get("metadata") or {}
    is_named = "context_length_exceeded" in (code, metadata.get("error_type"))
    prefer(is_named, f"the code is {code!r}, not 'context_length_exceeded'")
    return f"400 {code}: {error['message'][:100]}"


@GROUP.check("too_large", "A body that is too large is a 413", slow=True)
async def too_large(probe: Probe) -> str:
    """24 MiB, which is more than any text that fits a context."""
    url = f"{probe.endpoint.base}/chat/completions"
    try:
        reply = await probe.send("POST", url, body=b'"' + b"x" * _TOO_LARGE_BYTES)
    except aiohttp.ClientError as error:
        raise Doubtful(f"the connection was closed without an answer: {error}") from error
    require(reply.status in {400, 413}, f"status {reply.status}: {reply.excerpt}")
    prefer(reply.status == 413, f"status {reply.status}, not 413")
    return "413"


@GROUP.check("paths", "Unknown paths and wrong methods are 404 and 405")
async def paths(probe: Probe) -> str:
    """In the same form as all errors."""
    integer_code = probe.endpoint.is_openrouter
    check_error(
        await probe.get(f"{probe.endpoint.base}/no/such/path"), 404, integer_code=integer_code
    )
    reply = await probe.get(f"{probe.endpoint.base}/chat/completions")
    check_error(reply, 404, 405, integer_code=integer_code)
    return f"404, and {reply.status} for a GET of /chat/completions"


@GROUP.check("alive", "After every refusal the endpoint still answers")
async def alive(probe: Probe) -> str:
    """The worst of bad requests are those that end the engine."""
    await probe.chat("Hello!", max_tokens=2)
    return "a plain request succeeds"


@GROUP.check("rate_limit", "A refused burst is a 429 that says when to come back", slow=True)
async def rate_limit(probe: Probe) -> str:
    """Many requests at once; not every provider can be brought to refuse."""
    url = f"{probe.endpoint.base}/chat/completions"
    body = probe.chat_body("Hello!", max_tokens=1)
    replies = await asyncio.gather(
        *(probe.send("POST", url, json=body, retry=False) for _ in range(probe.plan.num_burst))
    )
    others = {reply.status for reply in replies} - {200, 429}
    require(not others, f"status {sorted(others)} under a burst, where only 200 and 429 are right")
    if not probe.refusals:
        raise NotApplicable(
            f"{probe.plan.num_burst} requests at once were all answered: the limit is higher"
        )
    for reply in probe.refusals:
        error = _error(probe, reply, 429)
        require(error["message"], "a 429 has no message")
        wait = reply.headers.get("retry-after", "")
        require(wait.isdigit() and int(wait) >= 1, f"a 429 has Retry-After {wait!r}")
    num_ok = sum(reply.status == 200 for reply in replies)
    return f"{num_ok} of {len(replies)} answered, {len(replies) - num_ok} told 429 with Retry-After"
