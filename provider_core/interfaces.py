"""What a plugin can fill: the protocols between the floors.

Two sockets take a model that writes. Give a `ModelRunner` and the core batches, samples and streams
for you. Give an `Engine` when your runtime does that. Text starts above both: `Tokenizer` and
`ChatTemplate` come from the model's folder or a hook. Models that only read: `encoders.Encoder`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from provider_core.types import EngineOutput, GenerationRequest


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's work for a `ModelRunner`: rectangular, one phase.

    The arrays are the scheduler's own and change after the call: copy what you keep, write nothing.

    Attributes:
        phase: `prefill` is one row of one or more tokens; `decode` is one token for each of n rows.
            A prompt is cut into chunks of any size but one: a single token is a whole prompt. So
            a runner may use other kernels for one token than for several, with other rounding,
            and where a prompt is cut still changes nothing. A row that decodes may run as a
            prefill, too: its next token and a few guessed ones, with logits for each. Guesses that
            were wrong are overwritten by the next batch.
        slots: int32 `[n]`, where each row's keys and values live. Decode rows are always the slots
            0 to n-1 in order; a prefill row is any one slot.
        token_ids: int64 `[n, s]`, the new tokens.
        num_computed_tokens: int32 `[n]`, how many tokens each slot already holds: the position of
            the row's first new token.
        num_logits: Of each row, how many of its last positions need logits: 0 (a prefill chunk
            that is not the last) up to s.
        embeddings: Of a prefill, pairs of a place in the row and float32 `[k, size]`, in order:
            vectors to read there instead of the ids' own. Only an `ImageEncoder` gets any.
    """

    phase: Literal["prefill", "decode"]
    slots: npt.NDArray[np.int32]
    token_ids: npt.NDArray[np.int64]
    num_computed_tokens: npt.NDArray[np.int32]
    num_logits: int
    embeddings: Sequence[tuple[int, npt.NDArray[np.float32]]] = ()


ROUNDING_MARGIN = 0.02
"""Natural-log units: a thousand times what the rounding of float32 changes in a logit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerInfo:
    """The facts a scheduler asks of a runner.

    Attributes:
        backend: Plugin name, logged and billed under.
        backend_version: Version of the runtime.
        device: Where it really runs, e.g. `cpu` or `cuda:0`.
        max_num_seqs: Slots.
        max_model_len: Positions each slot holds.
        vocab_size: Width of the logits.
        precision: Of the weights as they run, in OpenRouter's vocabulary; `None` if unknown.
        num_cache_blocks: Blocks of prompts that it can store, if it is a `BlockStore`.
        cache_block_size: Tokens of such a block.
        verify_margin: By how much the difference of two logits may change, in natural-log units,
            when a decoding row runs as a prefill (see `Batch`): greedy choices that lead by less
            are left to a decode. `None` if more than rounding differs: no drafts are tried. Above
            `ROUNDING_MARGIN` later choices may differ too, and drafts are tried only on request.
        mixes_phases: Whether it computes a piece of a prompt and a decode in one call, as a
            `MixedRunner`.
        unsupported_params: What an `Engine` lacks: fields of `SamplingParams`, or `grammar`. Who
            asks for them is refused by name, and no listing shows them.
    """

    backend: str
    backend_version: str
    device: str
    max_num_seqs: int
    max_model_len: int
    vocab_size: int
    precision: str | None = None
    num_cache_blocks: int = 0
    cache_block_size: int = 16
    verify_margin: float | None = ROUNDING_MARGIN
    mixes_phases: bool = False
    unsupported_params: frozenset[str] = frozenset()


@runtime_checkable
class ModelRunner(Protocol):
    """Turns batches of token ids into logits. Called from one thread only, after `warm_up`.

    Raise `errors.StepFailed` when only this batch is lost; anything else raised from a step counts
    as that, until it repeats. Raise `errors.EngineDead` when the device or the session is gone.
    """

    @property
    def info(self) -> RunnerInfo:
        """Facts that do not change while the runner lives."""
        ...

    def warm_up(self) -> None:
        """Run what the first real request must not pay for. May take seconds."""
        ...

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Compute one step and store the new keys and values in the rows' slots.

        Returns:
            float32 `[n * batch.num_logits, vocab_size]`, rows in order, positions of a row in
            order. Valid until the next call: the caller copies what it keeps. Until then they are
            the caller's, who may write to them (a read-only array costs it a copy at times).
        """
        ...

    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Make `target` hold the first `num_tokens` of `source`, whose content is then free."""
        ...

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        ...


@runtime_checkable
class MixedRunner(Protocol):
    """What a `ModelRunner` can do besides: a piece of a prompt and a decode in one call.

    A call reads all weights, however little it computes: beside rows that decode, a prompt's
    tokens cost less than in a call of their own. Asked for if `info.mixes_phases`.
    """

    def execute_mixed(self, prefill: Batch, decode: Batch) -> npt.NDArray[np.float32]:
        """Do what `execute_model` does for two batches of different slots.

        Neither may depend on the other: each row has the bits that it has beside any other batch,
        and in a deterministic model those of `execute_model`.

        Args:
            prefill: Of a prompt of two tokens or more, with logits of the last one or of none.
            decode: At least one row.

        Returns:
            float32 `[prefill.num_logits + n, vocab_size]`, the prompt's first. Valid like those of
            `execute_model`.
        """
        ...


@runtime_checkable
class BlockStore(Protocol):
    """What a `ModelRunner` can do besides: keep pieces of slots, for prompts that begin alike.

    A block is `info.cache_block_size` positions of a slot, and there is room for
    `info.num_cache_blocks`. The core decides what is stored where and when; it stores only what
    prefill computed, and loads before a slot's first prefill: the bits saved, where they were.
    """

    def save_blocks(self, slot: int, first_token: int, block_ids: Sequence[int]) -> None:
        """Copy consecutive blocks of a slot, from position `first_token` on, into the store."""
        ...

    def load_blocks(self, slot: int, block_ids: Sequence[int]) -> None:
        """Copy stored blocks into a slot, one behind the other from position 0 on."""
        ...


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
