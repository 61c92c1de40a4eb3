"""`UpstreamEngine`: one HTTP request for each sequence."""

import asyncio
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlsplit

import aiohttp

from provider_core import (
    BackendError,
    DeadlineExceeded,
    EngineDead,
    EngineLoad,
    EngineOutput,
    GenerationRequest,
    Overloaded,
    ProviderError,
    RunnerInfo,
    Unavailable,
)
from provider_core.engines import OnOutput, check_request
from provider_upstream.discovery import Upstream
from provider_upstream.piece_encoder import PieceEncoder
from provider_upstream.settings import UpstreamSettings
from provider_upstream.wire import DONE, VLLM_ONLY, Chunk, events, read_chunk, request_body

NEVER = frozenset({"grammar", "prompt_logprobs", "top_a"})
"""What no dialect of an upstream is asked for."""

KEEP_ALIVE_S = 4.0
"""For idle connections: less than the 5 s of uvicorn, under vLLM, so that we let go first."""

UNREACHABLE = "the upstream cannot be reached"

PROBE_S = 1.0
RETRY_S = 1.0
MAX_RETRY_S = 60.0


@dataclass(slots=True)
class _Open:
    """A sequence that has not ended.

    Attributes:
        num_tokens: Made so far.
        num_cached: Prompt tokens that the upstream had, which it says last.
    """

    request: GenerationRequest
    task: asyncio.Task[EngineOutput]
    num_tokens: int = 0
    num_cached: int = 0


