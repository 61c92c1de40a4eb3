"""The usage event: one flat JSON object that says what a generation used and cost.

`docs/log-schema.md` explains every field. The line is ASCII, at most 4,096 bytes (what a pipe
takes in one piece), and holds no text of prompt or completion. Building it never raises: a bill
must not be lost to a header.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import orjson

from provider_core.billing.money import PriceList, cost_of, format_money, price_list, prices_for
from provider_core.interfaces import RunnerInfo
from provider_core.json_lines import encode_line, format_timestamp, sanitize
from provider_core.types import ModelSpec, Principal, Usage

Endpoint = Literal[
    "chat.completions",
    "completions",
    "messages",
    "responses",
    "generate_content",
    "embeddings",
    "rerank",
]
Status = Literal["ok", "cancelled", "error", "interrupted"]
ClientFinishReason = Literal["stop", "length", "tool_calls", "content_filter", "error"]
CancelStage = Literal["queue", "prefill", "decode", "delivery"]
ClientText = Literal["user_id", "app_title", "app_referer", "session_id"]
Delivery = Literal["sent", "failed", "unknown"]

SCHEMA = "llm-usage/1.0"
MAX_LINE_BYTES = 4096
MAX_COUNT = 2**52 - 1  # so that every JSON reader keeps exact the sum of two
ENVELOPE = frozenset(
    {
        "delivery",
        "durable",
        "recovered",
        "emit_attempt",
        "emitted_at",
        "service_version",
        "content_sha256",
    }
)
"""Fields about the line and not about the generation; a line sent again may change them."""

_ENVELOPE_GROWTH_BYTES = 8  # what a later attempt to write a line may add to it
_DROPPED_ON_OVERFLOW = ("app_referer", "app_title", "user_id", "session_id")
_CLIENT_TEXT_BYTES = {"user_id": 128, "app_title": 128, "app_referer": 256, "session_id": 128}
_QUANTIZATIONS = frozenset({"int4", "int8", "fp4", "fp6", "fp8", "fp16", "bf16", "fp32"})
_OPERATIONS = {
    "chat.completions": "chat",
    "completions": "text_completion",
    "messages": "chat",
    "responses": "chat",
    "generate_content": "generate_content",
    "embeddings": "embeddings",
    "rerank": "rerank",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """What every event of one process says alike.

    Attributes:
        boot_id: ULID of this start of the process.
        service_version: Version of this program.
        instance_id: Names the machine or container.
        platform: Name of the serverless platform.
        region: The provider's own region id.
        country: ISO 3166-1 alpha-2.
    """

    boot_id: str
    service_version: str
    instance_id: str
    platform: str = "local"
    region: str = "local"
    country: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationFacts:
    """What is known of a generation at its admission.

    Attributes:
        prices: The snapshot that will be billed, whatever the price list says later.
        received_wall_s: Unix seconds.
        user_id: The client's name for its user, cleaned; so are the next three.
        app_title: Header `X-Title`.
        app_referer: Header `HTTP-Referer`.
        session_id: The client's name for a conversation.
        idempotency_key_sha256: Of the client's name for the request, in hexadecimal digits.
    """

    generation_id: str
    request_id: str
    principal: Principal
    model: ModelSpec
    runner_info: RunnerInfo
    prices: PriceList
    endpoint: Endpoint
    stream: bool
    n: int
    received_wall_s: float
    image_count: int = 0
    client_request_id: str | None = None
    user_id: str | None = None
    app_title: str | None = None
    app_referer: str | None = None
    session_id: str | None = None
    idempotency_key_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """When things happened, in seconds since the request was received; `None` for never."""

    admitted_s: float
    finished_s: float
    started_s: float | None = None
    first_token_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a generation ended.

    Attributes:
        http_status: 200 once streaming began; 499 for a client gone before any byte.
        finish_reason: As the client saw it.
        native_finish_reason: The backend's own word.
        usage: Completion tokens are those handed to the transport.
        error_code: From the error catalogue.
        cancel_stage: Where a cancellation struck.
        delivery: `None` means sent if `status` is ok, else failed.
        cache_source_id: The generation whose stored answer was given; nothing was generated.
    """

    status: Status
    usage: Usage
    http_status: int = 200
    finish_reason: ClientFinishReason | None = None
    native_finish_reason: str | None = None
    error_code: str | None = None
    cancel_stage: CancelStage | None = None
    delivery: Delivery | None = None
    cache_source_id: str | None = None


