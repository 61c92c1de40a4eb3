"""`LLMEngine`: an `EngineCore` on a thread of its own, behind the event loop.

The loop's thread only puts commands into an inbox; the engine's thread alone touches the runner
and the sequences. What a step made for all sequences returns in one `call_soon_threadsafe`.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from queue import SimpleQueue
from threading import Thread

from provider_core.engine.core import EngineCore
from provider_core.engine.sequence import Sequence, make_sequence
from provider_core.engines import Delivery, OnOutput, call_on_loop, check_request, deliver
from provider_core.errors import EngineDead
from provider_core.interfaces import Clock, EngineLoad, ModelRunner, RunnerInfo
from provider_core.types import EngineOutput, GenerationRequest


class LLMEngine:
    """Batches any number of sequences over one `ModelRunner`. Implements `interfaces.Engine`.

    All methods are called on the event loop's thread. The thread is not a daemon: call `close`.

    Args:
        runner: Warmed up. The engine closes it.
        loop: Where outputs are delivered; the running loop by default.
        prefill_chunk_tokens: Most prompt tokens computed in one step.
        target_itl_s: Inter-token latency of running sequences, to which prompts are cut.
        max_kv_tokens: Tokens (prompt and `max_tokens`) that running sequences may reserve
            together; by default what the slots hold. If a slot holds more, it is the limit of a
            sequence's length, too.
        speculates: Verify drafts of several ids when few sequences run.
        clock: For deadlines and `EngineLoad.step_started_s`.
        on_dead: Called once on the loop if the engine breaks, after every sequence got its error.
    """

    def __init__(
        self,
        runner: ModelRunner,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        prefill_chunk_tokens: int = 512,
        target_itl_s: float = 0.15,
        max_kv_tokens: int | None = None,
        speculates: bool = False,
        clock: Clock = time,
        on_dead: Callable[[EngineDead], None] | None = None,
    ) -> None:
        info = runner.info
        self._max_kv_tokens = info.max_num_seqs * info.max_model_len
        if max_kv_tokens is not None:
            self._max_kv_tokens = min(max_kv_tokens, self._max_kv_tokens)
        self._info = replace(info, max_model_len=min(info.max_model_len, self._max_kv_tokens))
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._clock = clock
        self._on_dead = on_dead
        self._core = EngineCore(
            runner,
            prefill_chunk_tokens=prefill_chunk_tokens,
            target_itl_s=target_itl_s,
            max_kv_tokens=self._max_kv_tokens,
            speculates=speculates,
            clock=clock,
            on_urgent=self._hand_over,
        )
        self._inbox: SimpleQueue[Sequence | str | None] = SimpleQueue()  # new, abort, close
        self._live: set[str] = set()  # ids submitted whose last output was not delivered
        self._num_submitted_prompt_tokens = 0
        self._step_started_s: float | None = None
        self._death: EngineDead | None = None
        self._is_closing = False
        self._ended = asyncio.Event()
        self._thread = Thread(target=self._run, name="engine")
        self._thread.start()

    @property
    def info(self) -> RunnerInfo:
        """Facts of the runner underneath, its length cut to what may be reserved."""
        return self._info

    def submit(self, request: GenerationRequest, on_output: OnOutput) -> None:
        """Take a sequence in.

        Args:
            request: Its id must not be in use.
            on_output: Called on the loop with each output; what it raises goes to the loop's
                exception handler.

        Raises:
            EngineDead: The engine is closed or broken.
            ContextLengthExceeded: The prompt leaves no room for one token.
            InvalidRequest: The prompt is empty, or holds ids the model does not have.
            ValueError: The request id is in use.
        """
        self.check_health()
        check_request(request, self._info, self._live)
        sequence = make_sequence(request, on_output, max_model_len=self._info.max_model_len)
        self._live.add(request.request_id)
        self._num_submitted_prompt_tokens += len(request.prompt_token_ids)
        self._inbox.put(sequence)

    def abort(self, request_id: str) -> None:
        """End a sequence; its last output has `finish_reason` `abort`. Unknown ids are ignored."""
        if request_id in self._live:
            self._inbox.put(request_id)

    def load(self) -> EngineLoad:
        """How busy it is, now; sequences the engine's thread has not seen yet are waiting."""
        core = self._core
        speculator = core.speculator
        num_running = min(core.scheduler.num_running, len(self._live))
        return EngineLoad(
            num_running=num_running,
            num_waiting=len(self._live) - num_running,
            num_waiting_prompt_tokens=max(
                0, self._num_submitted_prompt_tokens - core.num_settled_prompt_tokens
            ),
            num_slots=self._info.max_num_seqs,
            num_kv_tokens=core.scheduler.num_kv_tokens,
            num_steps=core.num_steps,
            num_prompt_tokens=core.num_prompt_tokens,
            num_cached_prompt_tokens=core.num_cached_prompt_tokens,
            num_generated_tokens=core.num_generated_tokens,
            step_started_s=self._step_started_s,
            prefill_s=core.prefill_s,
            num_draft_tokens=0 if speculator is None else speculator.num_draft_tokens,
            num_accepted_tokens=0 if speculator is None else speculator.num_accepted_tokens,
            max_kv_tokens=self._max_kv_tokens,
        )

    def check_health(self) -> None:
        """Return if it can serve.

        Raises:
            EngineDead: It is broken or closed.
        """
        if self._death is not None:
            raise EngineDead(self._death.message)
        if self._is_closing:
            raise EngineDead("the engine is closed")

    async def close(self) -> None:
        """Abort everything, wait for the running step, close the runner. Idempotent."""
        if not self._is_closing:
            self._is_closing = True
            self._inbox.put(None)
        await self._ended.wait()
        self._thread.join()

    def _run(self) -> None:
        """The engine's thread, from start to end."""
        core = self._core
        death: EngineDead | None = None
        try:
            while self._take_commands():
                self._step_started_s = self._clock.monotonic()
                core.step()
                self._step_started_s = None
                self._hand_over()
        except EngineDead as error:
            death = error
        except BaseException as error:  # noqa: BLE001 - whatever it was, nobody may wait forever
            death = EngineDead("the engine's own code failed")
            death.__cause__ = error
        self._step_started_s = None
        core.on_urgent = lambda: None  # in a cycle with us, the runner's memory would stay
        with ExitStack() as stack:  # each of these runs, in this reverse order, if others raise
            stack.callback(call_on_loop, self._loop, self._finish, death)
            stack.callback(core.runner.close)
            stack.callback(core.masks.close)
            stack.callback(self._hand_over)
            if death is None:
                core.abort_all()
            else:
                core.fail_all(death)

    def _take_commands(self) -> bool:
        """Read the inbox, waiting if there is nothing else to do; `False` means close."""
        inbox, core = self._inbox, self._core
        while not inbox.empty() or not core.scheduler.has_work:
            if inbox.empty():
                self._hand_over()  # aborts leave outputs without a step
            command = inbox.get()
            if command is None:
                return False
            if isinstance(command, Sequence):
                core.add(command)
            else:
                core.abort(command)
        return True

    def _hand_over(self) -> None:
        outputs, finished = self._core.take_outputs()
        if outputs:
            call_on_loop(self._loop, self._deliver, outputs, finished)

    def _deliver(self, outputs: list[Delivery], finished: list[str]) -> None:
        """On the loop: everything one step made."""
        self._live.difference_update(finished)
        deliver(outputs)

    def _finish(self, death: EngineDead | None) -> None:
        """On the loop, last: answer those who came too late, then tell the world."""
        self._death = death
        self._is_closing = True
        late = (
            EngineOutput((), "abort") if death is None else EngineOutput((), "error", error=death)
        )
        while not self._inbox.empty():
            command = self._inbox.get()
            if isinstance(command, Sequence):
                self._deliver([(command.on_output, late)], [command.request.request_id])
        self._ended.set()
        if death is not None and self._on_dead is not None:
            self._on_dead(death)
