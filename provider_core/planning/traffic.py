"""Who asks when: the arrivals of a Poisson process, of a trace, or of a server's own usage log."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from provider_core.errors import ConfigurationError
from provider_core.loadtest.arrivals import poisson_arrivals
from provider_core.loadtest.workload import Length


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as far as a plan needs it.

    Attributes:
        at_s: Seconds after the start; 0 in a trace without times.
        prompt_tokens: At least 1.
        output_tokens: At least 1.
    """

    at_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests of a file.

    Attributes:
        arrivals: In the order of their times, the first at 0 s; in that of the file if it has none.
        has_times: Whether the file says when they came.
    """

    arrivals: Sequence[Arrival]
    has_times: bool


def poisson_traffic(
    *,
    rate: float,
    duration_s: float,
    requests: Sequence[Arrival] = (),
    prompt_tokens: Length,
    output_tokens: Length,
    seed: int,
) -> list[Arrival]:
    """Requests at the times of a Poisson process.

    Args:
        rate: Mean arrivals per second.
        duration_s: In which they come.
        requests: To take in turn, at other times; without any, lengths are drawn.
        prompt_tokens: Of each request that is drawn.
        output_tokens: The same.
        seed: Gives the same traffic again.
    """
    random = np.random.default_rng((seed, 1))
    times = takewhile(lambda at_s: at_s < duration_s, poisson_arrivals(rate, (seed, 0)))
    if requests:
        return [replace(requests[i % len(requests)], at_s=at_s) for i, at_s in enumerate(times)]
    return [Arrival(at_s, prompt_tokens.draw(random), output_tokens.draw(random)) for at_s in times]


def read_traffic(path: Path, *, output_tokens: Length | None, seed: int) -> Trace:
    """Read requests from a file of one JSON object a line.

    A line is what `provider bench --trace` takes, with `prompt_tokens` or a `prompt` of token ids,
    `max_tokens` and `timestamp` in seconds; or it is of a server's log, of which `usage.final`
    counts and all else is passed over.

    Args:
        path: The file.
        output_tokens: Of lines without `max_tokens`.
        seed: Draws them.

    Raises:
        ConfigurationError: The file cannot be read, or a line does not say what is needed.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"the trace {path} cannot be read: {error.strerror}") from error
    random = np.random.default_rng((seed, 2))
    found: list[tuple[float | None, int, int]] = []
    events: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = orjson.loads(line)
            if not isinstance(fields, dict):
                fields = {}  # says nothing of what is needed
            if "event" not in fields:
                found.append(_planned(fields, output_tokens, random))
            elif fields["event"] == "usage.final" and fields["event_id"] not in events:
                events.add(fields["event_id"])  # a line may come twice
                found += _logged(fields)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"{path}, line {number}: {error}") from error
    if not found:
        raise ConfigurationError(f"the trace {path} holds no request")
    times = [at_s for at_s, _, _ in found if at_s is not None]
    if times and len(times) < len(found):
        raise ConfigurationError(f"{path}: some lines have a timestamp and some have none")
    start_s = min(times, default=0.0)
    arrivals = [
        Arrival(start_s if at_s is None else at_s, num_in, num_out)
        for at_s, num_in, num_out in found
    ]
    arrivals = [replace(each, at_s=each.at_s - start_s) for each in arrivals]
    return Trace(sorted(arrivals, key=lambda each: each.at_s), has_times=bool(times))


def _planned(
    fields: dict[str, Any], output_tokens: Length | None, random: np.random.Generator
) -> tuple[float | None, int, int]:  # JSON
    """One line of a trace.

    Raises:
        ValueError: It does not say how many tokens there are.
    """
    prompt = fields.get("prompt")
    num_prompt = len(prompt) if isinstance(prompt, list) else int(fields.get("prompt_tokens") or 0)
    if num_prompt < 1:
        raise ValueError("neither prompt_tokens nor a prompt of token ids; text is not counted")
    if fields.get("max_tokens"):
        num_output = int(fields["max_tokens"])
    elif output_tokens is not None:
        num_output = output_tokens.draw(random)
    else:
        raise ValueError("no max_tokens; give --output-tokens")
    at_s = fields.get("timestamp")
    return None if at_s is None else float(at_s), num_prompt, max(1, num_output)


def _logged(fields: dict[str, Any]) -> list[tuple[float | None, int, int]]:  # JSON
    """One bill, if tokens were made for it."""
    if not fields["prompt_tokens"] or not fields["generated_tokens"]:
        return []
    at_s = datetime.fromisoformat(fields["received_at"]).timestamp()
    return [(at_s, fields["prompt_tokens"], fields["generated_tokens"])]
