"""The routes of encoders: `/embeddings` and `/rerank`, under `/v1` and under `/api/v1`."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from aiohttp import web

from provider_core.dialects.openai.embeddings import embedding_list, parse_embeddings
from provider_core.dialects.openai.rerank import parse_rerank, rerank_results
from provider_core.server.call import Call
from provider_core.server.embeddings import EncoderPipeline
from provider_core.server.pipeline import Pipeline
from provider_core.types import Usage


class EncoderRoutes:
    """Embeddings and rerank as OpenAI's and OpenRouter's clients ask for them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._encoders = EncoderPipeline(pipeline)
        self._limits = pipeline.settings.limits

    def add_routes(self, app: web.Application) -> None:
        """Register under both base paths."""
        for base in ("/v1", "/api/v1"):
            app.router.add_post(f"{base}/embeddings", self.embeddings)
            app.router.add_post(f"{base}/rerank", self.rerank)

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/embeddings`."""
        call, body = await self._pipeline.enter(request)
        return await self._pipeline.answer(request, call, body, self._embed, can_repeat=False)

    async def rerank(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/rerank`."""
        call, body = await self._pipeline.enter(request)
        return await self._pipeline.answer(request, call, body, self._rerank, can_repeat=False)

    async def _embed(
        self, request: web.Request, call: Call, body: dict[str, Any]
    ) -> web.StreamResponse:
        wanted = parse_embeddings(body, self._limits)

        def encode(vectors: npt.NDArray[np.float32], usage: Usage, cost: str) -> Iterable[bytes]:
            return embedding_list(
                vectors,
                usage,
                model=wanted.model,
                encoding_format=wanted.encoding_format,
                generation_id=call.generation_id if call.is_openrouter else None,
                cost=cost if call.is_openrouter else None,
            )

        return await self._encoders.embed(request, call, wanted, encode)

    async def _rerank(
        self, request: web.Request, call: Call, body: dict[str, Any]
    ) -> web.StreamResponse:
        wanted = parse_rerank(body, self._limits)

        def encode(results: Sequence[tuple[int, float]], usage: Usage, cost: str) -> bytes:
            return rerank_results(
                results,
                usage,
                wanted=wanted,
                generation_id=call.generation_id,
                cost=cost if call.is_openrouter else None,
            )

        return await self._encoders.rerank(request, call, wanted, encode)
