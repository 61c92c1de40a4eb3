"""What a client asks of an encoder, whichever dialect it speaks."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Texts to be turned into vectors.

    Attributes:
        model: As the client spelled it, up to the whole body long; echo 64 characters at most.
        inputs: Texts, none empty, or token ids, which the model reads exactly as they are.
        param: What the client calls an input, its index in place of `{}`, for errors.
        dimensions: Numbers of a vector; `None` is as many as the model makes.
        input_type: What the texts are for, such as `query` or `document`.
        user: The client's name for its end user, cut to a documented length.
    """

    model: str
    inputs: Sequence[str | list[int]]
    param: str = "input[{}]"
    dimensions: int | None = None
    input_type: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """Documents to be ordered by what they say to a query.

    Attributes:
        model: As in `EmbeddingRequest`, like `user`.
        query: Not empty.
        documents: At least one.
        top_n: Only so many results, the best; `None` is all.
        user: The client's name for its end user.
    """

    model: str
    query: str
    documents: Sequence[str]
    top_n: int | None = None
    user: str | None = None
