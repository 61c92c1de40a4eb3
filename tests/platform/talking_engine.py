"""A backend whose answers say how many seconds it was given: `235.........`.

It is quick to load, and loads when it is allowed to. As a plugin of a process it waits for the file
that the variable `TALKING_GATE` names.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from provider_core import (
    Engine,
    EngineLoad,
    EngineOutput,
    GenerationRequest,
    ModelSpec,
    RunnerInfo,
    hookimpl,
)
from provider_core.errors import DeadlineExceeded

TOKEN_S = 0.02
_POLL_S = 0.01
_FIRST_PRINTABLE = 33  # the tokenizer of tests.serving gives it the id 0


class TalkingEngine:
    """Says how long it may talk, then dots, one token each `TOKEN_S`, up to `max_tokens`."""

    def __init__(self, model: ModelSpec) -> None:
        self.info = RunnerInfo(
            backend="talking",
            backend_version="1",
            device="cpu",
            max_num_seqs=model.max_num_seqs,
            max_model_len=model.max_model_len,
            vocab_size=259,
        )
        self._num_slots = model.max_num_seqs
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def load(self) -> EngineLoad:
        """As many as talk."""
        return EngineLoad(
            num_running=len(self._tasks),
            num_waiting=0,
            num_waiting_prompt_tokens=0,
            num_slots=self._num_slots,
            num_kv_tokens=0,
            num_steps=0,
            num_prompt_tokens=0,
            num_generated_tokens=0,
            step_started_s=None,
        )

    def check_health(self) -> None:
        """It is well."""

    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Begin to talk."""
        task = asyncio.get_running_loop().create_task(self._talk(request, on_output))
        self._tasks[request.request_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(request.request_id, None))

    def abort(self, request_id: str) -> None:
        """Stop talking."""
        if request_id in self._tasks:
            self._tasks[request_id].cancel()

    async def close(self) -> None:
        """Stop all talking."""
        for task in list(self._tasks.values()):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _talk(
        self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]
    ) -> None:
        deadline_s = request.deadline_s
        assert deadline_s is not None
        text = f"{deadline_s - time.monotonic():.0f}"
        num_tokens = request.sampling.max_tokens
        try:
            for place in range(num_tokens):
                if time.monotonic() >= deadline_s:
                    error = DeadlineExceeded("the request's deadline passed")
                    on_output(EngineOutput((), "error", error=error))
                    return
                char = text[place] if place < len(text) else "."
                is_last = place == num_tokens - 1
                ids = (ord(char) - _FIRST_PRINTABLE,)
                on_output(EngineOutput(ids, "length" if is_last else None))
                if is_last:
                    return
                await asyncio.sleep(TOKEN_S)
        except asyncio.CancelledError:
            on_output(EngineOutput((), "abort"))


class TalkingBackend:
    """The plugin.

    Args:
        wait: Returns when the model may be loaded; called in the loading thread.
    """

    def __init__(self, wait: Callable[[], object]) -> None:
        self._wait = wait

    @hookimpl
    def load_model(self, model: ModelSpec) -> Engine:
        """Load any model, when it is time."""
        self._wait()
        return TalkingEngine(model)


def _wait_for_file() -> None:
    path = Path(os.environ["TALKING_GATE"])  # noqa: TID251 - no setting of the server
    while not path.exists():
        time.sleep(_POLL_S)


plugin = TalkingBackend(_wait_for_file)
