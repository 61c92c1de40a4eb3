"""Lines for people: the same JSON lines, coloured and shortened, when stdout is a terminal."""

import json

from structlog.dev import ConsoleRenderer, plain_traceback

_SHORT_USAGE = (
    "event",
    "timestamp",
    "generation_id",
    "model",
    "prompt_tokens",
    "completion_tokens",
    "cost",
    "ttft_ms",
    "latency_ms",
    "status",
)


class PrettyLines:
    """Renders JSON lines for a terminal.

    Args:
        colors: Whether the terminal shows them.
    """

    def __init__(self, *, colors: bool) -> None:
        self._render = ConsoleRenderer(
            colors=colors, exception_formatter=plain_traceback, sort_keys=False
        )

    def __call__(self, line: bytes) -> bytes:
        """Turn one line into one or, with a traceback, several."""
        fields = json.loads(line)
        if fields.get("event") == "usage.final":
            fields = {name: fields.get(name) for name in _SHORT_USAGE}
        shown = {
            name: value if isinstance(value, str | int | float) else json.dumps(value)
            for name, value in fields.items()
            if value is not None
        }
        # The logger and the method are not looked at by this renderer.
        return str(self._render(None, "", shown)).encode("utf-8", "replace") + b"\n"
