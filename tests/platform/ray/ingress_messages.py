"""What the ingress sends in each case: `python ingress_messages.py`, where Ray is installed.

Writes a JSON object of cases to standard output: messages sent, calls made, and what was raised.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.context import _RequestContext, _serve_request_context
from ray.serve.exceptions import BackPressureError

from provider_ray.calls import Call, Head
from provider_ray.ingress import Ingress

_SSE = Head(200, (("Content-Type", "text/event-stream"), ("X-Request-Id", "r"), ("Server", "s")))
_JSON = Head(200, (("Content-Type", "application/json"), ("Content-Length", "10")))
_MAX_BODY_BYTES = 8
_CASES: dict[str, tuple[list[Any], list[bytes | None]]] = {
    "whole": ([_SSE, b"data: 1\n\n"], [b"ab", b"cd"]),
    "full": ([BackPressureError(num_queued_requests=1, max_queued_requests=1)], [b"ab"]),
    "lost before the head": ([RayActorError()], [b"ab"]),
    "lost amid a stream": ([_SSE, b"data: 1", RayActorError()], [b"ab"]),
    "lost amid a document": ([_JSON, b"{", RayActorError()], [b"ab"]),
    "client left": ([], [b"ab", None]),
    "too large": ([_JSON], [b"abcdef", b"ghijkl", b"never read"]),
}
_SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/v1/ü",
    "raw_path": b"/v1/%C3%BC",
    "query_string": b"key=k",
    "client": ("192.0.2.1", 1),
    "headers": [(b"X-Forwarded-For", b"198.51.100.7"), (b"Content-Length", b"4"), (b"A", b"b")],
}


class _Answer:
    def __init__(self, pieces: list[Any]) -> None:
        self._pieces = pieces
        self.is_cancelled = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def cancel(self) -> None:
        self.is_cancelled = True


async def _run(pieces: list[Any], body: list[bytes | None]) -> dict[str, Any]:
    sent: list[dict[str, Any]] = []
    calls: list[Call] = []
    answer = _Answer(pieces)

    def ask(call: Call) -> _Answer:
        calls.append(call)
        return answer

    async def receive() -> dict[str, Any]:
        part = body.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(body)}

    async def send(message: Any) -> None:
        sent.append(message)

    raised = None
    try:
        await Ingress(ask, _MAX_BODY_BYTES)(dict(_SCOPE), receive, send)
    except ConnectionAbortedError as error:
        raised = str(error)
    return {
        "status": next((each["status"] for each in sent if "status" in each), None),
        "headers": [each["headers"] for each in sent if "headers" in each],
        "body": b"".join(each.get("body", b"") for each in sent).decode(),
        "is_complete": bool(sent) and sent[-1].get("more_body") is False,
        "calls": [[call.method, call.path, call.headers, call.body.decode()] for call in calls],
        "is_cancelled": answer.is_cancelled,
        "raised": raised,
    }


async def _main() -> None:
    _serve_request_context.set(_RequestContext(request_id="of-ray"))
    cases = {name: await _run(*case) for name, case in _CASES.items()}
    json.dump(cases, sys.stdout, default=lambda value: value.decode())


if __name__ == "__main__":
    asyncio.run(_main())
