"""A response as a stream of numbered events, or whole, as the last of them has it."""

from typing import Any, ClassVar

from provider_core.dialects.openai.chunks import KEEPALIVE
from provider_core.dialects.openai.errors import error_object
from provider_core.dialects.openai.responses_api.output import Output, Told
from provider_core.dialects.openai.responses_api.resource import ResponseHead, final_status
from provider_core.dialects.openrouter.errors import error_type
from provider_core.dialects.sse_json import dumps
from provider_core.text.events import Event, Finished
from provider_core.types import Usage


class ResponseStreamEncoder:
    """The stream of one response; there is no terminator behind its last event.

    Args:
        head: What is known of it.
        output: Collects its items.
    """

    keepalive: ClassVar[bytes] = KEEPALIVE

    def __init__(self, head: ResponseHead, output: Output) -> None:
        self._head = head
        self._output = output
        self._num_events = 0
        self._finished: Finished | None = None

    def first(self, _index: int) -> bytes:
        """The response as it begins, twice: created, and in progress."""
        response = self._head.response()
        return self._event({"type": "response.created", "response": response}) + self._event(
            {"type": "response.in_progress", "response": response}
        )

    def encode(self, event: Event) -> bytes:
        """The bytes of one event; none for the finish, which waits for the counts."""
        if type(event) is Finished:
            self._finished = event
            return b""
        return b"".join(map(self._event, self._output.take(event)))

    def end(self, usage: Usage, cost: str | None = None) -> bytes:
        """The end of the last item, and the whole response.

        Args:
            usage: The final counts.
            cost: USD as decimal digits; told under `/api/v1` only.
        """
        status = final_status(self._finished)
        if status == "failed":
            return self.error(self._finished.error if self._finished else None, usage, cost)
        closing = self._output.close("incomplete" if status == "incomplete" else "completed")
        response = self._head.response(status, self._output.items, usage=usage, cost=cost)
        last = {"type": f"response.{status}", "response": response}
        return b"".join(map(self._event, [*closing, last]))

    def error(
        self, error: BaseException | None, usage: Usage | None = None, cost: str | None = None
    ) -> bytes:
        """The last bytes of a stream that failed: what is wrong, and the response so far.

        Args:
            error: Of a `ProviderError` the message is shown, of anything else nothing.
            usage: The counts so far, if they are to be sent.
            cost: USD as decimal digits; told under `/api/v1` only.
        """
        shown = error_object(error)
        failure = {"type": "error"} | {name: shown[name] for name in ("code", "message", "param")}
        if self._head.openrouter:
            failure["error_type"] = error_type(error)
        closing = self._output.close("incomplete")
        response = self._head.response(
            "failed", self._output.items, usage=usage, cost=cost, error=error
        )
        last = {"type": "response.failed", "response": response}
        return b"".join(map(self._event, [*closing, failure, last]))

    def _event(self, told: Told) -> bytes:
        numbered = {"type": told["type"], "sequence_number": self._num_events, **told}
        self._num_events += 1
        return b"event: %b\ndata: %b\n\n" % (told["type"].encode(), dumps(numbered))


def whole_response(
    head: ResponseHead, output: Output, events: list[Event], usage: Usage, cost: str | None = None
) -> dict[str, Any]:
    """The response to all events of a choice that did not fail, for `orjson.dumps`.

    Args:
        head: What is known of it.
        output: Collects its items.
        events: Of one choice, its end included.
        usage: The final counts.
        cost: USD as decimal digits; told under `/api/v1` only.
    """
    finished = None
    for event in events:
        output.take(event)
        if type(event) is Finished:
            finished = event
    status = final_status(finished)
    output.close("incomplete" if status == "incomplete" else "completed")
    return head.response(status, output.items, usage=usage, cost=cost)
