"""onnxruntime-genai's engine, and the sequences in it. All of it belongs to one thread.

Written for its engine of 0.18: requests with one turn each, whose tokens come as events. The
token that ends a text is not among them.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from provider_core import (
    BackendError,
    ConfigurationError,
    DeadlineExceeded,
    EngineDead,
    EngineOutput,
    GenerationRequest,
    InvalidRequest,
)
from provider_core.engines import Delivery, OnOutput
from provider_genai.folder import GenaiFolder
from provider_genai.settings import GenaiSettings

UNSUPPORTED = frozenset(
    {
        "frequency_penalty",
        "grammar",
        "logit_bias",
        "logprobs",
        "min_p",
        "presence_penalty",
        "prompt_logprobs",
        "top_a",
    }
)
"""What its sampler does not have, or cannot be told by the core."""

STATIC_BATCH = 4
"""Sequences that begin together where the model's caches are not paged."""

EVENTS = 64
"""Taken at a time; what is left comes next."""


@dataclass(slots=True, eq=False)
class Sequence:
    """One that runs, or waits in the runtime's own queue.

    Attributes:
        handle: The runtime's request.
        ends: Ids that end it, beside the model's own.
        num_made: Tokens so far.
    """

    request: GenerationRequest
    on_output: OnOutput
    handle: Any  # onnxruntime_genai has no types
    turn_id: int
    ends: frozenset[int]
    num_made: int = 0


