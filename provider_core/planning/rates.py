"""Measured rates: the rounds of a report that `provider bench --json` wrote."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from provider_core.errors import ConfigurationError
from provider_core.loadtest.report_json import SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRound:
    """One round of one server.

    Attributes:
        load: How the report names it.
        concurrency: Clients of a closed loop; `None` in an open one.
        rate: Requests per second that a Poisson process asked for; `None` where times were a
            trace's, or clients waited.
        num_requests: Whole answers.
        wall_s: From the first request sent to the last answer ended.
        prompt_tokens: Mean of a request's, without those from a prefix cache.
        output_tokens: Mean of an answer's.
        ttft_s: Mean time to the first token.
        ttft_p50_s: Its median.
        itl_s: Mean inter-token latency.
    """

    load: str
    concurrency: int | None
    rate: float | None
    num_requests: int
    wall_s: float
    prompt_tokens: float
    output_tokens: float
    ttft_s: float
    ttft_p50_s: float
    itl_s: float

    @property
    def requests_per_s(self) -> float:
        """Whole answers per second."""
        return self.num_requests / self.wall_s

    @property
    def output_tokens_per_s(self) -> float:
        """Output tokens per second."""
        return self.requests_per_s * self.output_tokens

    @property
    def decoding_rows(self) -> float:
        """Answers that were being written, on average over the time: Little's law."""
        return self.requests_per_s * (self.output_tokens - 1) * self.itl_s


@dataclass(frozen=True, slots=True)
class Rates:
    """What a benchmark says of one server.

    Attributes:
        warnings: Why its figures may be worth less than they look, for people.
    """

    rounds: Sequence[MeasuredRound]
    warnings: Sequence[str] = ()


def read_rates(path: Path, server: str | None = None) -> Rates:
    """Read a report.

    Args:
        path: What `provider bench --json` wrote.
        server: Label of one of its servers; the first one by default.

    Raises:
        ConfigurationError: It cannot be read, is no such report, or has no round that can be used:
            whole, without errors, its prompts counted by the server, its answers of several tokens.
    """
    try:
        document = orjson.loads(path.read_bytes())
        schema = document["schema"]
        label = server or str(document["targets"][0]["label"])
        found = list(_rounds(document, label))
    except OSError as error:
        raise ConfigurationError(f"the rates {path} cannot be read: {error.strerror}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{path} is no report of provider bench --json: {type(error).__name__} {error}"
        ) from error
    if schema != SCHEMA:
        raise ConfigurationError(f"{path} is of schema {schema!r} and not {SCHEMA!r}")
    if not found:
        raise ConfigurationError(
            f"{path} has no round of {label} without errors, with prompts that the server counted "
            "and answers of several tokens"
        )
    warnings = []
    if document.get("quiet") is False:
        warnings.append("The rates were measured on a machine that was not quiet.")
    return Rates(found, warnings)


def _rounds(document: dict[str, Any], label: str) -> Iterator[MeasuredRound]:  # JSON
    for point in document["points"]:
        for target in point["targets"]:
            for turn in target["rounds"]:
                is_whole = turn["whole"] and turn["ok"] and not turn["errors"]
                is_counted = turn["prompt_tokens"] and turn["output_tokens"] > turn["ok"]
                if target["label"] == label and is_whole and is_counted:
                    yield _round(point, turn)


def _round(point: dict[str, Any], turn: dict[str, Any]) -> MeasuredRound:  # JSON
    metrics, num_requests = turn["metrics"], turn["ok"]
    concurrency, rate = point["concurrency"], point["rate"]
    load = f"c={concurrency}" if rate is None else f"{rate:g}/s"
    return MeasuredRound(
        load="trace" if concurrency is None and rate is None else load,
        concurrency=concurrency,
        rate=rate,
        num_requests=num_requests,
        wall_s=turn["wall_s"],
        prompt_tokens=(turn["prompt_tokens"] - turn["cached_tokens"]) / num_requests,
        output_tokens=turn["output_tokens"] / num_requests,
        ttft_s=metrics["ttft_mean_ms"] / 1000,
        ttft_p50_s=metrics["ttft_p50_ms"] / 1000,
        itl_s=metrics["itl_mean_ms"] / 1000,
    )
