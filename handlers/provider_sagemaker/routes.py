"""POST /invocations: passed to the path that it is for, and its answer back as it comes.

Batch transforms ask beforehand, on /execution-parameters, how they should send their records.
"""

import json
from collections.abc import Mapping

import aiohttp
from aiohttp import web

from provider_core import InvalidRequest, Unavailable
from provider_core.server.body import read_body
from provider_core.server.in_process import InProcess
from provider_sagemaker.settings import SageMakerSettings
from provider_sagemaker.shapes import (
    ATTRIBUTES,
    FORWARDED,
    UnknownInvocation,
    batch_parameters,
    find_route,
    read_attributes,
    wants_stream,
    write_attributes,
)

_MARGIN_S = 1.0  # before SageMaker's own deadline, for the answer to arrive
_KEY_HEADERS = {"authorization", "x-api-key", "x-goog-api-key"}
_INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"
_DEADLINE = "x-request-deadline-ms"


class Invocations:
    """The routes.

    Args:
        process: The application, for the call behind the call.
        settings: Of this handler.
    """

    def __init__(self, process: InProcess, settings: SageMakerSettings) -> None:
        self._process = process
        self._settings = settings

    def add_routes(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post("/invocations", self.invoke)
        app.router.add_get("/execution-parameters", self.tell_parameters)

    async def tell_parameters(self, _: web.Request) -> web.Response:
        """As many records at a time as the first model has slots, each a request of its own."""
        specs = self._process.specs
        num_slots = specs[0].max_num_seqs if specs else None
        max_body_bytes = self._process.settings.limits.max_body_bytes
        return web.json_response(batch_parameters(num_slots or 1, max_body_bytes))

    async def invoke(self, request: web.Request) -> web.StreamResponse:
        """Run the body by the path that it is for."""
        raw = await read_body(request, self._process.settings.limits)
        attributes = read_attributes(request.headers.get(ATTRIBUTES))
        try:
            body = json.loads(raw)
            route = find_route(attributes, body)
        except UnknownInvocation as error:
            raise InvalidRequest(str(error)) from None
        except (ValueError, RecursionError):
            raise InvalidRequest("the body is not JSON", code="invalid_json") from None
        headers = self._headers(request, attributes, is_stream=wants_stream(route, body))
        try:
            async with (
                self._process.open_session() as session,
                session.post(route, data=raw, headers=headers) as answer,
            ):
                return await _pass_on(request, answer)
        except aiohttp.ClientConnectionError:
            raise Unavailable("the server is shutting down", code="draining") from None

    def _headers(
        self, request: web.Request, attributes: Mapping[str, str], *, is_stream: bool
    ) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        api_key = self._process.api_key
        if api_key is not None and not attributes.keys() & _KEY_HEADERS:
            headers["authorization"] = f"Bearer {api_key}"  # the caller passed AWS's own check
        if _INFERENCE_ID in request.headers:
            headers["x-request-id"] = request.headers[_INFERENCE_ID]
        headers |= {name: value for name, value in attributes.items() if name in FORWARDED}
        settings = self._settings
        deadline_s = settings.stream_deadline_s if is_stream else settings.deadline_s
        left_ms = round(1000 * (deadline_s - _MARGIN_S))
        own_ms = headers.get(_DEADLINE, "")
        if not own_ms.isdecimal() or int(own_ms) > left_ms:
            headers[_DEADLINE] = str(left_ms)
        return headers


async def _pass_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Send an answer as it comes; what callers would want of its headers is in the attributes."""
    told = {
        "x-request-id": answer.headers.get("X-Request-Id"),
        "x-generation-id": answer.headers.get("X-Generation-Id"),
        "retry-after": answer.headers.get("Retry-After"),
    }
    response = web.StreamResponse(
        status=answer.status,
        headers={
            "Content-Type": answer.headers["Content-Type"],
            ATTRIBUTES: write_attributes(told),
        },
    )
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response
