"""What the server knows of one HTTP request beside its body."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Literal

from aiohttp import web

from provider_core.access.rate_limits import RateTicket
from provider_core.billing.identifiers import make_generation_id, make_request_id
from provider_core.dialects.openrouter.routing import Routing
from provider_core.errors import InvalidRequest
from provider_core.server import idempotency
from provider_core.server.response_cache import CacheSlot
from provider_core.types import Principal, UsageRecord

ANONYMOUS = Principal(api_key_id="anonymous")
NOBODY = Principal(api_key_id="")
"""Whoever has not been authenticated yet."""


Dialect = Literal["openai", "openrouter", "anthropic", "google"]


def dialect_of(request: web.Request) -> Dialect:
    """The dialect that a request speaks.

    Three dialects list models under one path; there a header says who asks.
    """
    if request.path.startswith(("/v1/models", "/api/v1/models")):
        if "anthropic-version" in request.headers:
            return "anthropic"
        if "x-goog-api-key" in request.headers:
            return "google"
    return dialect_of_route(request.method, request.path)


def dialect_of_route(method: str, path: str) -> Dialect:
    """The dialect of a route, as far as its method and its path say."""
    if path.startswith(("/v1/messages", "/api/v1/messages")):
        return "anthropic"
    if path.startswith("/v1beta/") or (
        path.startswith("/v1/models/") and method == "POST"  # the others only list them
    ):
        return "google"
    return "openrouter" if path.startswith("/api/") else "openai"


@dataclass(slots=True)
class Call:
    """One request on its way through the server; the access line is written from it.

    Attributes:
        dialect: Which clients it answers, by the path: decides the form of errors.
        record: The generation's usage record once it has settled.
        routing: Who the client wants to be answered by.
        cache_slot: Where its answer is kept, if the client asked for that.
        idempotency_key: The client's own name for the request.
        claim: To be the request that runs under that name.
        path: The route's template, never the raw path.
        deadline_s: On the `time.monotonic` clock.
        stream_type: Media type of an answer that is streamed.
        rates: What it has taken of its key's limits, if there are any.
        http_status: Of the answer, once its headers leave; what comes after does not change it.
    """

    method: str
    path: str
    dialect: Dialect
    client_request_id: str | None = None
    app_title: str | None = None
    app_referer: str | None = None
    session_id: str | None = None
    idempotency_key: str | None = None
    principal: Principal = NOBODY
    request_id: str = field(default_factory=make_request_id)
    generation_id: str | None = None
    received_wall: float = field(default_factory=time)
    received_mono: float = field(default_factory=monotonic)
    deadline_s: float = math.inf
    model: str | None = None
    user_id: str | None = None
    stream: bool = False
    stream_type: str = "text/event-stream"
    http_status: int | None = None
    error_code: str | None = None
    num_sent_bytes: int = 0
    record: UsageRecord | None = None
    routing: Routing = field(default_factory=Routing)
    cache_slot: CacheSlot | None = None
    claim: idempotency.Claim | None = None
    rates: RateTicket | None = None
    _ends: list[Callable[["Call"], None]] = field(default_factory=list)

    @classmethod
    def of(
        cls, request: web.Request, timeout_s: float, request_id_header: str = "X-Request-Id"
    ) -> "Call":
        """Read the headers. Never raises; see `set_deadline` for the client's own limit."""
        headers = request.headers
        resource = request.match_info.route.resource
        call = cls(
            method=request.method,
            path=resource.canonical if resource is not None else "unmatched",
            dialect=dialect_of(request),
            client_request_id=headers.get(request_id_header) or headers.get("X-Request-Id"),
            app_title=headers.get("X-OpenRouter-Title") or headers.get("X-Title"),
            app_referer=headers.get("HTTP-Referer"),
            session_id=headers.get("X-Session-Id"),
            idempotency_key=headers.get(idempotency.HEADER),
        )
        call.deadline_s = call.received_mono + timeout_s
        return call

    @property
    def is_openrouter(self) -> bool:
        """Under `/api/v1`, which speaks OpenRouter's variant of OpenAI's dialect."""
        return self.dialect == "openrouter"

    def set_deadline(self, header: str | None, timeout_s: float) -> None:
        """Shorten the deadline as the client asks.

        Raises:
            InvalidRequest: Not a positive integer of milliseconds.
        """
        if header is None:
            return
        if not (header.isascii() and header.isdigit() and 0 < len(header) <= 12 and int(header)):
            raise InvalidRequest(
                "x-request-deadline-ms must be a positive integer of milliseconds",
                param="x-request-deadline-ms",
                code="invalid_header",
            )
        self.deadline_s = self.received_mono + min(timeout_s, int(header) / 1000)

    def at_end(self, end: Callable[["Call"], None]) -> None:
        """Have something done when the request is over, however it ends; it must not raise."""
        self._ends.append(end)

    def end(self) -> None:
        """Do it. The server's outermost layer says so, once."""
        while self._ends:
            self._ends.pop()(self)

    def begin_generation(self) -> str:
        """Mint the id that the response, the usage event and `/generation` share."""
        self.generation_id = make_generation_id()
        return self.generation_id
