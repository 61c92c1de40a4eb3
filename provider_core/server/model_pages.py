"""`/docs/models`: each model's card as a page for people, plain HTML that loads nothing.

What stands there is what the server knows (limits, prices, parameters) and what the provider says
in `[model.card]`. The page is made when it is asked for: models change while serving.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import orjson
from aiohttp import web

from provider_core.dialects.openrouter.parameters import (
    ABOVE_ZERO,
    descriptors,
    max_output_tokens,
)
from provider_core.dialects.pricing import price_string
from provider_core.prices import Prices
from provider_core.server.features import listed
from provider_core.server.model_examples import Example, examples
from provider_core.server.pipeline import Pipeline
from provider_core.types import ModelSpec

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
_MILLION = 10**6
_PER_MILLION = {
    "prompt": "input tokens",
    "input_cache_read": "cached input tokens",
    "completion": "output tokens",
    "internal_reasoning": "reasoning tokens",
}
_PER_UNIT = {"request": "request", "image": "image"}
_ABILITIES = {
    "tools": "Function calling",
    "json_mode": "JSON mode",
    "structured_outputs": "Documents by schema",
    "reasoning": "Reasoning",
    "logprobs": "Log probabilities",
}

MEANINGS: Mapping[str, str] = {
    "max_tokens": "Most tokens of the answer.",
    "temperature": "How much chance decides; 0 takes the likeliest token.",
    "top_p": "Draws from the likeliest tokens that together have this probability.",
    "top_k": "Draws from so many of the likeliest tokens; 0 is off.",
    "min_p": "Leaves out tokens below this part of the likeliest one's probability.",
    "top_a": "The same with the square of that probability.",
    "frequency_penalty": "Makes a token less likely each time it was said.",
    "presence_penalty": "Makes a token less likely once it was said.",
    "repetition_penalty": "Divides the scores of tokens in the prompt or the answer.",
    "stop": "Strings that end the answer, and are not part of it.",
    "seed": "The same seed gives the same answer.",
    "logit_bias": "Adds to the scores of tokens, by their ids.",
    "logprobs": "Says how likely each token was.",
    "top_logprobs": "And what the likeliest others were.",
    "tools": "Functions that the model may call.",
    "tool_choice": "Whether it may, must, or must not, and which.",
    "parallel_tool_calls": "Whether it may make several calls at once.",
    "response_format": "Makes the answer JSON, of a schema if there is one.",
    "structured_outputs": "Makes the answer fit a schema, a pattern or a choice.",
    "reasoning": "How much to think before the answer.",
    "include_reasoning": "Whether to show that.",
    "encoding_format": "How vectors are written.",
    "top_n": "How many documents to return.",
    "return_documents": "Whether to repeat them.",
}
_WITH_GRAMMARS = {
    "structured_outputs": "Makes the answer fit a schema, a pattern, a choice or a grammar."
}


class ModelPages:
    """The pages; open to everybody unless `access.private_models` is set.

    Args:
        pipeline: Knows the models and who is calling.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._models = pipeline.dispatcher.models
        self._settings = pipeline.settings

    def add_routes(self, app: web.Application) -> None:
        """Register."""
        app.router.add_get("/docs/models", self.index)
        app.router.add_get("/docs/models/{model:.+}", self.page)

    async def index(self, request: web.Request) -> web.Response:
        """`GET /docs/models`."""
        await self._enter(request)
        specs = [listed(model) for model in self._models]
        return _html(_template("models.html").render(provider=self._settings.provider, specs=specs))

    async def page(self, request: web.Request) -> web.Response:
        """`GET /docs/models/{id}`; the id's slash may come encoded or raw."""
        await self._enter(request)
        spec = listed(self._models.find(request.match_info["model"]))
        provider = self._settings.provider
        base_url = provider.base_url or f"{request.scheme}://{request.host}"
        allows_grammars = self._settings.limits.client_grammars
        meanings = {**MEANINGS, **(_WITH_GRAMMARS if allows_grammars else {})}
        return _html(
            _template("model.html").render(
                spec=spec,
                card=spec.card,
                provider=provider,
                base_url=base_url,
                facts=dict(_facts(spec)),
                abilities=_abilities(spec),
                prices=list(_prices(spec.prices)),
                parameters=[
                    (name, _describe(descriptor), descriptor.get("default"), meanings.get(name, ""))
                    for output in spec.output_modalities
                    for name, descriptor in descriptors(spec, output).items()
                ],
                code=_examples(spec, base_url),
            )
        )

    async def _enter(self, request: web.Request) -> None:
        if self._settings.access.private_models:
            await self._pipeline.identify(request)
        self._pipeline.check_serving(request)


