"""One settlement per generation: opened at admission, settled once, whoever comes first.

However a generation ends (finish, disconnect, deadline, engine failure, drain), somebody calls
`settle`. The first call decides; every later one gets the same record. The usage line leaves
through one place, `Ledger._emit`, in the order of its `seq`.
"""

import threading
from collections.abc import Callable
from types import MappingProxyType

from provider_core.billing.events import (
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
    encode_event,
)
from provider_core.billing.identifiers import clean_client_request_id
from provider_core.billing.money import price_list
from provider_core.interfaces import Clock, RunnerInfo, UsageSink
from provider_core.types import ModelSpec, Principal, Usage, UsageRecord


class Ledger:
    """Opens settlements and writes their usage lines.

    Args:
        sink: Takes the lines.
        clock: The time.
        process: Facts every line repeats.
        on_settled: Told of each record once, after its line is with the sink; must not raise.
    """

    def __init__(
        self,
        sink: UsageSink,
        clock: Clock,
        process: ProcessFacts,
        on_settled: Callable[[UsageRecord], None] | None = None,
    ) -> None:
        self._sink = sink
        self._clock = clock
        self._process = process
        self._on_settled = on_settled
        self._lock = threading.Lock()
        self._num_opened = 0
        self._last_seq = 0  # also the number of settled generations
        self._last_timestamp_s = 0.0

    @property
    def num_open(self) -> int:
        """Generations admitted and not settled yet."""
        return self._num_opened - self._last_seq

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
        user_id: str | None = None,
        app_title: str | None = None,
        app_referer: str | None = None,
        client_request_id: str | None = None,
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
            user_id: As the client sent it; cleaned here, like the next three.
            app_title: Header `X-Title`.
            app_referer: Header `HTTP-Referer`.
            client_request_id: Header `X-Request-Id`.

        Raises:
            ConfigurationError: The model's prices cannot be billed; see `price_list`.
        """
        facts = GenerationFacts(
            generation_id=generation_id,
            request_id=request_id,
            principal=principal,
            model=model,
            runner_info=runner_info,
            prices=price_list(model.prices),
            endpoint=endpoint,
            stream=stream,
            n=n,
            received_wall_s=received_wall_s,
            client_request_id=clean_client_request_id(client_request_id),
            user_id=user_id,
            app_title=app_title,
            app_referer=app_referer,
        )
        with self._lock:
            self._num_opened += 1
        return Settlement(facts, self._clock, received_mono_s, self._emit, self._on_settled)

    def _emit(self, facts: GenerationFacts, timeline: Timeline, outcome: Outcome) -> UsageRecord:
        """Number, build and hand over one event: the single place a usage line comes from."""
        with self._lock:
            event, usage, cost = build_usage_final(
                self._process,
                facts,
                timeline,
                outcome,
                seq=self._last_seq + 1,
                not_before_wall_s=self._last_timestamp_s,
            )
            line = encode_event(event)
            self._last_seq += 1
            self._last_timestamp_s = max(
                self._last_timestamp_s, facts.received_wall_s + timeline.finished_s
            )
            self._sink.emit(line)
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
        self,
        facts: GenerationFacts,
        clock: Clock,
        received_mono_s: float,
        emit: Callable[[GenerationFacts, Timeline, Outcome], UsageRecord],
        on_settled: Callable[[UsageRecord], None] | None,
    ) -> None:
        self._facts = facts
        self._clock = clock
        self._received_mono_s = received_mono_s
        self._emit = emit
        self._on_settled = on_settled
        self._admitted_s = clock.monotonic() - received_mono_s
        self._started_s: float | None = None
        self._first_token_s: float | None = None
        self._lock = threading.Lock()
        self._record: UsageRecord | None = None

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

        Returns:
            The one record of this generation.
        """
        with self._lock:
            if self._record is not None:
                return self._record
            timeline = Timeline(
                admitted_s=self._admitted_s,
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
            )
            self._record = self._emit(self._facts, timeline, outcome)
        if self._on_settled is not None:
            self._on_settled(self._record)
        return self._record

    def _elapsed_s(self, mono_s: float | None) -> float:
        now_s = self._clock.monotonic() if mono_s is None else mono_s
        return max(now_s - self._received_mono_s, 0.0)
