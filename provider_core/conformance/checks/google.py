"""Google's form: `generateContent`, whole, streamed, counted and refused."""

from typing import Any

import orjson

from provider_core.conformance.check import Group
from provider_core.conformance.exchange import Reply
from provider_core.conformance.probe import Probe
from provider_core.conformance.verdict import NotApplicable, require

GROUP = Group("google")

_KEY_HEADER = ("x-goog-api-key", "")
_CONTENTS = [{"role": "user", "parts": [{"text": "Hello!"}]}]


async def _post(probe: Probe, verb: str, model: str | None = None, **fields: Any) -> Reply:
    """Ask.

    Raises:
        NotApplicable: The path is unknown, or guarded by other headers than Google's.
    """
    url = f"{probe.endpoint.root}/v1beta/models/{model or probe.subject.model}:{verb}"
    body = {"contents": _CONTENTS, **fields}
    reply = await probe.send("POST", url, json=body, key_header=_KEY_HEADER)
    if reply.status in {401, 403, 404, 405} and b'"status"' not in reply.body:
        raise NotApplicable(f"there is no generateContent: {reply.status}")
    return reply


def _check_answer(answer: Any) -> None:  # any server's JSON
    usage = answer["usageMetadata"]
    for name in ("promptTokenCount", "totalTokenCount"):
        require(type(usage[name]) is int, f"usageMetadata.{name} is {usage[name]!r}")
    reason = answer["candidates"][0]["finishReason"]
    require(reason in {"STOP", "MAX_TOKENS"}, f"finishReason is {reason!r}")


@GROUP.check("whole", "generateContent")
async def whole(probe: Probe) -> str:
    """Shape, finish reason and counts."""
    reply = await _post(probe, "generateContent", generationConfig={"maxOutputTokens": 16})
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    answer = reply.json()
    _check_answer(answer)
    return f"{answer['usageMetadata']['totalTokenCount']} tokens"


@GROUP.check("stream", "streamGenerateContent?alt=sse")
async def stream(probe: Probe) -> str:
    """Data events only: Google's Python client breaks on a comment and on [DONE]."""
    config = {"maxOutputTokens": 16}
    reply = await _post(probe, "streamGenerateContent?alt=sse", generationConfig=config)
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    lines = [line for line in reply.body.replace(b"\r\n", b"\n").split(b"\n") if line]
    require(all(line.startswith(b"data: ") for line in lines), "a line does not begin with data: ")
    require(b"[DONE]" not in reply.body, "[DONE] is none of Google's events")
    answers = [orjson.loads(line.removeprefix(b"data: ")) for line in lines]
    _check_answer(answers[-1])
    return f"{len(answers)} events"


@GROUP.check("count", "countTokens")
async def count(probe: Probe) -> str:
    """The same number as in the answer's usage."""
    reply = await _post(probe, "countTokens")
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    counted = reply.json()["totalTokens"]
    config = {"maxOutputTokens": 2}
    answer = (await _post(probe, "generateContent", generationConfig=config)).json()
    used = answer["usageMetadata"]["promptTokenCount"]
    require(counted == used, f"{counted} counted, {used} used")
    return f"{counted} tokens"


@GROUP.check("errors", "Refusals in Google's form")
async def errors(probe: Probe) -> str:
    """A value out of range, and an unknown model."""
    config = {"temperature": 9}
    bad = await _post(probe, "generateContent", generationConfig=config)
    unknown = await _post(probe, "generateContent", model="no-such-model-here")
    expected = ((bad, 400, "INVALID_ARGUMENT"), (unknown, 404, "NOT_FOUND"))
    for reply, status, name in expected:
        require(reply.status == status, f"status {reply.status}: {reply.excerpt}")
        error = reply.json()["error"]
        require(error["code"] == status, f"error.code is {error['code']!r}")
        require(error["status"] == name, f"error.status is {error['status']!r}")
        require(error["message"], "error.message is empty")
    return "400 and 404"
