"""Many replies as few numbers, under the names the field uses.

- TTFT: from sending to the first event that holds output.
- ITL: the time between two consecutive tokens of one answer, one sample per token after the first,
  over all answers (vLLM's `bench serve`). Tokens that arrive together are 0 apart: the server's
  count says how many there were, the events when. So all samples of an answer add up to the
  time from its first token to its last, and a pause counts as what a reader sees of it.
- TPOT: that time divided by the tokens after the first, one sample per answer (vLLM; NVIDIA's
  genai-perf and AIPerf call this one the inter-token latency).
- E2E: from sending to the end of the stream, usage event and terminator included.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from provider_core.errors import ConfigurationError
from provider_core.loadtest.replies import Reply

PERCENTILES = (50, 90, 95, 99)
LATENCIES = ("ttft", "itl", "tpot", "e2e")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")


def inter_token_latencies(replies: Sequence[Reply]) -> "Distribution":
    """Between consecutive tokens: of each answer that has output, one less than its tokens."""
    gaps = [np.diff(np.asarray(reply.arrivals_s, dtype=np.float64)) for reply in replies]
    num_together = sum(max(0, reply.num_tokens - len(reply.arrivals_s)) for reply in replies)
    return Distribution.of(np.concatenate(gaps) if gaps else (), num_zeros=num_together)


def time_per_output_token(reply: Reply) -> float:
    """Mean seconds per token after the first; 0 for a single token."""
    span_s = reply.arrivals_s[-1] - reply.arrivals_s[0]
    return span_s / (reply.num_tokens - 1) if reply.num_tokens > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Slo:
    """What a good answer is. All times in seconds, `None` asks nothing.

    Attributes:
        ttft: Most time to the first token.
        itl: Most time between two tokens, for 95 of 100 of an answer's own.
        tpot: Most mean time per token after the first.
        e2e: Most time to the end.
    """

    ttft: float | None = None
    itl: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Slo":
        """Read `ttft=500ms,itl=100ms`; units are `ms` and `s`.

        Raises:
            ConfigurationError: It is not of that form.
        """
        limits: dict[str, float] = {}
        for part in text.split(","):
            name, _, value = part.strip().partition("=")
            match = _DURATION.fullmatch(value.strip())
            if name not in LATENCIES or match is None:
                raise ConfigurationError(
                    f"{part.strip()!r} is not a limit such as ttft=500ms; "
                    f"known are {', '.join(LATENCIES)}"
                )
            limits[name] = float(match[1]) / (1000 if match[2] == "ms" else 1)
        return cls(**limits)

    def __str__(self) -> str:
        limits = ((name, getattr(self, name)) for name in LATENCIES)
        return ",".join(f"{name}={1000 * s:g}ms" for name, s in limits if s is not None)

    def is_met(self, reply: Reply) -> bool:
        """Whether an answer is whole and within every limit."""
        if reply.error is not None or not reply.arrivals_s:
            return False
        measured = {
            "ttft": reply.ttft_s,
            "itl": inter_token_latencies([reply]).p95,
            "tpot": time_per_output_token(reply),
            "e2e": reply.total_s,
        }
        limits = ((value, getattr(self, name)) for name, value in measured.items())
        return all(limit is None or value <= limit for value, limit in limits)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Seconds.

    Attributes:
        curve: The 0th to the 100th percentile, for plots; empty without samples.
    """

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    curve: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, samples: Sequence[float] | npt.NDArray[np.float64], *, num_zeros: int = 0
    ) -> "Distribution":
        """Of any number of samples; percentiles are interpolated linearly.

        Args:
            samples: Not negative.
            num_zeros: Further samples of 0, as many as a server says, so that they are not stored.
        """
        count = num_zeros + len(samples)
        if not count:
            return cls()
        ranks = np.arange(num_zeros - 1, count)  # of the last zero, then of each sample
        values = np.concatenate([[0.0], np.sort(samples)])
        curve = np.interp(np.linspace(0, count - 1, 101), ranks, values)
        curve = np.maximum.accumulate(curve).tolist()  # rounding may turn it down by a bit
        return cls(
            count=count,
            mean=float(np.sum(samples)) / count,
            **{f"p{p}": curve[p] for p in PERCENTILES},
            curve=tuple(curve),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a round of replies comes to. Tokens and latencies are those of whole answers.

    Attributes:
        wall_s: From the first request sent to the last answer ended; with a rate, at least all of
            the time in which it was kept up.
        num_requests: Sent and ended, whole or not.
        errors: How many answers failed, by kind.
        error_details: One failure of each kind, in the server's or the system's words.
        counted_by: Whether output tokens are the server's counts, or events that held output.
        prompt_tokens: As counted by the server; 0 if it does not say.
        cached_tokens: Those of them from a prefix cache, as far as the server says.
        offered_per_s: Requests sent per second, `None` where no rate was asked for.
        goodput_per_s: Answers per second that met the SLO, `None` without one.
        num_events: Events that held text.
        lag: How late requests were sent, of an open loop.
    """

    wall_s: float
    num_requests: int
    num_ok: int
    errors: Mapping[str, int]
    error_details: Mapping[str, str]
    counted_by: str
    output_tokens: int
    prompt_tokens: int
    cached_tokens: int
    offered_per_s: float | None
    goodput_per_s: float | None
    num_events: int
    ttft: Distribution
    itl: Distribution
    tpot: Distribution
    e2e: Distribution
    lag: Distribution

    @property
    def output_tokens_per_s(self) -> float:
        """Output tokens of whole answers over the wall time."""
        return self.output_tokens / self.wall_s if self.wall_s else 0.0

    @property
    def prompt_tokens_per_s(self) -> float:
        """Prompt tokens of whole answers over the wall time."""
        return self.prompt_tokens / self.wall_s if self.wall_s else 0.0

    @property
    def requests_per_s(self) -> float:
        """Whole answers over the wall time."""
        return self.num_ok / self.wall_s if self.wall_s else 0.0


def summarise(
    replies: Sequence[Reply],
    slo: Slo | None = None,
    *,
    sending: tuple[float, float] | None = None,
) -> Summary:
    """Reduce the replies of a round.

    Args:
        replies: All of them; there may be none.
        slo: What a good one is.
        sending: Begin and end, on the clock of the replies, of the time in which requests were sent
            at a rate. Throughput is over all of it: that nothing came at its end is part of it.
    """
    ok = [reply for reply in replies if reply.error is None and reply.arrivals_s]
    begin_s, end_s = sending or (math.inf, -math.inf)
    begin_s = min([begin_s, *(reply.sent_s for reply in replies)])
    wall_s = max(0.0, max([end_s, *(reply.ended_s for reply in replies)]) - begin_s)
    errors = Counter(
        reply.error or "no_output" for reply in replies if reply.error or not reply.arrivals_s
    )
    num_good = sum(slo.is_met(reply) for reply in ok) if slo else 0
    return Summary(
        wall_s=wall_s,
        num_requests=len(replies),
        num_ok=len(ok),
        errors=dict(errors),
        error_details={reply.error: reply.detail for reply in replies if reply.error is not None},
        counted_by=_counted_by(ok),
        output_tokens=sum(reply.num_tokens for reply in ok),
        prompt_tokens=sum(reply.prompt_tokens or 0 for reply in ok),
        cached_tokens=sum(reply.cached_tokens for reply in ok),
        offered_per_s=_offered(len(replies), sending),
        goodput_per_s=num_good / wall_s if slo and wall_s else None,
        num_events=sum(len(reply.arrivals_s) for reply in replies),
        ttft=Distribution.of([reply.ttft_s for reply in ok]),
        itl=inter_token_latencies(ok),
        tpot=Distribution.of([time_per_output_token(r) for r in ok if r.num_tokens > 1]),
        e2e=Distribution.of([reply.total_s for reply in ok]),
        lag=Distribution.of([reply.lag_s for reply in replies]),
    )


def _offered(num_requests: int, sending: tuple[float, float] | None) -> float | None:
    if sending is None or sending[1] <= sending[0]:
        return None
    return num_requests / (sending[1] - sending[0])


def _counted_by(replies: Sequence[Reply]) -> str:
    counted = {reply.output_tokens is not None for reply in replies}
    return {(): "nothing", (True,): "usage", (False,): "events"}.get(tuple(counted), "both")
