"""Headers that say who asked, how much is left and how the connection is kept."""

import re

from provider_core.conformance.check import Group
from provider_core.conformance.probe import Probe
from provider_core.conformance.verdict import Doubtful, NotApplicable, prefer, require

GROUP = Group("limits")

_RATE_HEADERS = tuple(f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset"))
_DURATION = re.compile(r"(\d+(\.\d+)?(ms|h|m|s))+")


@GROUP.check("headers", "x-ratelimit headers")
async def headers(probe: Probe) -> str:
    """On a whole answer and on a stream; a key without limits may have none to tell."""
    found = (await probe.ask()).headers
    missing = [name for name in _RATE_HEADERS if name not in found]
    if missing:
        raise Doubtful(f"absent: {', '.join(missing)}; this key may have no limit")
    limit, remaining, reset = (found[name] for name in _RATE_HEADERS)
    require(limit.isdigit() and remaining.isdigit(), f"{limit!r} and {remaining!r} are no counts")
    require(int(remaining) <= int(limit), f"{remaining} of {limit} remain")
    prefer(_DURATION.fullmatch(reset), f"{reset!r} is no duration such as 6m0s")
    streamed = await probe.stream_chat()
    require(_RATE_HEADERS[0] in streamed.headers, "they are absent on streams")
    return f"{remaining} of {limit} requests left, full in {reset}"


@GROUP.check("request_id", "Every answer has a request id")
async def request_id(probe: Probe) -> str:
    """Also a refusal; it is what people write to support."""
    replies = (await probe.ask(), await probe.ask(temperature=9))
    ids = [reply.headers.get("x-request-id", "") for reply in replies]
    prefer(all(ids), "x-request-id is absent")
    require(ids[0] != ids[1], "two requests have one id")
    return ids[0]


@GROUP.check("https", "The endpoint is served by HTTPS")
async def https(probe: Probe) -> str:
    """Except on this machine."""
    if probe.endpoint.is_local:
        raise NotApplicable("the endpoint is on this machine")
    require(probe.endpoint.root.startswith("https://"), "the endpoint is served by plain HTTP")
    return "HTTPS"
