"""What the clock saw of one streamed answer, and the JSON of its events."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

Clock = Callable[[], float]
"""Seconds that only grow, such as `time.perf_counter`."""

DONE = b"[DONE]"
MAX_TOKENS = 1 << 24
"""Beyond any prompt and answer; a server that counts more of them does not count."""

_TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "tool_calls", "refusal")


@dataclass(slots=True)
class Reply:
    """One request as seen from outside. Times are seconds on one clock.

    Attributes:
        sent_s: Just before the request's bytes were given to the kernel.
        lag_s: How much later than planned that was; 0 in a closed loop.
        arrivals_s: When each event that held output arrived. Events of one read arrived together.
        ended_s: When the end of the stream arrived, or the request failed.
        output_tokens: Completion tokens as the server counted them, `None` if it did not say.
        prompt_tokens: Prompt tokens as the server counted them, `None` if it did not say.
        cached_tokens: Those of them that came from a prefix cache, as far as the server says.
        error: What kind of failure it was, `None` for a whole answer.
        detail: The failure in the server's or the system's words.
    """

    sent_s: float = 0.0
    lag_s: float = 0.0
    arrivals_s: list[float] = field(default_factory=list)
    ended_s: float = 0.0
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    is_finished: bool = False  # the server said that the text is complete
    error: str | None = None
    detail: str = ""

    @property
    def num_tokens(self) -> int:
        """Output tokens: the server's count, or else the events that held output."""
        return len(self.arrivals_s) if self.output_tokens is None else self.output_tokens

    @property
    def ttft_s(self) -> float:
        """Time to the first output, which there must be."""
        return self.arrivals_s[0] - self.sent_s

    @property
    def total_s(self) -> float:
        """Time to the end."""
        return self.ended_s - self.sent_s

    def fail(self, kind: str, detail: str = "") -> None:
        """Note a failure; the first one stands."""
        if self.error is None:
            self.error, self.detail = kind, detail

    def take(self, payload: bytes, now_s: float) -> None:
        """Note one event's `data`.

        Args:
            payload: JSON of a chat or text completion chunk, of llama-server's own `/completion`,
                or the terminator.
            now_s: When its bytes arrived.
        """
        if payload == DONE:
            self.is_finished = True
            self.ended_s = now_s
            return
        try:
            self._take_event(orjson.loads(payload), now_s)
        except (ValueError, AttributeError, TypeError):  # no JSON, or none of any known shape
            self.fail("bad_event", payload[:200].decode(errors="replace"))

    def _take_event(self, event: dict[str, Any], now_s: float) -> None:  # JSON of any server
        if _holds_output(event):
            self.arrivals_s.append(now_s)
        if event.get("usage") is not None:
            self._take_usage(event["usage"])
        elif "tokens_predicted" in event and event.get("stop"):
            self.output_tokens = token_count(event["tokens_predicted"])
            self.prompt_tokens = token_count(event.get("tokens_evaluated"))
            self.is_finished = True
            self.ended_s = now_s
        if event.get("error"):
            self.fail("error_event", error_message(event))

    def _take_usage(self, usage: dict[str, Any]) -> None:  # JSON of any server
        self.output_tokens = token_count(usage.get("completion_tokens"))
        self.prompt_tokens = token_count(usage.get("prompt_tokens"))
        details = usage.get("prompt_tokens_details") or {}
        self.cached_tokens = token_count(details.get("cached_tokens")) or 0


def token_count(value: Any) -> int | None:  # JSON of any server
    """A number of tokens, `None` if the server gives none; some write it with a decimal point.

    Raises:
        ValueError: It is something else.
    """
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 <= value <= MAX_TOKENS and value == int(value):
        return int(value)
    raise ValueError("not a number of tokens")


def _holds_output(event: dict[str, Any]) -> bool:  # JSON of any server
    """Whether an event carries a token.

    A token may have no text of its own (a special one, half of a character), and some servers
    write an event with empty text for it. Such an event counts unless it only says who speaks or
    how the text ended.
    """
    for choice in event.get("choices") or ():
        is_between = choice.get("finish_reason") is None
        if choice.get("text") or ("text" in choice and is_between):
            return True
        delta = choice.get("delta")
        if delta and any(delta.get(name) for name in _TEXT_FIELDS):
            return True
        if delta and is_between and delta.get("content") == "" and "role" not in delta:
            return True
    return bool(event.get("content")) or event.get("stop") is False


def error_message(body: Any) -> str:  # JSON of any server
    """What a server says went wrong, in OpenAI's shape or any other."""
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)
