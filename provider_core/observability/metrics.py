"""Prometheus metrics: own names, and vLLM's so that existing boards work.

A request is counted once, from its usage record when it is settled, never per token. What an
engine holds is asked when somebody scrapes. Labels name models that are being served; whatever
else a client wrote is `unknown`, so that no client can make series.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from provider_core.interfaces import Monitored
from provider_core.types import UsageRecord

UNKNOWN = "unknown"
"""Label of a model that is not served."""

# Prometheus sees no increase in a series that begins with its first event, so these begin at 0.
_STATUSES = ("ok", "cancelled", "error")
_ALERTED_WARNINGS = ("credits.low",)

_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOKEN_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1)

_VLLM_NAMES = {
    "provider_requests_running": ("vllm:num_requests_running",),
    "provider_requests_waiting": ("vllm:num_requests_waiting",),
    # The second is the name until vLLM 0.10.
    "provider_kv_cache_usage_ratio": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    "provider_prompt_tokens": ("vllm:prompt_tokens",),
    "provider_completion_tokens": ("vllm:generation_tokens",),
    "provider_draft_tokens": ("vllm:spec_decode_num_draft_tokens",),
    "provider_accepted_draft_tokens": ("vllm:spec_decode_num_accepted_tokens",),
    "provider_requests_succeeded": ("vllm:request_success",),
    "provider_queue_time_seconds": ("vllm:request_queue_time_seconds",),
    "provider_time_to_first_token_seconds": ("vllm:time_to_first_token_seconds",),
    # vLLM has one per request and one per token, under an old and a new name; ours is per request.
    "provider_time_per_output_token_seconds": (
        "vllm:request_time_per_output_token_seconds",
        "vllm:time_per_output_token_seconds",
        "vllm:inter_token_latency_seconds",
    ),
    "provider_request_duration_seconds": ("vllm:e2e_request_latency_seconds",),
}
_VLLM_LABELS = {"model": "model_name", "finish_reason": "finished_reason"}


_JOURNAL = {
    "up": "Whether bills are being kept on disk.",
    "unemitted_events": "Bills on disk that the log does not have yet.",
    "log_blocked_seconds": "For how long the log has not taken the line that is due.",
}


class Metrics:
    """Every metric of one server, in a registry of its own.

    Args:
        engines: The engines that serve, by model id; asked per request and per scrape.
        num_dropped_lines: Log lines dropped since start; asked per scrape.
        journal: How the journal is, by the names of `_JOURNAL`; asked per scrape, empty for none.
        is_sharing: Whether limits are counted together with other replicas now; asked per scrape,
            `None` if they never are.
        num_warnings: Log lines at `warning` and above since start, by event; asked per scrape.
        endpoints: Those whose requests are counted from 0 on, for each model that is served.
    """

    def __init__(
        self,
        engines: Callable[[], Mapping[str, Monitored]],
        num_dropped_lines: Callable[[], int] = lambda: 0,
        journal: Callable[[], Mapping[str, float]] = dict,
        is_sharing: Callable[[], bool | None] = lambda: None,
        num_warnings: Callable[[], Mapping[str, int]] = dict,
        endpoints: Sequence[str] = (),
    ) -> None:
        self._engines = engines
        self._endpoints = endpoints
        self._requests = _counter("requests", "Settled.", "endpoint", "status")
        self._succeeded = _counter("requests_succeeded", "Settled as ok.", "finish_reason")
        self._prompt_tokens = _counter("prompt_tokens", "Prompt tokens, cached ones included.")
        self._cached_tokens = _counter("cached_tokens", "Prompt tokens read from a prefix cache.")
        self._completion_tokens = _counter("completion_tokens", "Tokens handed to clients.")
        self._generated_tokens = _counter("generated_tokens", "Tokens made, wasted ones included.")
        self._cost = _counter("cost_usd", "Billed; a float, the usage lines are exact.")
        self._queue_time = _histogram("queue_time", "From admission to start.", _LATENCY_S)
        self._first_token = _histogram(
            "time_to_first_token", "From receipt to the first token written.", _LATENCY_S
        )
        self._per_token = _histogram(
            "time_per_output_token", "Mean of a request after its first.", _TOKEN_LATENCY_S
        )
        self._duration = _histogram("request_duration", "From receipt to settled.", _LATENCY_S)
        self._http = Counter(
            "provider_http_responses",
            "Answers by route template, refused requests included.",
            ("route", "code"),
            registry=None,
        )
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(
            _WithVllmNames(
                self._requests,
                self._succeeded,
                self._prompt_tokens,
                self._cached_tokens,
                self._completion_tokens,
                self._generated_tokens,
                self._cost,
                self._queue_time,
                self._first_token,
                self._per_token,
                self._duration,
                self._http,
                _EngineCollector(engines),
                _LogCollector(num_dropped_lines, num_warnings),
                _JournalCollector(journal),
                _SharingCollector(is_sharing),
            )
        )
        ProcessCollector(registry=self._registry)

    def observe(self, record: UsageRecord) -> None:
        """Count a settled generation; the ledger's `on_settled`."""
        event = record.event
        model = record.model if record.model in self._engines() else UNKNOWN
        usage = record.usage
        self._requests.labels(model, event["endpoint"], record.status).inc()
        if record.status == "ok":
            self._succeeded.labels(model, event["finish_reason"] or UNKNOWN).inc()
        self._prompt_tokens.labels(model).inc(usage.prompt_tokens)
        self._cached_tokens.labels(model).inc(usage.cached_tokens)
        self._completion_tokens.labels(model).inc(usage.completion_tokens)
        self._generated_tokens.labels(model).inc(usage.generated_tokens)
        self._cost.labels(model).inc(float(record.cost))
        _observe(self._queue_time, model, event["queue_ms"])
        _observe(self._first_token, model, event["ttft_ms"])
        _observe(self._duration, model, event["latency_ms"])
        if usage.completion_tokens > 1:
            _observe(self._per_token, model, event["generation_ms"], usage.completion_tokens - 1)

    def count_response(self, route: str, http_status: int) -> None:
        """Count an HTTP answer.

        Args:
            route: The template that matched, from a fixed set; never a raw path.
            http_status: Of the answer.
        """
        self._http.labels(route, http_status).inc()

    def render(self) -> tuple[bytes, str]:
        """Write everything in Prometheus' text format, on the event loop's thread.

        Returns:
            Body and content type.
        """
        for labels in product(self._engines(), self._endpoints, _STATUSES):
            self._requests.labels(*labels)
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _EngineCollector(Collector):
    """Asks the engines how busy they are."""

    def __init__(self, engines: Callable[[], Mapping[str, Monitored]]) -> None:
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        """One sample per engine."""
        running = _gauge("requests_running", "Sequences that hold a slot.")
        waiting = _gauge("requests_waiting", "Sequences that wait for a slot.")
        slots = _gauge("slots", "Sequences that can run at once.")
        kv_usage = _gauge("kv_cache_usage_ratio", "Tokens held in slots, of those that fit.")
        steps = CounterMetricFamily("provider_engine_steps", "Steps.", labels=("model",))
        drafted = CounterMetricFamily(
            "provider_draft_tokens", "Ids that speculation tried.", labels=("model",)
        )
        accepted = CounterMetricFamily(
            "provider_accepted_draft_tokens", "Those of them that were right.", labels=("model",)
        )
        for model, engine in self._engines().items():
            load = engine.load()
            running.add_metric((model,), load.num_running)
            waiting.add_metric((model,), load.num_waiting)
            slots.add_metric((model,), load.num_slots)
            max_kv_tokens = load.max_kv_tokens
            if max_kv_tokens is None:
                max_kv_tokens = load.num_slots * engine.info.max_model_len
            kv_usage.add_metric((model,), load.num_kv_tokens / max(max_kv_tokens, 1))
            steps.add_metric((model,), load.num_steps)
            drafted.add_metric((model,), load.num_draft_tokens)
            accepted.add_metric((model,), load.num_accepted_tokens)
        yield from (running, waiting, slots, kv_usage, steps, drafted, accepted)


