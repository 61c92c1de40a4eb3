"""Embeddings and rerank for every dialect: a request's texts to rows, admitted, run and billed.

A route of a dialect reads the body with its own parser and gives the result to `EncoderPipeline`
with something that encodes the answer.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
from aiohttp import web

from provider_core.billing.events import Endpoint
from provider_core.billing.money import format_money
from provider_core.dialects.encoder_requests import EmbeddingRequest, RerankRequest
from provider_core.dialects.sampling import check_token_ids
from provider_core.dialects.validation import bad_value
from provider_core.encoders import EncoderInfo, EncoderRow, EncoderTask
from provider_core.errors import ContextLengthExceeded, UnsupportedParameter
from provider_core.server.admission import check_queue
from provider_core.server.call import Call
from provider_core.server.encoder_run import EncoderRun
from provider_core.server.models import ServedEncoder
from provider_core.server.pipeline import Pipeline
from provider_core.server.sending import send_whole
from provider_core.types import Usage

Floats = npt.NDArray[np.float32]
EncodeVectors = Callable[[Floats, Usage, str], Iterable[bytes]]
"""Vectors `[n, size]`, usage and exact cost to a body, in pieces of any size."""

EncodeResults = Callable[[Sequence[tuple[int, float]], Usage, str], bytes]
"""Pairs of index and score, the best first, usage and exact cost to a body."""

_PIECE_BYTES = 65_536  # written before the loop gets its turn


class EncoderPipeline:
    """What every route of encoders does, whichever dialect it speaks.

    Args:
        pipeline: Who is calling, and the dispatcher.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._dispatcher = pipeline.dispatcher
        self._check_wanted = pipeline.check_wanted
        self._limits = pipeline.settings.limits

    async def embed(
        self,
        request: web.Request,
        call: Call,
        wanted: EmbeddingRequest,
        encode: EncodeVectors,
    ) -> web.StreamResponse:
        """Answer with a vector for each text.

        Args:
            request: The request to answer.
            call: What `Pipeline.enter` returned for it.
            wanted: What its body asks.
            encode: Writes the answer.

        Raises:
            ProviderError: It cannot be served; nothing was sent.
        """
        model = self._find(call, wanted.model, wanted.user, "embed")
        with model.held():
            size = _check_dimensions(model.engine.info, wanted.dimensions)
            kind = _find_kind(model, wanted.input_type)
            rows = await asyncio.to_thread(_rows_of, model, wanted, kind)
            self._check_lengths(model, rows, wanted.param)

            def encode_cut(vectors: Floats, usage: Usage, cost: str) -> Iterable[bytes]:
                return encode(cut_vectors(vectors, size, model.engine.info), usage, cost)

            return await self._answer(request, call, model, rows, "embeddings", encode_cut)

    async def rerank(
        self,
        request: web.Request,
        call: Call,
        wanted: RerankRequest,
        encode: EncodeResults,
    ) -> web.StreamResponse:
        """Answer with the documents that say most to the query.

        Args:
            request: The request to answer.
            call: What `Pipeline.enter` returned for it.
            wanted: What its body asks.
            encode: Writes the answer.

        Raises:
            ProviderError: It cannot be served; nothing was sent.
        """
        model = self._find(call, wanted.model, wanted.user, "score")
        with model.held():
            rows = await asyncio.to_thread(
                model.tokenizer.encode_pairs, wanted.query, wanted.documents
            )
            self._check_lengths(model, rows, "documents[{}]")

            def encode_best(scores: Floats, usage: Usage, cost: str) -> Iterable[bytes]:
                order = np.argsort(-scores, kind="stable")[: wanted.top_n].tolist()
                return [encode([(i, float(scores[i])) for i in order], usage, cost)]

            return await self._answer(request, call, model, rows, "rerank", encode_best)

    def _find(self, call: Call, name: str, user: str | None, task: EncoderTask) -> ServedEncoder:
        model = self._dispatcher.models.find_encoder(name, task)
        self._check_wanted(call, model.spec)
        check_queue(model.engine.load(), self._limits)  # before its texts are read
        call.model = model.spec.id
        call.user_id = user
        return model

    def _check_lengths(self, model: ServedEncoder, rows: Sequence[EncoderRow], param: str) -> None:
        """Check what only tokens can tell.

        Raises:
            ContextLengthExceeded: A row is longer than the model reads.
            InvalidRequest: A row is empty, or all together are too long.
        """
        limit = model.spec.max_model_len
        for index, row in enumerate(rows):
            if len(row) > limit:
                name = param.format(index)
                raise ContextLengthExceeded(
                    f"this model's maximum context length is {limit} tokens, but {name} has "
                    f"{len(row)}",
                    param=name,
                )
            if not len(row):
                raise bad_value(param.format(index), "has no tokens")
        total, most = sum(map(len, rows)), self._limits.max_input_tokens
        if total > most:
            name = param.partition("[")[0]
            raise bad_value(name, f"must have at most {most} tokens in all, not {total}")

    async def _answer(
        self,
        request: web.Request,
        call: Call,
        model: ServedEncoder,
        rows: Sequence[EncoderRow],
        endpoint: Endpoint,
        encode: EncodeVectors,
    ) -> web.StreamResponse:
        gate = self._dispatcher.gate
        gate.check_billing()
        num_tokens = sum(map(len, rows))
        self._check_wanted(call, model.spec, num_prompt_tokens=num_tokens)
        call.begin_generation()
        await gate.admit(
            call,
            model,
            num_sequences=1,
            num_computed_tokens=num_tokens,
            num_prompt_tokens=num_tokens,
            max_tokens=0,
        )
        run = EncoderRun(self._dispatcher, call, model, rows, endpoint)

        async def make_body() -> bytes:
            values = await run.wait()
            record = run.settle()
            return await _join(encode(values, record.usage, format_money(record.cost)))

        return await send_whole(request, call, run, make_body)


