"""The third socket for a model: encoders, which read a whole text at once and write none.

Give an `Encoder` from the hook `load_model`, and the core tokenises, batches over requests, counts
and bills for you. One `task` per encoder: a vector for each text (`embed`), or a number for each
pair of query and document (`score`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from provider_core.interfaces import RunnerInfo

if TYPE_CHECKING:  # a start imports this long before it has arrays
    import numpy as np
    import numpy.typing as npt

EncoderTask = Literal["embed", "score"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderInfo(RunnerInfo):
    """The facts of an encoder.

    Of those it shares with runners, `max_num_seqs` is the most rows of one call, `max_model_len`
    the most tokens of a row, and `vocab_size` may be 0 for unknown.

    Attributes:
        task: What a row gives.
        embedding_size: Numbers of a vector; 0 for scores.
        shorter_sizes: Numbers after which a vector may be cut, because the model was trained so
            (Matryoshka representation learning); none by default.
        is_normalized: Vectors have length 1, and cut ones get it again.
    """

    task: EncoderTask = "embed"
    embedding_size: int = 0
    shorter_sizes: Sequence[int] = ()
    is_normalized: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class EncoderRow:
    """One text, or one pair of texts, as the model reads it.

    Attributes:
        token_ids: int32 `[s]`, at least one, the model's own control tokens included.
        token_type_ids: int8 `[s]`, 0 in the first text and 1 in the second; `None` is all 0.
    """

    token_ids: npt.NDArray[np.int32]
    token_type_ids: npt.NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return len(self.token_ids)


@runtime_checkable
class Encoder(Protocol):
    """Turns rows of token ids into vectors or scores. Called from one thread only, after `warm_up`.

    Raise `errors.StepFailed` when only these rows are lost, as anything else that is raised is
    understood; raise `errors.EngineDead` when the device or the session is gone.
    """

    @property
    def info(self) -> EncoderInfo:
        """Facts that do not change while the encoder lives."""
        ...

    def warm_up(self) -> None:
        """Run what the first real request must not pay for. May take seconds."""
        ...

    def encode(self, rows: Sequence[EncoderRow]) -> npt.NDArray[np.float32]:
        """Compute rows of similar length, whichever requests they belong to.

        What a row gives depends on its neighbours by no more than rounding.

        Returns:
            float32 `[n, embedding_size]`, or `[n]` for scores.
        """
        ...

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        ...
