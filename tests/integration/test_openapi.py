"""`/openapi.json`: valid, complete, and true: held to what the server does."""

import re
from typing import Any

import jsonschema_rs
import pytest
from aiohttp import web
from openapi_spec_validator import validate

from provider_core import hookimpl
from provider_core.server.operations import OPERATIONS
from tests.serving import KEY, Serving, serving

HIDDEN = {"/v1/models/{model}", "/v1beta/models/{model}"}  # their POST only refuses
BAD_REQUESTS = {
    "openai": "/v1/chat/completions",
    "openrouter": "/api/v1/chat/completions",
    "anthropic": "/v1/messages",
    "google": "/v1beta/models/test-model:generateContent",
}


async def document_of(served: Serving) -> dict[str, Any]:
    """The description, as a stranger reads it."""
    async with served.session.get(served.url + "/openapi.json", headers={}) as response:
        assert response.status == 200
        document: dict[str, Any] = await response.json()
    return document


def validator_of(document: dict[str, Any], name: str) -> Any:
    """What judges values by one of the document's schemas; the package names no type for it."""
    components = document["components"]
    return jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": components}
    )


async def test_the_description_is_valid() -> None:
    """By OpenAPI's own schema, with every operation named once."""
    async with serving() as served:
        document = await document_of(served)

    validate(document)
    ids = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
    ]
    assert len(ids) == len(set(ids))


async def test_it_describes_every_route_and_no_other() -> None:
    """Those of the core, each with a summary of its own making; `HEAD` goes without saying."""
    async with serving() as served:
        document = await document_of(served)
        runner = served.server._runner
        assert runner is not None
        routes = {
            (route.method, route.resource.canonical)
            for route in runner.app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }

    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    assert described == routes - {("POST", path) for path in HIDDEN}
    summaries = [op["summary"] for item in document["paths"].values() for op in item.values()]
    assert all(summaries)


async def test_nothing_is_described_that_is_gone() -> None:
    """A route that is removed takes its words along."""
    async with serving() as served:
        document = await document_of(served)

    paths = set(document["paths"])
    gone = [
        key
        for key, operation in OPERATIONS.items()
        if not operation.is_hidden
        and not any(base + key.split(" ")[1] in paths for base in ("", "/v1", "/api/v1", "/v1beta"))
    ]
    assert gone == []


class Visitor:
    """A plugin with a route of its own."""

    @hookimpl
    def setup_app(self, app: web.Application) -> None:
        """Add it."""
        app.router.add_post("/visits", self.visit)

    async def visit(self, _: web.Request) -> web.Response:
        """Count a visit.

        This line is for readers of the code.
        """
        return web.Response()


async def test_the_routes_of_plugins_are_described_by_their_words() -> None:
    """The first line of the handler's docstring, and a body of any kind."""
    async with serving(plugins=(Visitor(),)) as served:
        document = await document_of(served)

    operation = document["paths"]["/visits"]["post"]
    assert operation["summary"] == "Count a visit."
    assert "requestBody" in operation
    validate(document)


async def test_keys_are_needed_where_it_says_so() -> None:
    """Without one, exactly the routes with a `security` answer 401; probes of one's own do not."""
    async with serving(probes={"/alive": {}}) as served:
        document = await document_of(served)
        assert document["paths"]["/alive"]["get"]["security"] == []
        wrong = []
        for path, item in document["paths"].items():
            for method, operation in item.items():
                url = served.url + re.sub(r"{\w+}", "test-model", path)
                async with served.session.request(
                    method,
                    url,
                    headers={"Authorization": ""},
                    json={} if method == "post" else None,
                ) as response:
                    if (response.status == 401) != bool(operation["security"]):
                        wrong.append((method, path, response.status))

    assert wrong == []


@pytest.mark.parametrize(("dialect", "path"), BAD_REQUESTS.items())
async def test_errors_look_as_described(dialect: str, path: str) -> None:
    """A refusal of each dialect fits its schema."""
    async with serving() as served:
        document = await document_of(served)
        response = await served.post(path, {"model": 5})
        body = await response.json()

    assert response.status == 400
    reference = document["paths"][re.sub("test-model", "{model}", path)]["post"]["responses"]
    schema = reference["default"]["content"]["application/json"]["schema"]["$ref"]
    assert schema.endswith(f"/{dialect}Error")
    validator_of(document, f"{dialect}Error").validate(body)


async def test_bodies_are_described_as_they_are_read() -> None:
    """What the server takes fits the schema, and what is out of range does not."""
    async with serving() as served:
        document = await document_of(served)
    chat = validator_of(document, "ChatCompletionRequest")
    body = {"model": "test-model", "messages": [{"role": "user", "content": "hi"}]}

    assert chat.is_valid(body | {"temperature": 2, "stream": None, "unknown": 1})
    assert not chat.is_valid(body | {"temperature": 2.5})
    assert not chat.is_valid({"model": "test-model"})


async def test_it_names_the_provider_and_where_it_is() -> None:
    """From `[provider]`; without an address, where the document came from."""
    async with serving() as served:
        assert (await document_of(served))["servers"] == [{"url": "/"}]
    provider = {"name": "Acme", "base_url": "https://api.acme.example"}
    async with serving(provider=provider, access={"require_key": False}) as served:
        document = await document_of(served)

    assert document["info"]["title"] == "Acme"
    assert document["servers"] == [{"url": "https://api.acme.example"}]
    assert document["paths"]["/v1/chat/completions"]["post"]["security"] == []
    assert KEY not in str(document)
