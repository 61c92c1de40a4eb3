"""`GET /openapi.json`: every route with what it takes, made from the routes themselves.

The router says which paths there are, `OPERATIONS` what they are for, and the pydantic models that
read the bodies which fields those may have. A route that a plugin adds is described by its
handler's docstring.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import provider_core
from provider_core.server.call import dialect_of_route
from provider_core.server.operations import (
    BASES,
    ERRORS,
    OPERATIONS,
    Operation,
    is_open,
)
from provider_core.settings import Settings

_REF = "#/components/schemas/{model}"
_KEYS: Mapping[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "x-goog-api-key": {"type": "apiKey", "in": "header", "name": "x-goog-api-key"},
}
_DESCRIPTION = (
    "Null is the same as absent, unknown fields are ignored, and a known one that cannot be "
    "honoured is a 400 that names it."
)


class OpenApiRoute:
    """Serves the description of the application that it is part of; needs no key.

    Args:
        settings: Name the provider, and say what is open to everybody.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._document: bytes | None = None

    def add_routes(self, app: web.Application) -> None:
        """Register."""
        app.router.add_get("/openapi.json", self.openapi)

    async def openapi(self, request: web.Request) -> web.Response:
        """`GET /openapi.json`, made once: routes do not change after the start."""
        if self._document is None:
            self._document = orjson.dumps(openapi_document(request.app, self._settings))
        return web.Response(body=self._document, content_type="application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path of the application with one method.

    Attributes:
        path: Its template: `/v1/models/{model}`.
    """

    method: str
    path: str
    operation: Operation


def documented_routes(app: web.Application) -> Iterator[Route]:
    """The routes of an application in the order of their registration, hidden ones left out."""
    for route in app.router.routes():
        resource = route.resource
        if resource is None or route.method in {"HEAD", "*"}:
            continue
        path = resource.canonical
        operation = _find(route.method, path) or Operation(
            _first_line(route.handler), body={"type": "object"}
        )
        if not operation.is_hidden:
            yield Route(method=route.method, path=path, operation=operation)


def _find(method: str, path: str) -> Operation | None:
    """What is known of a route: of its whole path, or else of that behind its base path."""
    base = next((base for base in BASES if path.startswith(f"{base}/")), "")
    return OPERATIONS.get(f"{method} {path}") or OPERATIONS.get(
        f"{method} {path.removeprefix(base)}"
    )


def openapi_document(app: web.Application, settings: Settings) -> dict[str, Any]:
    """The whole description, in OpenAPI 3.1."""
    routes = list(documented_routes(app))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, settings)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": settings.provider.name,
            "version": provider_core.__version__,
            "description": _DESCRIPTION,
        },
        "servers": [{"url": settings.provider.base_url or "/"}],
        "paths": paths,
        "components": {
            "schemas": {**_bodies(routes), **ERRORS},
            "securitySchemes": dict(_KEYS),
        },
    }


def _operation(route: Route, settings: Settings) -> dict[str, Any]:
    operation = route.operation
    dialect = dialect_of_route(route.method, route.path)
    described: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub(r'[^a-zA-Z0-9]+', '_', route.path)}",
        "summary": operation.summary,
        "tags": [dialect],
        "security": [] if is_open(route.path, settings) else [{name: []} for name in _KEYS],
        "responses": {
            "200": {
                "description": "The answer.",
                "content": {kind: {} for kind in operation.answers},
            },
            "default": {
                "description": "What went wrong.",
                "content": {"application/json": {"schema": _reference(f"{dialect}Error")}},
            },
        },
    }
    if parameters := [*_path_parameters(route.path), *_query_parameters(operation)]:
        described["parameters"] = parameters
    if route.method in {"POST", "PUT", "PATCH"} and operation.body is not None:
        body = operation.body
        schema = body if isinstance(body, Mapping) else _reference(body.__name__)
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return described


def _path_parameters(path: str) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name, description in operation.query.items():
        yield {
            "name": name,
            "in": "query",
            "description": description,
            "schema": {"type": "string"},
        }


def _bodies(routes: list[Route]) -> dict[str, Any]:
    """The schemas of all bodies, each by its model's name."""
    models = {
        body.__name__: body
        for body in (route.operation.body for route in routes)
        if isinstance(body, type) and issubclass(body, BaseModel)
    }
    for operation in OPERATIONS.values():  # parts of bodies that no model reads whole
        models |= {part.__name__: part for part in operation.parts}
    _, schema = models_json_schema(
        [(model, "validation") for model in models.values()], ref_template=_REF
    )
    definitions: dict[str, Any] = schema["$defs"]
    return definitions


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=name)}


def _first_line(handler: Handler | type) -> str:
    """What a handler says of itself; nothing if it is undocumented."""
    lines = (handler.__doc__ or "").strip().splitlines()
    return lines[0] if lines else ""
