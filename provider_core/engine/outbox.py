"""What steps made for sequences, until it is handed over."""

from provider_core.engine.sampler import Sampled
from provider_core.engine.sequence import Sequence
from provider_core.engines import Delivery
from provider_core.types import EngineOutput, FinishReason


class _PlainOutputs(dict[int, EngineOutput]):
    """The output that says "one more id", made once per id: outputs are frozen and can be shared.

    Holds at most one output per id of the vocabulary.
    """

    def __missing__(self, token_id: int) -> EngineOutput:
        output = self[token_id] = EngineOutput((token_id,))
        return output


class Outbox:
    """Makes outputs of what was drawn, and keeps them in order."""

    def __init__(self) -> None:
        self._plain = _PlainOutputs()
        self._deliveries: list[Delivery] = []
        self._finished: list[str] = []  # ids of requests whose last output is among them

    def take(self) -> tuple[list[Delivery], list[str]]:
        """All since the last call, and the ids of the sequences that ended."""
        deliveries, finished = self._deliveries, self._finished
        self._deliveries, self._finished = [], []
        return deliveries, finished

    def add(self, sequence: Sequence, output: EngineOutput) -> None:
        """Take one output; nothing may follow its sequence's last."""
        self._deliveries.append((sequence.on_output, output))
        if output.finish_reason is not None:
            self._finished.append(sequence.request.request_id)

    def end(self, sequence: Sequence, reason: FinishReason, error: Exception | None = None) -> None:
        """Make the last output of a sequence that draws no more; it says what was not said yet."""
        output = EngineOutput(
            (),
            reason,
            prompt_logprobs=tuple(sequence.prompt_logprobs) if reason == "length" else (),
            num_cached_tokens=sequence.num_cached_tokens,
            error=error,
        )
        self.add(sequence, output)

    def add_drawn(self, rows: list[Sequence], sampled: Sampled) -> list[Sequence]:
        """Make each row's output. The per-token path: keep it short.

        Args:
            rows: As sampled; those whose logits or grammars failed get no output.
            sampled: What each drew.

        Returns:
            The rows that ended by it.
        """
        append = self._deliveries.append
        plain = self._plain
        finished = []
        complete, rejected = sampled.complete_rows, sampled.rejected_rows
        special = sampled.failed_rows or sampled.logprobs or complete or rejected
        for row, (sequence, token_id) in enumerate(
            zip(rows, sampled.token_ids.tolist(), strict=True)
        ):
            if special and (row in sampled.failed_rows or row in rejected):
                continue
            sequence.num_generated_tokens = num_generated = sequence.num_generated_tokens + 1
            sequence.generated_ids.append(token_id)
            is_stop_id = token_id in sequence.stop_ids
            if is_stop_id or (special and row in complete):
                reason: FinishReason | None = "stop"
            elif num_generated >= sequence.max_new_tokens:
                reason = "length"
            elif special or sequence.prompt_logprobs or sequence.num_cached_tokens:
                reason = None
            else:
                append((sequence.on_output, plain[token_id]))
                continue
            logprobs = sampled.logprobs.get(row)
            output = EngineOutput(
                (token_id,),
                reason,
                token_id if is_stop_id else None,
                () if logprobs is None else (logprobs,),
                tuple(sequence.prompt_logprobs),
                sequence.num_cached_tokens,
            )
            sequence.prompt_logprobs = []
            sequence.num_cached_tokens = 0
            self.add(sequence, output)
            if reason is not None:
                finished.append(sequence)
        return finished