class _LogCollector(Collector):
    def __init__(
        self, num_dropped_lines: Callable[[], int], num_warnings: Callable[[], Mapping[str, int]]
    ) -> None:
        self._num_dropped_lines = num_dropped_lines
        self._num_warnings = num_warnings

    def collect(self) -> Iterator[Metric]:
        """What was dropped, and what an operator may want to know of."""
        yield CounterMetricFamily(
            "provider_log_lines_dropped",
            "Log lines dropped because the reader of stdout was slow; never usage lines.",
            value=self._num_dropped_lines(),
        )
        warnings = CounterMetricFamily(
            "provider_log_warnings", "Log lines at warning and above.", labels=("event",)
        )
        counts = dict.fromkeys(_ALERTED_WARNINGS, 0) | dict(self._num_warnings())
        for event, count in counts.items():
            warnings.add_metric((event,), count)
        yield warnings


class _JournalCollector(Collector):
    def __init__(self, figures: Callable[[], Mapping[str, float]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """One gauge for each figure, while there is a journal."""
        for name, value in self._figures().items():
            yield GaugeMetricFamily(f"provider_journal_{name}", _JOURNAL[name], value=value)


class _SharingCollector(Collector):
    def __init__(self, is_sharing: Callable[[], bool | None]) -> None:
        self._is_sharing = is_sharing

    def collect(self) -> Iterator[Metric]:
        """The one gauge, if there is anybody to share with."""
        is_sharing = self._is_sharing()
        if is_sharing is not None:
            yield GaugeMetricFamily(
                "provider_limits_shared",
                "Whether replicas count limits together; 0: this one counts by itself.",
                value=is_sharing,
            )


class _WithVllmNames(Collector):
    """Repeats metrics under vLLM's names, so that both always agree and counting costs once."""

    def __init__(self, *metrics: Collector) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Every metric under our name, then under vLLM's."""
        for metric in self._metrics:
            for family in metric.collect():
                # Series' creation times would double the page, and nobody's board reads them.
                family.samples = [s for s in family.samples if not s.name.endswith("_created")]
                yield family
                for alias in _VLLM_NAMES.get(family.name, ()):
                    yield _renamed(family, alias)


def _renamed(family: Metric, name: str) -> Metric:
    copy = Metric(name, family.documentation, family.type)
    for sample in family.samples:
        labels = {_VLLM_LABELS.get(key, key): value for key, value in sample.labels.items()}
        copy.add_sample(name + sample.name.removeprefix(family.name), labels, sample.value)
    return copy


def _observe(histogram: Histogram, model: str, milliseconds: object, parts: int = 1) -> None:
    if isinstance(milliseconds, float):
        histogram.labels(model).observe(milliseconds / 1000 / parts)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"provider_{name}", text, ("model", *labels), registry=None)


def _histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(f"provider_{name}_seconds", text, ("model",), registry=None, buckets=buckets)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"provider_{name}", text, labels=("model",))
