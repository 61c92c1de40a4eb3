"""Metrics: counted once per request, under our names and vLLM's."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from provider_core.interfaces import Engine, EngineLoad, RunnerInfo
from provider_core.observability.metrics import Metrics
from provider_core.types import EngineOutput, GenerationRequest, Usage, UsageRecord

Labels = frozenset[tuple[str, str]]
ALIASES = {
    "vllm:num_requests_running": "provider_requests_running",
    "vllm:num_requests_waiting": "provider_requests_waiting",
    "vllm:kv_cache_usage_perc": "provider_kv_cache_usage_ratio",
    "vllm:gpu_cache_usage_perc": "provider_kv_cache_usage_ratio",
    "vllm:prompt_tokens_total": "provider_prompt_tokens_total",
    "vllm:generation_tokens_total": "provider_completion_tokens_total",
    "vllm:spec_decode_num_draft_tokens_total": "provider_draft_tokens_total",
    "vllm:spec_decode_num_accepted_tokens_total": "provider_accepted_draft_tokens_total",
    "vllm:time_to_first_token_seconds_sum": "provider_time_to_first_token_seconds_sum",
    "vllm:time_per_output_token_seconds_sum": "provider_time_per_output_token_seconds_sum",
    "vllm:inter_token_latency_seconds_sum": "provider_time_per_output_token_seconds_sum",
    "vllm:e2e_request_latency_seconds_sum": "provider_request_duration_seconds_sum",
    "vllm:e2e_request_latency_seconds_count": "provider_request_duration_seconds_count",
    "vllm:request_queue_time_seconds_sum": "provider_queue_time_seconds_sum",
}


class BusyEngine:
    """An engine with a fixed load."""

    info = RunnerInfo(
        backend="b",
        backend_version="1",
        device="cpu",
        max_num_seqs=4,
        max_model_len=100,
        vocab_size=10,
    )

    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Take a sequence in."""

    def abort(self, request_id: str) -> None:
        """End a sequence."""

    def load(self) -> EngineLoad:
        """Three of four slots are taken and hold a quarter of what fits."""
        return EngineLoad(
            num_running=3,
            num_waiting=2,
            num_waiting_prompt_tokens=50,
            num_slots=4,
            num_kv_tokens=100,
            num_steps=7,
            num_prompt_tokens=60,
            num_generated_tokens=40,
            step_started_s=None,
            num_draft_tokens=30,
            num_accepted_tokens=20,
        )

    def check_health(self) -> None:
        """Always healthy."""

    async def close(self) -> None:
        """Nothing to free."""


def make_record(model: str = "acme/m", **overrides: Any) -> UsageRecord:
    """A settled generation; keywords override the event's fields."""
    event: dict[str, object] = {
        "endpoint": "chat.completions",
        "finish_reason": "stop",
        "queue_ms": 2.0,
        "ttft_ms": 20.0,
        "generation_ms": 90.0,
        "latency_ms": 110.0,
    }
    fields: dict[str, Any] = {
        "status": "ok",
        "usage": Usage(prompt_tokens=5, cached_tokens=2, completion_tokens=10, generated_tokens=12),
        "cost": Decimal("0.25"),
    }
    return UsageRecord(
        generation_id="gen-1",
        request_id="req-1",
        model=model,
        event=event | {name: value for name, value in overrides.items() if name in event},
        **fields | {name: value for name, value in overrides.items() if name in fields},
    )


@pytest.fixture
def engines() -> dict[str, Engine]:
    """What is served; tests may change it."""
    return {"acme/m": BusyEngine()}


@pytest.fixture
def metrics(engines: dict[str, Engine]) -> Metrics:
    """Metrics of a server with these engines that has dropped three log lines."""
    return Metrics(lambda: engines, lambda: 3, num_warnings=lambda: {"credits.low": 2})


def scrape(metrics: Metrics) -> dict[str, dict[Labels, float]]:
    """Every sample as a scraper reads it: name, labels, value."""
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            by_labels = samples.setdefault(sample.name, {})
            labels = frozenset(sample.labels.items())
            assert labels not in by_labels
            by_labels[labels] = sample.value
    return samples


def test_a_settled_generation_is_counted(metrics: Metrics) -> None:
    """Token counters equal the sums of the records (I8), latencies are in seconds."""
    metrics.observe(make_record())
    metrics.observe(make_record(status="cancelled", finish_reason=None, cost=Decimal(0)))
    samples = scrape(metrics)
    model: Labels = frozenset({("model", "acme/m")})
    values = {name: by_labels[model] for name, by_labels in samples.items() if model in by_labels}
    assert values["provider_prompt_tokens_total"] == 10
    assert values["provider_cached_tokens_total"] == 4
    assert values["provider_completion_tokens_total"] == 20
    assert values["provider_generated_tokens_total"] == 24
    assert values["provider_cost_usd_total"] == 0.25
    assert values["provider_queue_time_seconds_sum"] == pytest.approx(0.004)
    assert values["provider_time_to_first_token_seconds_sum"] == pytest.approx(0.04)
    assert values["provider_time_per_output_token_seconds_sum"] == pytest.approx(0.02)
    assert values["provider_request_duration_seconds_sum"] == pytest.approx(0.22)
    by_status = {
        dict(labels)["status"]: n for labels, n in samples["provider_requests_total"].items()
    }
    assert by_status == {"ok": 1, "cancelled": 1}
    assert samples["vllm:request_success_total"] == {
        frozenset({("model_name", "acme/m"), ("finished_reason", "stop")}): 1
    }


