"""One settlement per generation: opened at admission, settled once, whoever comes first.

However a generation ends (finish, disconnect, deadline, engine failure, drain), somebody calls
`settle`. The first call decides; every later one gets the same record. The usage line leaves
through one place, `Ledger._emit`, in the order of its `seq`: into the journal, from where it
reaches the log, or straight into the log where there is no journal.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from types import MappingProxyType
from typing import cast

from provider_core.billing.adjustments import build_adjustment
from provider_core.billing.admissions import build_usage_open
from provider_core.billing.events import (
    SCHEMA,
    CancelStage,
    ClientFinishReason,
    Delivery,
    Endpoint,
    GenerationFacts,
    Outcome,
    ProcessFacts,
    Status,
    Timeline,
    build_usage_final,
    clean_client_text,
    encode_event,
)
from provider_core.billing.identifiers import clean_client_request_id, digest_of_key
from provider_core.billing.journal import UsageJournal
from provider_core.billing.money import format_money, price_list, prices_at
from provider_core.interfaces import Clock, RunnerInfo, UsageSink
from provider_core.json_lines import encode_line, format_timestamp
from provider_core.types import ModelSpec, Principal, Usage, UsageRecord


@dataclass(slots=True)
class Totals:
    """What the lines of a boot add up to."""

    finals: int = 0
    adjustments: int = 0
    billable_finals: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal = Decimal(0)

    def count(self, usage: Usage, cost: Decimal, *, is_billable: bool) -> None:
        """Add a `usage.final`."""
        self.finals += 1
        self.billable_finals += is_billable
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        self.cost += cost


class Ledger:
    """Opens settlements and writes their usage lines.

    Args:
        sink: Takes the lines.
        clock: The time.
        process: Facts every line repeats.
        on_settled: Told of each record once, after its line is with the sink; must not raise.
        journal: Takes the lines in the sink's place and brings them to the disk.
        on_event: Told of every event, adjustments too, in the order of `seq`. With a journal that
            is on a thread of the journal's, when the line is on disk or has failed to get there:
            a crash before leaves no charge without its bill. Must not block nor raise.
        logs_open: Write a line for each admission; with a journal, that does.
    """

    def __init__(
        self,
        sink: UsageSink,
        clock: Clock,
        process: ProcessFacts,
        on_settled: Callable[[UsageRecord], None] | None = None,
        journal: UsageJournal | None = None,
        on_event: Callable[[Mapping[str, object]], None] = lambda _: None,
        *,
        logs_open: bool = False,
    ) -> None:
        self._sink = sink
        self._journal = journal
        self._clock = clock
        self._process = process
        self._on_settled = on_settled
        self._on_event = on_event
        self._logs_open = logs_open
        self._lock = threading.Lock()
        self._num_opened = 0
        self._last_seq = 0
        self._last_timestamp_s = 0.0
        self._totals = Totals()

    @property
    def num_open(self) -> int:
        """Generations admitted and not settled yet."""
        return self._num_opened - self._totals.finals

    def totals(self) -> dict[str, object]:
        """The control totals of this boot, as its heartbeat states them."""
        with self._lock:
            totals = self._totals
            return {
                "schema": SCHEMA,
                "timestamp": format_timestamp(max(self._clock.time(), self._last_timestamp_s)),
                "boot_id": self._process.boot_id,
                "last_seq": self._last_seq,
                "finals": totals.finals,
                "adjustments": totals.adjustments,
                "billable_finals": totals.billable_finals,
                "sum_prompt_tokens": totals.prompt_tokens,
                "sum_completion_tokens": totals.completion_tokens,
                "sum_cost": format_money(totals.cost),
                "open_generations": self._num_opened - totals.finals,
            }

    def open(
        self,
        *,
        generation_id: str,
        request_id: str,
        principal: Principal,
        model: ModelSpec,
        runner_info: RunnerInfo,
        endpoint: Endpoint,
        stream: bool,
        received_wall_s: float,
        received_mono_s: float,
        n: int = 1,
        image_count: int = 0,
        user_id: str | None = None,
        app_title: str | None = None,
        app_referer: str | None = None,
        session_id: str | None = None,
        client_request_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> "Settlement":
        """Admit a generation at today's prices. Whoever opens must settle.

        Args:
            generation_id: From `make_generation_id`.
            request_id: From `make_request_id`.
            principal: Who pays.
            model: What is run and priced.
            runner_info: What runs it.
            endpoint: The route used.
            stream: Whether the answer is streamed.
            received_wall_s: When the request came in, by `Clock.time`.
            received_mono_s: The same by `Clock.monotonic`.
            n: Choices.
            image_count: Images in the prompt.
            user_id: As the client sent it; cleaned here, like the next four.
            app_title: Header `X-Title`.
            app_referer: Header `HTTP-Referer`.
            session_id: The client's name for a conversation.
            client_request_id: Header `X-Request-Id`.
            idempotency_key: Header `Idempotency-Key`; its digest is kept.

        Raises:
            ConfigurationError: The model's prices cannot be billed; see `price_list`.
        """
        facts = GenerationFacts(
            generation_id=generation_id,
            request_id=request_id,
            principal=principal,
            model=model,
            runner_info=runner_info,
            prices=price_list(prices_at(model.prices, received_wall_s)),
            endpoint=endpoint,
            stream=stream,
            n=n,
            image_count=image_count,
            received_wall_s=received_wall_s,
            client_request_id=clean_client_request_id(client_request_id),
            user_id=clean_client_text("user_id", user_id),
            app_title=clean_client_text("app_title", app_title),
            app_referer=clean_client_text("app_referer", app_referer),
            session_id=clean_client_text("session_id", session_id),
            idempotency_key_sha256=digest_of_key(idempotency_key),
        )
        with self._lock:
            self._num_opened += 1
        settlement = Settlement(self, facts, self._clock, received_mono_s)
        if self._journal is not None:
            self._journal.opened(facts, settlement.admitted_s)
        elif self._logs_open:
            self._sink.emit(
                encode_line(build_usage_open(self._process, facts, settlement.admitted_s))
            )
        return settlement

    def settle(self, facts: GenerationFacts, timeline: Timeline, outcome: Outcome) -> UsageRecord:
        """Write the line of a generation and tell who wants to know; for its `Settlement`."""
        record = self._emit(facts, timeline, outcome)
        if self._on_settled is not None:
            self._on_settled(record)
        return record

    async def until_durable(self, record: UsageRecord) -> None:
        """Until a line is on disk; at once without a journal, or when the disk has failed."""
        if self._journal is not None:
            await self._journal.until_decided(_seq(record))

    def conclude(self, record: UsageRecord, *, is_sent: bool) -> None:
        """Note whether an answer left that was billed first; for its `Settlement`.

        A whole answer that did not leave is taken back: R5 of the published policy.
        """
        if self._journal is None:
            return
        self._journal.delivered(_seq(record), "sent" if is_sent else "failed")
        if is_sent or record.event["stream"] or not record.cost:
            return
        with self._lock:
            self._last_seq += 1
            self._last_timestamp_s = max(self._last_timestamp_s, self._clock.time())
            adjustment = build_adjustment(
                record.event,
                cost_delta=-record.cost,
                reason="delivery_failed",
                rule="R5",
                boot_id=self._process.boot_id,
                seq=self._last_seq,
                wall_s=self._last_timestamp_s,
                service_version=self._process.service_version,
            )
            self._totals.adjustments += 1
            self._totals.cost -= record.cost
            line = encode_event(adjustment)
            self._journal.commit(self._last_seq, line, partial(self._on_event, adjustment))

    def _emit(self, facts: GenerationFacts, timeline: Timeline, outcome: Outcome) -> UsageRecord:
        """Number, build and hand over one event: the single place a usage line comes from."""
        journal = self._journal
        if journal is not None and outcome.status == "ok" and outcome.delivery is None:
            outcome = replace(outcome, delivery="unknown")  # it leaves once this line is on disk
        with self._lock:
            event, usage, cost = build_usage_final(
                self._process,
                facts,
                timeline,
                outcome,
                seq=self._last_seq + 1,
                not_before_wall_s=self._last_timestamp_s,
                is_waived=journal is not None and journal.waives_bills,
            )
            event["durable"] = journal is not None
            line = encode_event(event)
            self._last_seq += 1
            self._totals.count(usage, cost, is_billable=event["billable"] is True)
            self._last_timestamp_s = max(
                self._last_timestamp_s, facts.received_wall_s + timeline.finished_s
            )
            if journal is None:
                self._sink.emit(line)
                self._on_event(event)
            else:
                journal.commit(self._last_seq, line, partial(self._on_event, event))
        return UsageRecord(
            generation_id=facts.generation_id,
            request_id=facts.request_id,
            model=facts.model.id,
            status=outcome.status,
            usage=usage,
            cost=cost,
            event=MappingProxyType(event),
        )


class Settlement:
    """The account of one generation, from its admission to its one usage line.

    Marks and `settle` may be called from any thread.
    """

    def __init__(
        self, ledger: Ledger, facts: GenerationFacts, clock: Clock, received_mono_s: float
    ) -> None:
        self.admitted_s = clock.monotonic() - received_mono_s  # after it was received
        self._ledger = ledger
        self._facts = facts
        self._clock = clock
        self._received_mono_s = received_mono_s
        self._started_s: float | None = None
        self._first_token_s: float | None = None
        self._lock = threading.Lock()
        self._record: UsageRecord | None = None
        self._is_concluded = False

    @property
    def generation_id(self) -> str:
        """Of this generation."""
        return self._facts.generation_id

    @property
    def record(self) -> UsageRecord | None:
        """The record once settled."""
        return self._record

    def mark_started(self, mono_s: float | None = None) -> None:
        """Say that an engine began to work on it. The first call counts.

        Args:
            mono_s: When, by `Clock.monotonic`; `None` means now.
        """
        if self._started_s is None:
            self._started_s = self._elapsed_s(mono_s)

    def mark_first_token(self, mono_s: float | None = None) -> None:
        """Say that its first token was written to the client. The first call counts.

        Args:
            mono_s: When, by `Clock.monotonic`; `None` means now.
        """
        if self._first_token_s is None:
            self._first_token_s = self._elapsed_s(mono_s)

    def settle(
        self,
        *,
        status: Status,
        usage: Usage,
        http_status: int = 200,
        finish_reason: ClientFinishReason | None = None,
        native_finish_reason: str | None = None,
        error_code: str | None = None,
        cancel_stage: CancelStage | None = None,
        delivery: Delivery | None = None,
        cache_source_id: str | None = None,
    ) -> UsageRecord:
        """End the account. The first call decides and writes the line; later ones change nothing.

        Args:
            status: `ok`, `cancelled` by the client, `error` of ours.
            usage: What was used, completion tokens as handed to the transport.
            http_status: 200 once streaming began; 499 for a client gone before any byte.
            finish_reason: As the client saw it.
            native_finish_reason: The backend's own word.
            error_code: Of the error that ended it.
            cancel_stage: Where a cancellation struck.
            delivery: Whether the answer left; `None` means it did if `status` is `ok`.
            cache_source_id: The generation whose stored answer was given.

        Returns:
            The one record of this generation.
        """
        with self._lock:
            if self._record is not None:
                return self._record
            timeline = Timeline(
                admitted_s=self.admitted_s,
                started_s=self._started_s,
                first_token_s=self._first_token_s,
                finished_s=self._elapsed_s(None),
            )
            outcome = Outcome(
                status=status,
                usage=usage,
                http_status=http_status,
                finish_reason=finish_reason,
                native_finish_reason=native_finish_reason,
                error_code=error_code,
                cancel_stage=cancel_stage,
                delivery=delivery,
                cache_source_id=cache_source_id,
            )
            self._record = self._ledger.settle(self._facts, timeline, outcome)
        return self._record

    async def until_durable(self) -> None:
        """Wait for the line to be on disk: what comes after may be the last the client gets.

        Nothing must have been said of the end before. Returns at once if nothing is settled.
        """
        if self._record is not None:
            await self._ledger.until_durable(self._record)

    def conclude(self, *, is_sent: bool) -> None:
        """Say whether the end of the answer was handed to the transport. The first call counts."""
        record = self._record
        if record is None or self._is_concluded or record.event["delivery"] != "unknown":
            return
        self._is_concluded = True
        self._ledger.conclude(record, is_sent=is_sent)

    def _elapsed_s(self, mono_s: float | None) -> float:
        now_s = self._clock.monotonic() if mono_s is None else mono_s
        return max(now_s - self._received_mono_s, 0.0)


def _seq(record: UsageRecord) -> int:
    return cast(int, record.event["seq"])