class Runtime:
    """Loads a model and runs sequences; made, used and closed on one thread.

    Args:
        folder: The model's.
        settings: Where and how it runs.
        max_model_len: Most tokens of a sequence.

    Raises:
        ConfigurationError: The runtime is missing, or cannot load the model.
    """

    def __init__(self, folder: GenaiFolder, settings: GenaiSettings, max_model_len: int) -> None:
        try:
            import onnxruntime_genai  # noqa: PLC0415 - only where the backend is used
        except ImportError as error:
            raise ConfigurationError(
                f"onnxruntime-genai cannot be imported ({error}): install the extra [genai]"
            ) from error
        self._genai: Any = onnxruntime_genai  # it has no types
        try:
            model = self._genai.Model(self._configure(folder, settings, max_model_len))
            self._engine: Any = self._genai.Engine(model)
            self._buffer: Any = self._engine.create_event_buffer(EVENTS)
        except RuntimeError as error:
            raise ConfigurationError(f"onnxruntime-genai cannot load {folder.path}") from error
        self.version = str(self._genai.__version__)
        self.device = str(model.device_type).lower()
        self.batch_size = int(self._engine.get_capabilities().configured_max_batch_size)
        self._folder = folder
        self._sequences: dict[int, Sequence] = {}  # by the identity of their handles
        self._by_id: dict[str, Sequence] = {}

    @property
    def has_work(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self._sequences)

    def add(self, request: GenerationRequest, on_output: OnOutput) -> None:
        """Queue a sequence.

        Raises:
            InvalidRequest: The runtime refuses it.
        """
        try:
            handle, turn_id = self._begin(request)
        except RuntimeError as error:
            raise InvalidRequest("the runtime refuses this prompt or its sampling") from error
        ends = request.sampling.stop_token_ids
        if not request.sampling.ignore_eos:
            ends |= request.eos_token_ids
        sequence = Sequence(request, on_output, handle, turn_id, ends)
        self._sequences[id(handle)] = self._by_id[request.request_id] = sequence

    def abort(self, request_id: str) -> Delivery | None:
        """End a sequence, unless it has ended."""
        sequence = self._by_id.get(request_id)
        if sequence is None:
            return None
        self._drop(sequence)
        return sequence.on_output, EngineOutput((), "abort")

    def step(self, take: Callable[[Delivery], None]) -> None:
        """Run once.

        Args:
            take: Gets each output as it is read: a step that dies has made some.

        Raises:
            EngineDead: The runtime cannot go on.
        """
        self._expire(take)
        if not self._sequences:
            return
        try:
            events = list(self._engine.run(self._buffer))
        except RuntimeError as error:
            raise EngineDead("onnxruntime-genai's engine has failed") from error
        for event in events:
            if event.request is None:
                raise EngineDead("onnxruntime-genai's engine has failed")
            sequence = self._sequences.get(id(event.request))
            if sequence is None:  # it was dropped, and this was on its way
                continue
            output = self._read(sequence, event)
            if output is not None:
                take((sequence.on_output, output))

    def close(self) -> None:
        """Give the memory back."""
        self._sequences.clear()
        self._by_id.clear()
        self._buffer = self._engine = None

    def _configure(self, folder: GenaiFolder, settings: GenaiSettings, max_model_len: int) -> Any:
        config = self._genai.Config(str(folder.path))
        if settings.provider is not None:
            config.clear_providers()
            if settings.provider != "cpu":
                config.append_provider(settings.provider)
        config.overlay(json.dumps({"search": {"max_length": max_model_len}}))
        if settings.intra_op_num_threads is not None:
            threads = {"intra_op_num_threads": settings.intra_op_num_threads}
            config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
        return config

    def _begin(self, request: GenerationRequest) -> tuple[Any, int]:
        """A request of the runtime with its one turn, queued."""
        sampling, prompt = request.sampling, request.prompt_token_ids
        limits = self._genai.RequestOptions()
        limits.set_max_session_tokens(len(prompt) + sampling.max_tokens)
        handle = self._engine.create_request(options=limits)
        options = self._genai.TurnOptions(handle)
        options.set_max_generated_tokens(sampling.max_tokens)
        # Their minimum keeps the model's end away, which is how they ignore it.
        options.set_min_generated_tokens(
            sampling.max_tokens if sampling.ignore_eos else sampling.min_tokens
        )
        options.set_no_repeat_ngram_size(0)
        options.set_repetition_penalty(sampling.repetition_penalty)
        draws = sampling.temperature > 0 and sampling.top_k != 1
        options.set_do_sample(draws)
        if draws:
            options.set_temperature(sampling.temperature)
            options.set_top_p(sampling.top_p)
            options.set_top_k(min(sampling.top_k, self._folder.vocab_size))  # it refuses more
            if sampling.seed is not None:
                options.set_seed(sampling.seed)
        return handle, handle.begin_turn(np.array(prompt, np.int32), options)

    def _read(self, sequence: Sequence, event: Any) -> EngineOutput | None:
        """What one event says of its sequence, which is dropped if that is its end."""
        flags, genai = event.flags, self._genai
        token_ids: tuple[int, ...] = ()
        if flags & genai.EngineEventFlags.TOKEN:
            token_ids = (int(event.token),)
            sequence.num_made += 1
            may_end = sequence.num_made > sequence.request.sampling.min_tokens
            if may_end and token_ids[0] in sequence.ends:
                self._drop(sequence)
                return EngineOutput(token_ids, "stop", stop_token_id=token_ids[0])
        if not flags & genai.EngineEventFlags.TURN_FINISHED:
            return EngineOutput(token_ids) if token_ids else None
        reason = event.finish_reason
        self._drop(sequence)
        if reason == genai.FinishReason.EOS:
            eos = self._folder.eos_token_ids[0]
            return EngineOutput((*token_ids, eos), "stop", stop_token_id=eos)
        if reason in {
            genai.FinishReason.MAX_GENERATED_TOKENS,
            genai.FinishReason.MAX_SESSION_TOKENS,
        }:
            return EngineOutput(token_ids, "length")
        return EngineOutput(token_ids, "error", error=BackendError("the runtime has failed"))

    def _drop(self, sequence: Sequence) -> None:
        """Let the runtime forget a sequence."""
        del self._sequences[id(sequence.handle)]
        del self._by_id[sequence.request.request_id]
        sequence.handle.cancel_turn(sequence.turn_id)
        sequence.handle.close()

    def _expire(self, take: Callable[[Delivery], None]) -> None:
        now_s = time.monotonic()
        for sequence in list(self._sequences.values()):
            deadline_s = sequence.request.deadline_s
            if deadline_s is not None and deadline_s <= now_s:
                self._drop(sequence)
                error = DeadlineExceeded("the request's deadline passed before it ended")
                take((sequence.on_output, EngineOutput((), "error", error=error)))