def test_what_alerts_watch_begins_at_0(engines: dict[str, Engine]) -> None:
    """A series that begins with its first error has had no increase, for Prometheus."""
    metrics = Metrics(lambda: engines, endpoints=("rerank",))
    first = scrape(metrics)
    assert first["provider_log_warnings_total"] == {frozenset({("event", "credits.low")}): 0}
    engines["another"] = BusyEngine()  # loaded meanwhile
    metrics.observe(make_record(status="error", endpoint="rerank"))
    second = scrape(metrics)

    def counted(samples: dict[str, dict[Labels, float]]) -> dict[tuple[str, str], float]:
        return {
            (dict(labels)["model"], dict(labels)["status"]): value
            for labels, value in samples["provider_requests_total"].items()
        }

    none = {(model, status): 0 for model in engines for status in ("ok", "cancelled", "error")}
    assert counted(first) == {(model, s): 0 for model, s in none if model == "acme/m"}
    assert counted(second) == none | {("acme/m", "error"): 1}


def test_what_never_happened_is_not_observed(metrics: Metrics) -> None:
    """A request without a first token does not make the first token look fast."""
    record = make_record(status="cancelled", usage=Usage(), ttft_ms=None, generation_ms=None)
    metrics.observe(record)
    samples = scrape(metrics)
    assert "provider_time_to_first_token_seconds_count" not in samples
    assert "provider_time_per_output_token_seconds_count" not in samples
    assert list(samples["provider_request_duration_seconds_count"].values()) == [1]


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_vllm_names_repeat_ours(metrics: Metrics, alias: str, name: str) -> None:
    """A board made for vLLM shows the same values, under the label it expects."""
    metrics.observe(make_record())
    samples = scrape(metrics)
    [value] = samples[name].values()
    assert value > 0
    assert samples[alias] == {frozenset({("model_name", "acme/m")}): value}


def test_engines_are_asked_at_scrape_time(metrics: Metrics, engines: dict[str, Engine]) -> None:
    """Gauges follow models that come and go."""
    model: Labels = frozenset({("model", "acme/m")})
    samples = scrape(metrics)
    assert samples["provider_requests_running"] == {model: 3}
    assert samples["provider_requests_waiting"] == {model: 2}
    assert samples["provider_slots"] == {model: 4}
    assert samples["provider_kv_cache_usage_ratio"] == {model: 0.25}
    assert samples["provider_engine_steps_total"] == {model: 7}
    assert samples["provider_draft_tokens_total"] == {model: 30}
    assert samples["provider_accepted_draft_tokens_total"] == {model: 20}
    engines["another"] = engines.pop("acme/m")
    assert scrape(metrics)["provider_slots"] == {frozenset({("model", "another")}): 4}


@pytest.mark.parametrize(("max_kv_tokens", "ratio"), [(None, 0.25), (200, 0.5), (100, 1.0)])
def test_a_full_cache_reads_1(
    metrics: Metrics,
    engines: dict[str, Engine],
    monkeypatch: pytest.MonkeyPatch,
    max_kv_tokens: int | None,
    ratio: float,
) -> None:
    """Of 100 tokens in four slots of 100, which may be allowed fewer together."""
    load = replace(engines["acme/m"].load(), max_kv_tokens=max_kv_tokens)
    monkeypatch.setattr(BusyEngine, "load", lambda _: load)
    for name in ("provider_kv_cache_usage_ratio", "vllm:kv_cache_usage_perc"):
        assert list(scrape(metrics)[name].values()) == [ratio]


def test_unknown_models_make_one_series(metrics: Metrics) -> None:
    """A client cannot fill the memory with labels (W6)."""
    for number in range(100):
        metrics.observe(make_record(model=f"invented-{number}"))
    samples = scrape(metrics)
    assert samples["provider_prompt_tokens_total"] == {frozenset({("model", "unknown")}): 500}


def test_http_answers_and_what_the_log_had(metrics: Metrics) -> None:
    """Refused requests appear here, where nothing was admitted."""
    metrics.count_response("/v1/chat/completions", 429)
    metrics.count_response("/v1/chat/completions", 429)
    samples = scrape(metrics)
    labels: Labels = frozenset({("route", "/v1/chat/completions"), ("code", "429")})
    assert samples["provider_http_responses_total"] == {labels: 2}
    assert samples["provider_log_lines_dropped_total"] == {frozenset(): 3}
    assert samples["provider_log_warnings_total"] == {frozenset({("event", "credits.low")}): 2}


def test_the_page_has_no_creation_times_and_the_process_s_own_metrics(metrics: Metrics) -> None:
    """Memory and CPU come along; series nobody reads do not."""
    metrics.observe(make_record())
    samples = scrape(metrics)
    assert not [name for name in samples if name.endswith("_created")]
    assert samples["process_resident_memory_bytes"][frozenset()] > 0


def test_two_servers_in_one_process_do_not_share_metrics(engines: dict[str, Engine]) -> None:
    """Each has its own registry."""
    first, second = Metrics(lambda: engines), Metrics(lambda: engines)
    first.observe(make_record())
    assert "provider_prompt_tokens_total" not in scrape(second)
    assert "provider_prompt_tokens_total" in scrape(first)