def cut_vectors(vectors: Floats, size: int, info: EncoderInfo) -> Floats:
    """Keep the first `size` numbers, and the length of 1 where vectors have it.

    Args:
        vectors: float32 `[n, embedding_size]`.
        size: One that the model was trained for.
        info: Of the model.
    """
    if size == info.embedding_size:
        return vectors
    cut = vectors[:, :size]
    if info.is_normalized:
        lengths = np.linalg.norm(cut, axis=1, keepdims=True)
        cut = cut / np.maximum(lengths, np.float32(1e-12))
    return np.ascontiguousarray(cut)


def _check_dimensions(info: EncoderInfo, dimensions: int | None) -> int:
    """The size of a vector, as asked.

    Raises:
        InvalidRequest: The model's vectors cannot be cut so.
    """
    size = info.embedding_size
    if dimensions is None or dimensions == size or dimensions in info.shorter_sizes:
        return dimensions or size
    if not info.shorter_sizes:
        raise UnsupportedParameter(
            f"dimensions is not supported by this model, whose vectors have {size}",
            param="dimensions",
        )
    sizes = info.shorter_sizes
    listed = f"from 1 to {size}" if isinstance(sizes, range) else f"one of {[*sizes, size]}"
    raise bad_value("dimensions", f"must be {listed}, not {dimensions}")


def _find_kind(model: ServedEncoder, input_type: str | None) -> str | None:
    """The kind of the texts as the model's folder calls it.

    Raises:
        InvalidRequest: It knows no such kind.
    """
    if input_type is None:
        return None
    kind = model.tokenizer.find_kind(input_type)
    if kind is None:
        known = sorted({"query", "document", *model.tokenizer.prompts})
        raise bad_value("input_type", f"must be one of {known}")
    return kind


def _rows_of(model: ServedEncoder, wanted: EmbeddingRequest, kind: str | None) -> list[EncoderRow]:
    """Encode the texts, all at once, and take ids as they are.

    Raises:
        InvalidRequest: An id is not in the vocabulary.
    """
    texts = [each for each in wanted.inputs if isinstance(each, str)]
    encoded = iter(model.tokenizer.encode(texts, kind=kind))
    rows = []
    for index, each in enumerate(wanted.inputs):
        if isinstance(each, str):
            rows.append(next(encoded))
            continue
        check_token_ids(each, wanted.param.format(index), model.tokenizer.vocab_size)
        rows.append(EncoderRow(np.array(each, np.int32)))
    return rows


async def _join(pieces: Iterable[bytes]) -> bytes:
    """Join a body; between its pieces others have their turn."""
    joined = []
    num_unseen = 0
    for piece in pieces:
        joined.append(piece)
        num_unseen += len(piece)
        if num_unseen > _PIECE_BYTES:
            num_unseen = 0
            await asyncio.sleep(0)
    return b"".join(joined)