def clean_client_text(name: ClientText, value: str | None) -> str | None:
    """Cut what a client says of itself to what its field of a line holds. Never raises."""
    return None if value is None else sanitize(value, _CLIENT_TEXT_BYTES[name])


def decide_billing(outcome: Outcome, *, stream: bool, is_free: bool) -> tuple[bool, str]:
    """Say whether a generation is billed and by which row of the published policy.

    R1 complete, R2 cut by a content filter, R3 cancelled amid a stream, R4 cancelled before the
    first token, R5 cancelled when not streaming, R6 failed, R7 cut by a drain, R8 interrupted by a
    crash, R12 given from a cache, R13 complete without a token, R18 of a free model.

    Returns:
        Billable or not, and the rule.
    """
    match outcome.status:
        case "interrupted":
            return False, "R8"
        case "error":
            return False, "R7" if outcome.error_code == "draining" else "R6"
        case "cancelled" if not stream:
            return False, "R5"
        case "cancelled":
            return (True, "R3") if outcome.usage.completion_tokens else (False, "R4")
    if outcome.cache_source_id is not None:
        return False, "R12"
    if outcome.finish_reason in (None, "error"):
        return False, "R6"
    if is_free:
        return True, "R18"
    if outcome.finish_reason == "content_filter":
        return True, "R2"
    return True, "R1" if outcome.usage.completion_tokens else "R13"


def build_usage_final(
    process: ProcessFacts,
    facts: GenerationFacts,
    timeline: Timeline,
    outcome: Outcome,
    *,
    seq: int,
    not_before_wall_s: float = 0.0,
    is_waived: bool = False,
) -> tuple[dict[str, object], Usage, Decimal]:
    """Build the event of a generation, `content_sha256` still to be filled by `encode_event`.

    Args:
        process: Of this process.
        facts: Known at admission.
        timeline: By the monotonic clock, so that durations survive a change of the wall clock.
        outcome: How it ended.
        seq: Gap-free number of the event in this boot, from 1.
        not_before_wall_s: Time of the previous event; `timestamp` never goes back.
        is_waived: The operator bills nothing now.

    Returns:
        The event, the counts it bills, and their cost.
    """
    usage = _billed_usage(outcome, stream=facts.stream)
    price_tier, tier_prices = prices_for(facts.prices.prices, usage.prompt_tokens)
    prices = price_list(tier_prices) if price_tier else facts.prices
    billable, rule = decide_billing(outcome, stream=facts.stream, is_free=prices.is_free)
    if billable and is_waived:
        billable, rule = False, "R19"
    list_cost = cost_of(prices.prices, usage, image_count=facts.image_count)
    cost = list_cost if billable else Decimal(0)
    is_over = outcome.status in ("ok", "error")
    received = facts.received_wall_s
    finished = received + timeline.finished_s
    was_adjusted = finished < not_before_wall_s
    finished = max(finished, not_before_wall_s)
    finished_at = format_timestamp(finished)
    model, runner, principal = facts.model, facts.runner_info, facts.principal
    quantization = model.quantization or runner.precision
    event: dict[str, object] = {
        "event": "usage.final",
        "schema": SCHEMA,
        "timestamp": finished_at,
        "event_id": f"{facts.generation_id}:final",
        "content_sha256": "",
        "generation_id": facts.generation_id,
        "request_id": facts.request_id,
        "client_request_id": facts.client_request_id,
        "idempotency_key_sha256": facts.idempotency_key_sha256,
        "api_key_id": sanitize(principal.api_key_id, 64) or "unknown",
        "account_id": _text(principal.account_id, 64),
        "user_id": clean_client_text("user_id", facts.user_id),
        "app_title": clean_client_text("app_title", facts.app_title),
        "app_referer": clean_client_text("app_referer", facts.app_referer),
        "endpoint": facts.endpoint,
        "operation": _OPERATIONS.get(facts.endpoint, "chat"),
        "stream": facts.stream,
        "n": facts.n,
        "model": sanitize(model.id, 256) or "unknown",
        "model_revision": None,
        "backend": sanitize(runner.backend, 64),
        "backend_version": sanitize(runner.backend_version, 64),
        "quantization": quantization if quantization in _QUANTIZATIONS else None,
        "region": sanitize(process.region, 32),
        "country": process.country,
        "platform": sanitize(process.platform, 32),
        "instance_id": sanitize(process.instance_id, 64),
        "received_at": format_timestamp(received),
        "admitted_at": format_timestamp(received + timeline.admitted_s),
        "started_at": _moment(received, timeline.started_s),
        "first_token_at": _moment(received, timeline.first_token_s),
        "finished_at": finished_at,
        "queue_ms": _milliseconds(timeline.admitted_s, _latest_start(timeline)),
        "ttft_ms": _duration(0.0, timeline.first_token_s),
        "generation_ms": _duration(timeline.first_token_s, timeline.finished_s),
        "latency_ms": _milliseconds(0.0, timeline.finished_s),
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": 0,
        "completion_tokens": usage.completion_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "total_tokens": usage.total_tokens,
        "generated_tokens": usage.generated_tokens,
        "image_count": facts.image_count,
        "usage_source": "engine" if usage.prompt_tokens else "none",
        "status": outcome.status,
        "http_status": outcome.http_status,
        "finish_reason": outcome.finish_reason if is_over else None,
        "native_finish_reason": _text(outcome.native_finish_reason, 32),
        "error_code": _text(outcome.error_code, 64),
        "cancelled": outcome.status == "cancelled",
        "cancel_stage": outcome.cancel_stage,
        "billable": billable,
        "billing_rule": rule,
        "currency": "USD",
        "price_version": sanitize(prices.version, 64),
        "price_tier": price_tier,
        "prices": dict(prices.strings),
        "cost": format_money(cost),
        "list_cost": format_money(list_cost),
        "boot_id": process.boot_id,
        "seq": seq,
        "delivery": outcome.delivery or ("sent" if outcome.status == "ok" else "failed"),
        "durable": False,
        "recovered": False,
        "emit_attempt": 1,
        "emitted_at": finished_at,
        "service_version": sanitize(process.service_version, 64),
    }
    if facts.session_id is not None:
        event["session_id"] = clean_client_text("session_id", facts.session_id)
    if outcome.cache_source_id is not None:
        event["response_cache_source_id"] = outcome.cache_source_id
    if was_adjusted:
        event["clock_adjusted"] = True
    return event, usage, cost


