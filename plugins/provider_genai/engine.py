"""`GenaiEngine`: the runtime on a thread of its own, behind the event loop."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

from provider_core import (
    EngineDead,
    EngineLoad,
    EngineOutput,
    GenerationRequest,
    ProviderError,
    RunnerInfo,
    SamplingParams,
)
from provider_core.engines import Delivery, OnOutput, call_on_loop, check_request, deliver
from provider_genai.folder import GenaiFolder
from provider_genai.runtime import STATIC_BATCH, UNSUPPORTED, Runtime
from provider_genai.settings import GenaiSettings

_T = TypeVar("_T")


@dataclass(slots=True)
class _Open:
    """A sequence whose last output was not delivered.

    Attributes:
        on_output: Counts, and hands on.
        num_tokens: Delivered so far.
    """

    num_prompt_tokens: int
    on_output: OnOutput
    num_tokens: int = 0


class GenaiEngine:
    """Runs sequences in onnxruntime-genai's engine. Implements `provider_core.Engine`.

    Made in any thread; blocks until the model is loaded and has made a token. The runtime lives on
    a thread of this engine, which `close` ends.

    Args:
        folder: The model's.
        settings: Where and how it runs.
        max_num_seqs: Sequences at once, if the runtime takes so many.
        max_model_len: Most tokens of a sequence.

    Raises:
        ConfigurationError: The model cannot be loaded.
    """

    def __init__(
        self,
        folder: GenaiFolder,
        settings: GenaiSettings,
        *,
        max_num_seqs: int,
        max_model_len: int,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._max_model_len = max_model_len
        self._inbox: SimpleQueue[tuple[GenerationRequest, OnOutput] | str | None] = SimpleQueue()
        self._open: dict[str, _Open] = {}
        self._loop: asyncio.AbstractEventLoop | None = None  # from the first request on
        self._death: EngineDead | None = None
        self._is_closing = False
        self._step_started_s: float | None = None
        self._num_steps = 0
        self._num_prompt_tokens = 0
        self._num_generated_tokens = 0
        loaded: Future[Runtime] = Future()
        self._thread = Thread(target=self._run, args=(loaded,), name="genai-engine")
        self._thread.start()
        runtime = loaded.result()
        unsupported = UNSUPPORTED if folder.batches_dynamically else UNSUPPORTED | {"seed"}
        self.info = RunnerInfo(
            backend="genai",
            backend_version=runtime.version,
            device=runtime.device,
            max_num_seqs=min(max_num_seqs, runtime.batch_size or STATIC_BATCH),
            max_model_len=max_model_len,
            vocab_size=folder.vocab_size,
            unsupported_params=unsupported,
        )

    def submit(self, request: GenerationRequest, on_output: OnOutput) -> None:
        """Take a sequence in; see `Engine`.

        Raises:
            EngineDead: The engine is closed or broken.
            ContextLengthExceeded: The prompt leaves no room for one token.
            InvalidRequest: The prompt is empty, or holds ids the model does not have.
            ValueError: The request id is in use.
        """
        self.check_health()
        check_request(request, self.info, self._open)
        self._loop = asyncio.get_running_loop()

        def count(output: EngineOutput) -> None:
            self._count(request.request_id, sequence, output)
            on_output(output)

        sequence = self._open[request.request_id] = _Open(len(request.prompt_token_ids), count)
        self._inbox.put((request, count))

    def abort(self, request_id: str) -> None:
        """End a sequence after the running step. Unknown ids are ignored."""
        if request_id in self._open:
            self._inbox.put(request_id)

    def load(self) -> EngineLoad:
        """How busy it is; the runtime does not say who of the open ones runs."""
        sequences = self._open.values()
        num_running = min(len(sequences), self.info.max_num_seqs)
        return EngineLoad(
            num_running=num_running,
            num_waiting=len(sequences) - num_running,
            num_waiting_prompt_tokens=sum(
                one.num_prompt_tokens for one in sequences if not one.num_tokens
            ),
            num_slots=self.info.max_num_seqs,
            num_kv_tokens=sum(
                one.num_prompt_tokens + one.num_tokens for one in sequences if one.num_tokens
            ),
            num_steps=self._num_steps,
            num_prompt_tokens=self._num_prompt_tokens,
            num_generated_tokens=self._num_generated_tokens,
            step_started_s=self._step_started_s,
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
        """Abort everything, wait for the running step, unload. Idempotent."""
        if not self._is_closing:
            self._is_closing = True
            self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def _count(self, request_id: str, sequence: _Open, output: EngineOutput) -> None:
        if output.token_ids and not sequence.num_tokens:
            self._num_prompt_tokens += sequence.num_prompt_tokens
        sequence.num_tokens += len(output.token_ids)
        self._num_generated_tokens += len(output.token_ids)
        if output.finish_reason is not None:
            del self._open[request_id]

    def _run(self, loaded: "Future[Runtime]") -> None:
        """The engine's thread, from start to end."""
        try:
            runtime = Runtime(self._folder, self._settings, self._max_model_len)
            _warm_up(runtime)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            loaded.set_exception(error)
            return
        loaded.set_result(runtime)
        last = EngineOutput((), "abort")
        try:
            while self._take_commands(runtime):
                self._step(runtime)
        except BaseException as error:  # noqa: BLE001 - whatever it was, nobody may wait forever
            self._death = (
                error
                if isinstance(error, EngineDead)
                else EngineDead("the engine's own code failed")
            )
            last = EngineOutput((), "error", error=self._death)
        self._is_closing = True
        self._call_soon(self._end_all, last)
        runtime.close()

    def _step(self, runtime: Runtime) -> None:
        """Run once, and deliver what was made even if the step dies."""
        made: list[Delivery] = []
        self._step_started_s = time.monotonic()
        try:
            runtime.step(made.append)
        finally:
            self._step_started_s = None
            self._deliver(made)
        self._num_steps += 1

    def _take_commands(self, runtime: Runtime) -> bool:
        """Read the inbox, waiting if there is nothing else to do; `False` means close."""
        while not self._inbox.empty() or not runtime.has_work:
            match self._inbox.get():
                case None:
                    return False
                case str() as request_id:
                    ended = runtime.abort(request_id)
                    self._deliver([ended] if ended else [])
                case request, on_output:
                    self._add(runtime, request, on_output)
        return True

    def _add(self, runtime: Runtime, request: GenerationRequest, on_output: OnOutput) -> None:
        if not request.sampling.max_tokens:  # which the runtime takes for no limit
            self._deliver([(on_output, EngineOutput((), "length"))])
            return
        try:
            runtime.add(request, on_output)
        except ProviderError as error:
            self._deliver([(on_output, EngineOutput((), "error", error=error))])

    def _deliver(self, outputs: list[Delivery]) -> None:
        """Hand over what a step made, in one call of the loop."""
        if outputs:
            self._call_soon(deliver, outputs)

    def _end_all(self, last: EngineOutput) -> None:
        """End what is open, on the loop, behind all that was delivered: nothing is forgotten."""
        deliver([(sequence.on_output, last) for sequence in self._open.values()])

    def _call_soon(self, call: Callable[[_T], None], argument: _T) -> None:
        """Have something called by the loop; in order."""
        if self._loop is not None:  # there was a request
            call_on_loop(self._loop, call, argument)


def _warm_up(runtime: Runtime) -> None:
    """Make one token, so that the first request does not pay for it."""
    request = GenerationRequest(
        request_id="warm-up",
        prompt_token_ids=(0,),
        sampling=SamplingParams(max_tokens=1, temperature=0.0),
    )
    runtime.add(request, lambda _: None)
    while runtime.has_work:
        runtime.step(lambda _: None)
