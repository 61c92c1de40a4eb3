"""What the SDK's process has to know of the server."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Sent once, when requests are served.

    Attributes:
        socket_path: Where the server listens.
        model: For jobs that name none.
        api_key: Of jobs that bring none; they are billed to it.
        concurrency: Jobs at a time.
        stream_window_s: Streamed events are sent together for so long.
        stream_window_bytes: Or until they are so many.
        progress_s: How often a job that does not stream says that it runs; 0 is never.
    """

    socket_path: str
    model: str
    api_key: str | None
    concurrency: int
    stream_window_s: float
    stream_window_bytes: int
    progress_s: float