def encode_event(event: dict[str, object]) -> bytes:
    """Fill `content_sha256` and write the line.

    A line over `MAX_LINE_BYTES` loses client strings, in the order of `_DROPPED_ON_OVERFLOW`, and
    gains `truncated`.

    Returns:
        One line with its newline.
    """
    for victim in ("", *_DROPPED_ON_OVERFLOW):
        if victim:
            if victim in event:
                event[victim] = None
            event["truncated"] = True
        event["content_sha256"] = content_sha256(event)
        line = encode_line(event)
        if len(line) <= MAX_LINE_BYTES - _ENVELOPE_GROWTH_BYTES:
            break
    return line


def content_sha256(event: Mapping[str, object]) -> str:
    """Hash what an event says, in canonical JSON, without its envelope.

    Two lines of one `event_id` are the same event if and only if their hashes agree.
    """
    content = dict(event)
    for name in ENVELOPE:
        content.pop(name, None)
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _billed_usage(outcome: Outcome, *, stream: bool) -> Usage:
    """Make counts hold together: subsets are subsets, and R5 delivers nothing."""
    usage = outcome.usage
    prompt = _count(usage.prompt_tokens)
    delivered = _count(usage.completion_tokens)
    completion = 0 if outcome.status == "cancelled" and not stream else delivered
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=min(_count(usage.cached_tokens), prompt),
        completion_tokens=completion,
        reasoning_tokens=min(_count(usage.reasoning_tokens), completion),
        generated_tokens=max(_count(usage.generated_tokens), delivered),
    )


def _count(number: int) -> int:
    return min(max(number, 0), MAX_COUNT)


def _text(value: str | None, max_bytes: int) -> str | None:
    return None if value is None else sanitize(value, max_bytes)


def _moment(received_wall_s: float, after_s: float | None) -> str | None:
    return None if after_s is None else format_timestamp(received_wall_s + after_s)


def _latest_start(timeline: Timeline) -> float:
    """When work began; where nobody said so, the latest that it can have begun."""
    if timeline.started_s is not None:
        return timeline.started_s
    return timeline.finished_s if timeline.first_token_s is None else timeline.first_token_s


def _duration(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else _milliseconds(start_s, end_s)


def _milliseconds(start_s: float, end_s: float) -> float:
    return round(max(end_s - start_s, 0.0) * 1000, 3)
