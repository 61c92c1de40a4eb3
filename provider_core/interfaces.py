"""What a plugin can fill: the protocols between the floors.

Two sockets take a model that writes. Give a `ModelRunner` (see `runners`) and the core batches,
samples and streams for you. Give an `Engine` when your runtime does that. Text starts above both:
`Tokenizer` and `ChatTemplate` come from the model's folder or a hook. Models that only read:
`encoders.Encoder`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from provider_core.runners import (
    ROUNDING_MARGIN,
    Batch,
    BlockStore,
    CandidateRunner,
    Candidates,
    MixedRunner,
    ModelRunner,
    RunnerInfo,
)
from provider_core.types import EngineOutput, GenerationRequest

__all__ = [
    "ROUNDING_MARGIN",
    "Batch",
    "BlockStore",
    "CandidateRunner",
    "Candidates",
    "ChatTemplate",
    "Clock",
    "Engine",
    "EngineLoad",
    "MixedRunner",
    "ModelRunner",
    "Monitored",
    "RenderedPrompt",
    "RunnerInfo",
    "TokenDecoder",
    "Tokenizer",
    "UsageSink",
    "UsageWriter",
]


class Monitored(Protocol):
    """What probes, metrics and the watchdog ask of whatever runs a model, on the loop's thread."""

    @property
    def info(self) -> RunnerInfo:
        """Facts of what runs underneath."""
        ...

    def load(self) -> "EngineLoad":
        """How busy it is, now."""
        ...

    def check_health(self) -> None:
        """Return if it can serve.

        Raises:
            EngineDead: It never will again: the process ends, for its platform to start another.
            Unavailable: It cannot now; probes keep the traffic away until it can.
        """
        ...


@runtime_checkable
class Engine(Monitored, Protocol):
    """Runs many sequences at once. All methods are called on the event loop's thread.

    Outputs are pushed, not pulled: `on_output` is called on the event loop's thread, in order, and
    exactly one output of a sequence carries a `finish_reason`. It must not block.
    """

    def submit(self, request: GenerationRequest, on_output: Callable[[EngineOutput], None]) -> None:
        """Take a sequence in.

        Raises:
            EngineDead: The engine is closed or broken.
        """
        ...

    def abort(self, request_id: str) -> None:
        """End a sequence; its last output has `finish_reason` `abort`. Unknown ids are ignored."""
        ...

    async def close(self) -> None:
        """Abort everything and free the device. Idempotent."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """A snapshot for admission and metrics.

    Attributes:
        num_running: Sequences that hold a slot.
        num_waiting: Sequences that wait for one.
        num_waiting_prompt_tokens: Prompt tokens not computed yet, waiting or in prefill.
        num_slots: Slots in all.
        num_kv_tokens: Tokens held in slots.
        num_steps: Steps since start.
        num_prompt_tokens: Prompt tokens computed since start.
        num_generated_tokens: Tokens sampled since start.
        num_cached_prompt_tokens: Prompt tokens that came from the prefix cache since start.
        prefill_s: Seconds spent on prompts since start, computed or from the cache; 0 if unknown.
        num_draft_tokens: Ids tried by speculation since start.
        num_accepted_tokens: Those of them that were right.
        max_kv_tokens: Most tokens that the slots hold together; `None` if each can be full.
        step_started_s: When the running step began (`time.monotonic`), `None` between steps.
    """

    num_running: int
    num_waiting: int
    num_waiting_prompt_tokens: int
    num_slots: int
    num_kv_tokens: int
    num_steps: int
    num_prompt_tokens: int
    num_generated_tokens: int
    step_started_s: float | None
    num_cached_prompt_tokens: int = 0
    prefill_s: float = 0.0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    max_kv_tokens: int | None = None


class TokenDecoder(Protocol):
    """Incremental decoding of one sequence's ids into text."""

    def step(self, token_id: int) -> str:
        """Add one id; return the text that became certain, maybe empty, never half a character."""
        ...

    def flush(self) -> str:
        """Return what was held back at the end, incomplete bytes as U+FFFD."""
        ...


class Tokenizer(Protocol):
    """Ids to text and back, as the model was trained."""

    @property
    def vocab_size(self) -> int:
        """One more than the highest id that can be decoded."""
        ...

    @property
    def special_token_ids(self) -> frozenset[int]:
        """Ids that are control, never shown in text."""
        ...

    @property
    def prompt_prefix_ids(self) -> tuple[int, ...]:
        """What a raw completions prompt begins with (often a BOS id, or nothing).

        Chat prompts are not prefixed: their template writes its own beginning.
        """
        ...

    @property
    def document_start_ids(self) -> tuple[int, ...]:
        """What a raw prompt without any text is: the start of a document, or nothing."""
        ...

    def min_num_tokens(self, text: str) -> int:
        """A cheap lower bound of how many ids `text` encodes to; 0 is always right.

        It lets a prompt that cannot fit be refused without being encoded.
        """
        ...

    def encode(self, text: str, *, allow_special: bool) -> list[int]:
        """Encode on a worker thread or for short text.

        Args:
            text: Any valid Unicode, no lone surrogates.
            allow_special: `True` for text the chat template wrote, where `<|im_end|>` is one
                control id; `False` for raw prompts of clients.
        """
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Decode whole, special tokens left out."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes one id adds to the text, even when they are part of a character.

        Special ids add none, so that the bytes of a reply's ids join to its text's bytes.
        """
        ...

    def make_decoder(self, prompt_token_ids: Sequence[int] = ()) -> TokenDecoder:
        """A decoder for a sequence that continues `prompt_token_ids`."""
        ...


class ChatTemplate(Protocol):
    """Messages to prompt text."""

    @property
    def source(self) -> str:
        """Its text, which shows how the model writes calls and reasoning; empty if unknown."""
        ...

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],  # OpenAI's message objects, JSON values
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> "RenderedPrompt":
        """Render a conversation.

        Args:
            messages: At least one.
            tools: OpenAI's tool objects.
            continue_final_message: The last message is the assistant's and is to be continued.
            variables: What the template may read besides, such as `enable_thinking`.

        Raises:
            InvalidRequest: The template refuses these messages, or took too long or too much.
        """
        ...


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt as pieces, so that control tokens typed by a client stay plain text.

    Attributes:
        segments: Pairs of text and whether the template wrote it (control tokens allowed) or a
            client did (encoded as plain text). Joined they are the prompt.
    """

    segments: tuple[tuple[str, bool], ...]

    @property
    def text(self) -> str:
        """The whole prompt."""
        return "".join(text for text, _ in self.segments)


class Clock(Protocol):
    """Time, so that tests need not wait."""

    def time(self) -> float:
        """Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow."""
        ...


class UsageSink(Protocol):
    """Where usage lines go."""

    def emit(self, line: bytes) -> None:
        """Take one line, newline included. Never blocks, never raises, never drops it."""
        ...


class UsageWriter(UsageSink, Protocol):
    """A sink that says when a line has left."""

    def write_through(self, line: bytes) -> bool:
        """Write one line, newline included, before returning; for one thread of its own.

        Blocks for as long as a reader does not read. `False` says that it could not be written
        now; it will be given again.
        """
        ...