class UpstreamEngine:
    """Forwards sequences to a server. Implements `provider_core.Engine`.

    As many are sent at once as there are slots; the rest wait for a connection, in order. A
    sequence that is aborted closes its connection, which is how HTTP tells the upstream.

    Args:
        upstream: What it is.
        settings: How it is reached.
        encoder: For text, if it gives no ids.
        max_num_seqs: Requests at once.
        max_model_len: Most tokens of a sequence.
    """

    def __init__(
        self,
        upstream: Upstream,
        settings: UpstreamSettings,
        encoder: PieceEncoder,
        *,
        max_num_seqs: int,
        max_model_len: int,
    ) -> None:
        unsupported = NEVER if upstream.gives_ids else NEVER | {"logprobs"}
        self.info = RunnerInfo(
            backend="upstream",
            backend_version=upstream.software,
            device=urlsplit(settings.base_url).netloc,
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            vocab_size=encoder.vocab_size,
            unsupported_params=unsupported
            if settings.dialect == "vllm"
            else unsupported | VLLM_ONLY,
        )
        self._upstream = upstream
        self._settings = settings
        self._encoder = encoder
        self._open: dict[str, _Open] = {}
        self._session: aiohttp.ClientSession | None = None  # from the first request on
        self._is_unreachable = False
        self._probe: asyncio.Task[None] | None = None
        self._is_closed = False
        self._num_steps = 0
        self._num_prompt_tokens = 0
        self._num_cached_prompt_tokens = 0
        self._num_generated_tokens = 0

    def submit(self, request: GenerationRequest, on_output: OnOutput) -> None:
        """Take a sequence in; see `Engine`.

        Raises:
            EngineDead: The engine is closed.
            ContextLengthExceeded: The prompt leaves no room for one token.
            InvalidRequest: The prompt is empty, or holds ids the model does not have.
            ValueError: The request id is in use.
        """
        if self._is_closed:
            raise EngineDead("the engine is closed")
        check_request(request, self.info, self._open)
        task = asyncio.get_running_loop().create_task(self._run(request, on_output))
        self._open[request.request_id] = _Open(request, task)
        task.add_done_callback(partial(self._end, request.request_id, on_output))

    def abort(self, request_id: str) -> None:
        """End a sequence and its upstream request. Unknown ids are ignored."""
        if request_id in self._open:
            self._open[request_id].task.cancel()

    def load(self) -> EngineLoad:
        """How busy it is: what is beyond the slots waits for a connection."""
        sequences = self._open.values()
        num_running = min(len(sequences), self.info.max_num_seqs)
        return EngineLoad(
            num_running=num_running,
            num_waiting=len(sequences) - num_running,
            num_waiting_prompt_tokens=sum(
                len(one.request.prompt_token_ids) for one in sequences if not one.num_tokens
            ),
            num_slots=self.info.max_num_seqs,
            num_kv_tokens=sum(
                len(one.request.prompt_token_ids) + one.num_tokens
                for one in sequences
                if one.num_tokens
            ),
            num_steps=self._num_steps,
            num_prompt_tokens=self._num_prompt_tokens,
            num_cached_prompt_tokens=self._num_cached_prompt_tokens,
            num_generated_tokens=self._num_generated_tokens,
            step_started_s=None,
        )

    def check_health(self) -> None:
        """Return if it can serve.

        Raises:
            EngineDead: It is closed.
            Unavailable: The upstream was not reached the last time.
        """
        if self._is_closed:
            raise EngineDead("the engine is closed")
        if self._is_unreachable:
            raise Unavailable(UNREACHABLE)

    async def close(self) -> None:
        """Abort everything and close all connections. Idempotent."""
        self._is_closed = True
        tasks: list[asyncio.Task[EngineOutput] | asyncio.Task[None]]
        tasks = [one.task for one in self._open.values()]
        if self._probe is not None:
            tasks.append(self._probe)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _end(self, request_id: str, on_output: OnOutput, task: asyncio.Task[EngineOutput]) -> None:
        """Say the last thing of a sequence, however its task ended."""
        sequence = self._open.pop(request_id)
        on_output(_last_of(task))
        if sequence.num_tokens:
            num_prompt_tokens = len(sequence.request.prompt_token_ids)
            self._num_prompt_tokens += num_prompt_tokens - sequence.num_cached
            self._num_cached_prompt_tokens += sequence.num_cached

    async def _run(self, request: GenerationRequest, on_output: OnOutput) -> EngineOutput:
        """Send one request and hand on what comes back, but for the last output.

        Raises:
            ProviderError: It has failed; says for the client why.
        """
        body = request_body(request, self._upstream.model, self._settings.dialect)
        url = self._settings.url("completions")
        try:
            async with (
                asyncio.timeout(_time_left(request)) as limit,
                self._connected().post(url, data=body, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise _refusal(response)
                self._is_unreachable = False
                return await self._relay(request, response.content, on_output)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            self._note_unreachable()
            raise Unavailable(
                UNREACHABLE, code="upstream_unreachable", retry_after_s=RETRY_S
            ) from None
        except TimeoutError:
            if limit.expired():
                message = "the request's deadline passed before it ended"
                raise DeadlineExceeded(message) from None
            raise BackendError("the upstream was silent for too long") from None
        except aiohttp.ClientError:
            raise BackendError("the upstream broke off its answer") from None

    async def _relay(
        self, request: GenerationRequest, content: aiohttp.StreamReader, on_output: OnOutput
    ) -> EngineOutput:
        sequence = self._open[request.request_id]
        last: EngineOutput | None = None
        async for event in events(content):
            if event == DONE:
                continue
            chunk = read_chunk(event, request.sampling.logprobs)
            if chunk.num_cached_tokens > len(request.prompt_token_ids):
                raise BackendError("the upstream had more tokens cached than there were")
            sequence.num_cached = chunk.num_cached_tokens or sequence.num_cached
            token_ids, logprobs = self._ids_of(chunk), chunk.logprobs
            if last is not None and (token_ids or chunk.finish_reason is not None):
                raise BackendError("the upstream went on after it had ended")
            room = request.sampling.max_tokens - sequence.num_tokens
            if len(token_ids) > room:  # its text can take more ids than it was made of
                self._count(sequence, room)
                return EngineOutput(token_ids[:room], "length", logprobs=logprobs[:room])
            if chunk.finish_reason is not None:
                last = self._last_output(request, chunk, token_ids, room)
                self._count(sequence, len(last.token_ids))
            elif token_ids:
                self._count(sequence, len(token_ids))
                on_output(EngineOutput(token_ids, logprobs=logprobs))
        if last is None:
            raise BackendError("the upstream broke off its answer")
        return replace(last, num_cached_tokens=sequence.num_cached)

    def _ids_of(self, chunk: Chunk) -> tuple[int, ...]:
        if chunk.token_ids is not None:
            return chunk.token_ids
        if self._upstream.gives_ids and chunk.text:
            raise BackendError("the upstream sent text without token ids")
        return self._encoder.encode(chunk.text) if chunk.text else ()

    def _count(self, sequence: _Open, num_tokens: int) -> None:
        sequence.num_tokens += num_tokens
        self._num_steps += 1
        self._num_generated_tokens += num_tokens

    def _last_output(
        self, request: GenerationRequest, chunk: Chunk, token_ids: tuple[int, ...], room: int
    ) -> EngineOutput:
        """What ends a sequence; the id that ended it is added where the upstream gives no ids."""
        if chunk.finish_reason == "length":
            return EngineOutput(token_ids, "length", logprobs=chunk.logprobs)
        if chunk.finish_reason != "stop":
            raise BackendError("the upstream ended neither with stop nor with length")
        ends = request.sampling.stop_token_ids | request.eos_token_ids
        stop_token_id: int | None = None
        if self._upstream.gives_ids:
            stop_token_id = token_ids[-1] if token_ids and token_ids[-1] in ends else None
        elif len(token_ids) < room:
            stop_token_id = chunk.stop_token_id
            if stop_token_id is None:
                stop_token_id = min(request.eos_token_ids, default=None)
            token_ids += () if stop_token_id is None else (stop_token_id,)
        return EngineOutput(token_ids, "stop", stop_token_id=stop_token_id, logprobs=chunk.logprobs)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self.info.max_num_seqs, keepalive_timeout=KEEP_ALIVE_S
                ),
                headers=self._settings.headers,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    sock_connect=self._settings.connect_timeout_s,
                    sock_read=self._settings.read_timeout_s,
                ),
            )
        return self._session

    def _note_unreachable(self) -> None:
        """Be unhealthy until the upstream completes, or lists its models, again."""
        self._is_unreachable = True
        if self._probe is None and not self._is_closed:
            self._probe = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        url = self._settings.url("models")
        limit = aiohttp.ClientTimeout(total=self._settings.connect_timeout_s)
        while self._is_unreachable:
            await asyncio.sleep(PROBE_S)
            try:
                async with self._connected().get(
                    url, timeout=limit, allow_redirects=False
                ) as response:
                    if response.status == 200:
                        self._is_unreachable = False
            except (aiohttp.ClientError, TimeoutError):
                continue
        self._probe = None


def _last_of(task: asyncio.Task[EngineOutput]) -> EngineOutput:
    """The last output of a sequence whose task is done."""
    if task.cancelled():
        return EngineOutput((), "abort")
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, ProviderError):
        return EngineOutput((), "error", error=error)
    failed = BackendError("the answer of the upstream could not be read")
    failed.__cause__ = error
    return EngineOutput((), "error", error=failed)


def _time_left(request: GenerationRequest) -> float | None:
    """Seconds until the deadline; `None` if there is none."""
    if request.deadline_s is None or math.isinf(request.deadline_s):
        return None
    return request.deadline_s - time.monotonic()


def _refusal(response: aiohttp.ClientResponse) -> ProviderError:
    """What a client is told when the upstream refused."""
    status = response.status
    if status in {429, 503}:
        waits = response.headers.get("Retry-After", "")
        retry_after_s = min(float(waits), MAX_RETRY_S) if waits.isdecimal() else RETRY_S
        if status == 429:
            return Overloaded("the upstream is busy", retry_after_s=retry_after_s)
        return Unavailable("the upstream serves nothing now", retry_after_s=retry_after_s)
    return BackendError(f"the upstream refused the request with status {status}")
