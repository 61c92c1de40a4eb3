"""Run sequences through an `Engine` and look at what came out; raise when it is not allowed."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from provider_core.interfaces import Engine
from provider_core.types import EngineOutput, GenerationRequest, Grammar, SamplingParams

TIMEOUT_S = 60.0
"""How long the contracts wait for what must come: enough for a slow model, slowly."""


class ContractViolation(AssertionError):
    """A runner or an engine does what its contract forbids; the message says what and where."""


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@dataclass(eq=False)
class Recorder:
    """Takes one sequence's outputs and checks their order and their thread as they come.

    Made on the event loop's thread, or where there is none and nobody waits.

    Attributes:
        request_id: Of the sequence.
        outputs: All of them so far.
        started: Set by the first output that holds an id.
        finished: Set by the last output.
    """

    request_id: str
    outputs: list[EngineOutput] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    violation: str | None = None
    _thread_id: int = field(default_factory=threading.get_ident)
    _loop: asyncio.AbstractEventLoop | None = field(default_factory=_running_loop)

    def __call__(self, output: EngineOutput) -> None:
        """Take one output; the engine calls this."""
        if threading.get_ident() != self._thread_id:
            self.violation = f"an output came on another thread than the loop's: {output}"
            if self._loop is not None:  # which alone may set events
                self._loop.call_soon_threadsafe(self._take, output)
        else:
            self._take(output)

    def _take(self, output: EngineOutput) -> None:
        if self.finished.is_set():
            self.violation = f"an output came after the last one: {output}"
        self.outputs.append(output)
        if output.token_ids:
            self.started.set()
        if output.finish_reason is not None:
            self.finished.set()

    @property
    def token_ids(self) -> list[int]:
        """Every id so far."""
        return [token_id for output in self.outputs for token_id in output.token_ids]

    async def result(self, timeout_s: float = TIMEOUT_S) -> EngineOutput:
        """Wait for the last output.

        Raises:
            ContractViolation: It did not come, came twice, or came on another thread.
        """
        await self.wait_for(self.finished, "never finished", timeout_s)
        if self.violation is not None:
            raise ContractViolation(f"sequence {self.request_id}: {self.violation}")
        return self.outputs[-1]

    async def wait_for(
        self, event: asyncio.Event, complaint: str, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Wait for one of the recorder's events.

        Raises:
            ContractViolation: It did not come; says `complaint`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            raise ContractViolation(
                f"sequence {self.request_id} {complaint} in {timeout_s} s;"
                f" outputs so far: {self.outputs}"
            ) from None


def submit(
    engine: Engine,
    request_id: str,
    prompt_token_ids: Sequence[int],
    sampling: SamplingParams,
    *,
    eos_token_ids: frozenset[int] = frozenset(),
    deadline_s: float | None = None,
    fairness_key: str = "",
    grammar: Grammar | None = None,
) -> Recorder:
    """Submit one sequence and record its outputs."""
    recorder = Recorder(request_id)
    request = GenerationRequest(
        request_id=request_id,
        prompt_token_ids=tuple(prompt_token_ids),
        sampling=sampling,
        eos_token_ids=eos_token_ids,
        deadline_s=deadline_s,
        fairness_key=fairness_key,
        grammar=grammar,
    )
    engine.submit(request, recorder)
    return recorder


async def generate(
    engine: Engine, request_id: str, prompt_token_ids: Sequence[int], sampling: SamplingParams
) -> list[int]:
    """Run one sequence to its end and return its ids.

    Raises:
        ContractViolation: It ended with an error.
    """
    recorder = submit(engine, request_id, prompt_token_ids, sampling)
    return succeeded(recorder, await recorder.result())


def succeeded(recorder: Recorder, last: EngineOutput) -> list[int]:
    """The ids of a sequence that must have ended by itself.

    Raises:
        ContractViolation: It ended with an error or was aborted.
    """
    if last.finish_reason not in {"stop", "length"}:
        raise ContractViolation(
            f"sequence {recorder.request_id} ended with {last.finish_reason!r}: {last.error!r}"
        )
    return recorder.token_ids
