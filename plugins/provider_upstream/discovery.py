"""What the upstream is and can do, asked once, before requests come."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from provider_core import BackendError, ConfigurationError, GenerationRequest, SamplingParams
from provider_upstream.piece_encoder import PieceEncoder
from provider_upstream.settings import UpstreamSettings
from provider_upstream.wire import DONE, events, read_chunk, request_body

RETRY_S = 0.5
FIRST_ANSWER_S = 120.0
"""For one token: the first may have to compile what it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A server that answers.

    Attributes:
        model: Its name for the model.
        software: What it says it is (`owned_by`), e.g. `vllm`.
        max_model_len: Its limit, if it says.
        gives_ids: Whether answers hold token ids, or only text.
    """

    model: str
    software: str
    max_model_len: int | None
    gives_ids: bool


def find_upstream(settings: UpstreamSettings, encoder: PieceEncoder) -> Upstream:
    """Wait until the upstream serves its model and has made one token.

    Called in a worker thread; blocks.

    Raises:
        ConfigurationError: It does not answer in `start_timeout_s`, refuses the key, does not
            serve the model, or gives text that this tokenizer cannot encode in pieces.
    """
    upstream = asyncio.run(_find(settings, encoder))
    if not (upstream.gives_ids or encoder.is_exact):
        raise ConfigurationError(
            f"{settings.base_url} gives no token ids, and this model's tokenizer cannot encode"
            " a text in pieces"
        )
    return upstream


async def _find(settings: UpstreamSettings, encoder: PieceEncoder) -> Upstream:
    give_up_s = time.monotonic() + settings.start_timeout_s
    timeout = aiohttp.ClientTimeout(total=FIRST_ANSWER_S, sock_connect=settings.connect_timeout_s)
    async with aiohttp.ClientSession(headers=settings.headers, timeout=timeout) as session:
        while True:
            try:
                entry = _choose(await _list_models(session, settings), settings)
                gives_ids = await _try(session, settings, entry["id"], encoder)
                break
            except (_NotYetError, aiohttp.ClientError, TimeoutError) as error:
                if time.monotonic() >= give_up_s:
                    why = f": {error}" if isinstance(error, _NotYetError) else ""
                    raise ConfigurationError(
                        f"{settings.base_url} does not answer for"
                        f" {settings.start_timeout_s:g} s{why}"
                    ) from error
            await asyncio.sleep(RETRY_S)
    length = entry.get("max_model_len")
    return Upstream(
        model=entry["id"],
        software=str(entry.get("owned_by") or "unknown"),
        max_model_len=length if isinstance(length, int) and length > 0 else None,
        gives_ids=gives_ids,
    )


class _NotYetError(Exception):
    """It starts, or is busy: it is asked again."""


def _check_status(response: aiohttp.ClientResponse, settings: UpstreamSettings) -> None:
    """Tell what passes from what does not."""
    status = response.status
    if status == 429 or status >= 500:  # as llama-server's 503 while it loads
        raise _NotYetError(f"{response.url} answers with status {status}")
    if status in {401, 403}:
        raise ConfigurationError(
            f"{settings.base_url} refuses the key in option api_key with status {status}"
        )
    if status != 200:
        raise ConfigurationError(f"{response.url} answers with status {status}")


async def _list_models(
    session: aiohttp.ClientSession, settings: UpstreamSettings
) -> list[dict[str, Any]]:  # JSON
    async with session.get(settings.url("models")) as response:
        _check_status(response, settings)
        try:
            return [entry for entry in (await response.json())["data"] if entry["id"]]
        except (ValueError, TypeError, KeyError, aiohttp.ContentTypeError) as error:
            raise ConfigurationError(
                f"{settings.url('models')} lists no models as OpenAI does"
            ) from error


def _choose(listed: list[dict[str, Any]], settings: UpstreamSettings) -> dict[str, Any]:
    found = [entry for entry in listed if settings.model in {None, entry["id"]}]
    if len(found) != 1:
        names = ", ".join(entry["id"] for entry in listed) or "none"
        raise ConfigurationError(
            f"option model has to name one of the models of {settings.base_url}: {names}"
        )
    return found[0]


async def _try(
    session: aiohttp.ClientSession, settings: UpstreamSettings, model: str, encoder: PieceEncoder
) -> bool:
    """Have one token made; whether its id comes back."""
    request = GenerationRequest(
        request_id="try",
        prompt_token_ids=encoder.encode("a"),
        sampling=SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True),
    )
    body = request_body(request, model, settings.dialect)
    async with session.post(settings.url("completions"), data=body) as response:
        _check_status(response, settings)
        try:
            chunks = [
                read_chunk(event) async for event in events(response.content) if event != DONE
            ]
        except BackendError as error:
            raise ConfigurationError(f"{settings.base_url} completes no prompt of ids") from error
    if not any(chunk.finish_reason in {"stop", "length"} for chunk in chunks):
        raise ConfigurationError(f"{settings.base_url} did not make the one token it was asked for")
    return any(chunk.token_ids for chunk in chunks)
