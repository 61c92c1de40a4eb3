"""S1 to S9: constraints that are wrong, huge, hostile, or that break while they are enforced."""

import asyncio
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

import orjson
import pytest

from provider_core import Grammar, hookimpl
from tests.serving import Serving, saying, serving
from tests.threats.refusals import CHAT, post_bytes, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

_PARAM = "response_format.json_schema.schema"


def _asking_for(schema: object) -> dict[str, Any]:
    json_schema = {"name": "x", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": json_schema}}


async def _schema_refused(
    served: Serving, schema: object, place: str = "", code: str = "invalid_schema"
) -> None:
    await refused(served, _asking_for(schema), param=_PARAM + place, code=code, paths=(CHAT,))


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "objekt"}, "/type"),
        ({"type": "string", "pattern": "["}, "/pattern"),
        ({"properties": {"a": {"pattern": 5}}}, "/properties/a/pattern"),
        ({"items": {"uniqueItems": True}}, "/items/uniqueItems"),
    ],
)
async def test_s1_wrong_schemas(served: Serving, schema: object, place: str) -> None:
    """The keyword at fault is named, with its place."""
    await _schema_refused(served, schema, place)


async def test_s2_hostile_expressions(served: Serving) -> None:
    """Those that would take too long, from either field."""
    pattern = "(.{0,1000}){1000}"
    await _schema_refused(served, {"type": "string", "pattern": pattern}, "", "schema_too_complex")
    fields = {"guided_regex": pattern}
    await refused(served, fields, param="guided_regex", code="schema_too_complex", paths=(CHAT,))


async def test_s3_schemas_without_an_end(served: Serving) -> None:
    """And such as are too deep."""
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    await _schema_refused(served, endless)
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"items": deep}
    await _schema_refused(served, deep, "/items" * 33, "schema_too_complex")


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest", "file:///etc/passwd"])
async def test_s4_references_to_elsewhere(served: Serving, target: str) -> None:
    """Nothing is asked."""
    await _schema_refused(served, {"$ref": target}, "/$ref")


async def test_s5_many_different_schemas(served: Serving) -> None:
    """Each is compiled and answered."""
    for i in range(20):
        schema = {
            "type": "object",
            "properties": {f"p{i}": {"const": i}},
            "required": [f"p{i}"],
            "additionalProperties": False,
        }
        assert await _answer(served, _asking_for(schema)) == {f"p{i}": i}


async def test_s6_nothing_to_choose_from(served: Serving) -> None:
    """Empty lists are refused; an empty schema is any JSON."""
    await _schema_refused(served, {"enum": []}, "/enum")
    both = {**_asking_for({}), "guided_choice": ["a"]}
    await refused(served, both, param="guided_choice", paths=(CHAT,))


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": list(range(100_000))},
        {"properties": {f"p{i}": {} for i in range(10_000)}},
        {"type": "string", "description": "x" * 2**20},
    ],
    ids=["enum", "properties", "description"],
)
async def test_s7_huge_schemas(served: Serving, schema: Mapping[str, Any]) -> None:
    """By their length."""
    await _schema_refused(served, schema, "", "schema_too_complex")


class Breaking:
    """A plugin whose grammars fail when they are used."""

    @hookimpl
    def compile_grammar(self) -> Grammar:
        """One that can only be started."""
        return _BrokenGrammar()


class _BrokenGrammar:
    def start(self) -> "_BrokenGrammar":
        return self

    def fill_bitmask(self, bitmask: Any) -> None:
        raise RuntimeError("a secret of the plugin")

    def accept(self, token_id: int) -> bool:
        return True

    is_finished = False


async def test_s9_a_grammar_that_fails_ends_its_own_request() -> None:
    """With a 502, again and again, and whoever runs beside it is answered."""
    async with serving(saying("Hello!"), plugins=(Breaking(),)) as served:
        body = {"model": "test-model", "messages": [{"role": "user", "content": "hi"}]}
        for _ in range(8):
            free, broken = await asyncio.gather(
                post_bytes(served, CHAT, orjson.dumps(body)),
                post_bytes(served, CHAT, orjson.dumps(body | _asking_for({}))),
            )
            assert free.status == 200
            assert broken.status == 502
            assert (await broken.json())["error"]["code"] == "backend_error"
            assert "secret" not in await broken.text()


async def test_s11_nothing_we_need_keeps_pickles_on_disk() -> None:
    """No dependency brings `diskcache`, whose files run code when they are read."""
    names, left = set(), ["provider-core", "llguidance"]
    while left:
        name = left.pop()
        if name in names:
            continue
        names.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # for another platform
            continue
        left += [re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line]
    assert "aiohttp" in names
    assert "diskcache" not in {name.lower() for name in names}


async def _answer(served: Serving, fields: Mapping[str, Any]) -> object:
    response = await served.chat(**fields)
    body = await response.json()
    assert response.status == 200, body
    return orjson.loads(body["choices"][0]["message"]["content"])