def _html(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/html", headers=_HEADERS)


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = lambda value: orjson.dumps(value).decode()
    return environment.get_template(name)


def _facts(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """What one line can say; what is unknown is not said."""
    yield "Model id", spec.id
    if spec.aliases:
        yield "Also called", ", ".join(spec.aliases)
    yield "Context length", f"{spec.max_model_len:,} tokens of input and output"
    if "text" in spec.output_modalities:
        yield "Longest answer", f"{max_output_tokens(spec):,} tokens"
    yield "Reads", ", ".join(spec.input_modalities)
    yield "Makes", ", ".join(spec.output_modalities)
    said = {
        "Languages": ", ".join(spec.languages),
        "Knowledge until": spec.knowledge_cutoff,
        "Family": spec.family,
        "Precision": spec.quantization,
        "Hugging Face": spec.hugging_face_id,
        "Ends": spec.deprecation_date,
    }
    yield from ((name, text) for name, text in said.items() if text)
    if spec.created:
        yield "Since", datetime.fromtimestamp(spec.created, UTC).date().isoformat()
    limits = spec.capacity
    rates = {
        "Requests a minute": limits.requests_per_minute,
        "Requests a day": limits.requests_per_day,
        "Input tokens a minute": limits.prompt_tokens_per_minute,
        "Output tokens a minute": limits.completion_tokens_per_minute,
        "Requests at a time": limits.concurrent_requests or spec.max_num_seqs,
    }
    yield from ((name, f"{rate:,}") for name, rate in rates.items() if rate)


def _abilities(spec: ModelSpec) -> dict[str, bool]:
    """What requests may ask for, and whether this model can."""
    if "text" not in spec.output_modalities:
        return {}
    is_chat = "chat" in spec.features
    return {
        "Streaming": True,
        "Conversations with system messages": is_chat,
        **{text: feature in spec.features for feature, text in _ABILITIES.items()},
        "Images": "image" in spec.input_modalities,
    }


def _prices(prices: Prices) -> Iterator[tuple[str, list[str]]]:
    """Each price list as a heading and its lines; exact."""
    if prices.tiers:
        first = min(tier.min_prompt_tokens for tier in prices.tiers)
        yield f"Up to {first - 1:,} input tokens", _amounts(prices)
    elif not prices.windows:
        yield "Always", _amounts(prices)
    for tier in prices.tiers:
        yield f"From {tier.min_prompt_tokens:,} input tokens on", _amounts(tier.prices)
    for window in prices.windows:
        hours = f"{_clock(window.utc_start)} to {_clock(window.utc_end)} UTC"
        yield hours, _amounts(window.prices)
    if prices.windows:
        yield "Otherwise", _amounts(prices)


def _amounts(prices: Prices) -> list[str]:
    lines = []
    for names, factor, unit in ((_PER_MILLION, _MILLION, "million "), (_PER_UNIT, 1, "")):
        for name, text in names.items():
            price: Decimal | None = getattr(prices, name)
            if price:
                amount = price_string((price * factor).normalize())
                lines.append(f"{amount} USD per {unit}{text}")
    return lines or ["free"]


def _clock(time: int) -> str:
    return f"{time // 100:02}:{time % 100:02}"


def _describe(descriptor: Mapping[str, Any]) -> str:
    """A parameter's values in words."""
    match descriptor:
        case {"min": low, "max": high} if low == ABOVE_ZERO:
            return f"above 0, to {high}"
        case {"min": low, "max": high}:
            return f"{low} to {high}"
        case {"min": low}:
            return f"{low} or more"
        case {"values": values}:
            return ", ".join(values)
        case {"max_items": number}:
            return f"up to {number}"
        case {"type": "boolean"}:
            return "supported"
        case _:
            return "any"


def _examples(spec: ModelSpec, base_url: str) -> list[Example]:
    prompt = spec.card.examples[0].prompt if spec.card.examples else "Hello!"
    return examples(spec, base_url, prompt)
