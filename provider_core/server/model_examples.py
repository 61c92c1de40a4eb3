"""Programs that use a model, as its page shows them: each runs as it stands, given a key."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote
from typing import Any

from provider_core.types import ModelSpec


@dataclass(frozen=True, slots=True)
class Example:
    """One program.

    Attributes:
        title: What it shows.
        language: `curl`, `python`, `javascript`, or `json` for what comes back.
    """

    title: str
    language: str
    code: str


def examples(spec: ModelSpec, base_url: str, prompt: str) -> list[Example]:
    """Programs for one model.

    Args:
        spec: Of the model, with its features.
        base_url: Where requests go, without a path.
        prompt: What is said to it.
    """
    if "embeddings" in spec.output_modalities:
        body: dict[str, Any] = {"model": spec.id, "input": prompt}
        return [
            _curl("Make a vector", f"{base_url}/v1/embeddings", body),
            *_openai("Make a vector", base_url, "embeddings.create", body, "data[0].embedding"),
        ]
    if "rerank" in spec.output_modalities:
        body = {"model": spec.id, "query": prompt, "documents": ["First.", "Second."]}
        return [_curl("Score documents", f"{base_url}/v1/rerank", body)]
    if "chat" not in spec.features:
        body = {"model": spec.id, "prompt": prompt}
        return [
            _curl("Continue a text", f"{base_url}/v1/completions", body),
            *_openai("Continue a text", base_url, "completions.create", body, "choices[0].text"),
        ]
    return list(_chats(spec, base_url, prompt))


def _chats(spec: ModelSpec, base_url: str, prompt: str) -> Iterator[Example]:
    body: dict[str, Any] = {
        "model": spec.id,
        "messages": [{"role": "user", "content": prompt}],
    }
    url = f"{base_url}/v1/chat/completions"
    yield _curl("Ask", url, body)
    yield Example("What comes back", "json", _reply(spec))
    yield from _openai(
        "Ask", base_url, "chat.completions.create", body, "choices[0].message.content"
    )
    yield _curl("Ask, and see the answer grow", url, {**body, "stream": True})
    yield Example("Ask, and see the answer grow", "python", _python_stream(base_url, body))
    if "tools" in spec.features:
        yield _curl("Offer a function", url, {**body, "tools": [_TOOL]})
    if "structured_outputs" in spec.features:
        schema = {"name": "answer", "strict": True, "schema": _SCHEMA}
        form = {"type": "json_schema", "json_schema": schema}
        yield _curl("Ask for a document", url, {**body, "response_format": form})
    yield Example("With Anthropic's package", "python", _python_anthropic(base_url, body))
    yield Example("With Google's package", "python", _python_google(base_url, spec.id, prompt))


_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def _reply(spec: ModelSpec) -> str:
    """An answer; its counts and its text are made up."""
    text = spec.card.examples[0].answer if spec.card.examples else "Hello!"
    reply = {
        "id": "gen-01JEXAMPLE",
        "object": "chat.completion",
        "created": spec.created,
        "model": spec.id,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
    }
    return json.dumps(reply, indent=2, ensure_ascii=False)


def _curl(title: str, url: str, body: dict[str, Any]) -> Example:
    code = "\n".join(
        [
            f"curl {quote(url)} \\",
            '  -H "Authorization: Bearer $PROVIDER_API_KEY" \\',
            "  -H 'Content-Type: application/json' \\",
            f"  -d {quote(json.dumps(body, indent=2, ensure_ascii=False))}",
        ]
    )
    return Example(title, "curl", code)


def _openai(
    title: str, base_url: str, method: str, body: dict[str, Any], answer: str
) -> Iterator[Example]:
    """The same in both languages of OpenAI's package."""
    arguments = "".join(f"    {name}={_literal(value)},\n" for name, value in body.items())
    yield Example(
        title,
        "python",
        f"{_python_client(base_url)}\n"
        f"reply = client.{method}(\n{arguments})\n"
        f"print(reply.{answer})\n",
    )
    yield Example(
        title,
        "javascript",
        'import OpenAI from "openai";\n\n'
        "const client = new OpenAI({\n"
        f"  baseURL: {json.dumps(f'{base_url}/v1')},\n"
        "  apiKey: process.env.PROVIDER_API_KEY,\n"
        "});\n"
        f"const reply = await client.{method}({_literal(body, indent=2)});\n"
        f"console.log(reply.{answer});\n",
    )


def _python_client(base_url: str) -> str:
    url = json.dumps(f"{base_url}/v1")
    return (
        "import os\n\n"
        "from openai import OpenAI\n\n"
        f'client = OpenAI(base_url={url}, api_key=os.environ["PROVIDER_API_KEY"])'
    )


def _python_stream(base_url: str, body: dict[str, Any]) -> str:
    arguments = "".join(f"    {name}={_literal(value)},\n" for name, value in body.items())
    return (
        f"{_python_client(base_url)}\n"
        f"stream = client.chat.completions.create(\n{arguments}    stream=True,\n)\n"
        "for chunk in stream:\n"
        '    print(chunk.choices[0].delta.content or "", end="", flush=True)\n'
    )


def _python_anthropic(base_url: str, body: dict[str, Any]) -> str:
    arguments = "".join(f"    {name}={_literal(value)},\n" for name, value in body.items())
    return (
        "import os\n\n"
        "from anthropic import Anthropic\n\n"
        f"client = Anthropic(base_url={json.dumps(base_url)}, "
        'api_key=os.environ["PROVIDER_API_KEY"])\n'
        f"message = client.messages.create(\n    max_tokens=200,\n{arguments})\n"
        'print("".join(block.text for block in message.content if block.type == "text"))\n'
    )


def _python_google(base_url: str, model: str, prompt: str) -> str:
    return (
        "import os\n\n"
        "from google import genai\n\n"
        "client = genai.Client(\n"
        '    api_key=os.environ["PROVIDER_API_KEY"],\n'
        f'    http_options={{"base_url": {json.dumps(base_url)}}},\n'
        ")\n"
        "reply = client.models.generate_content("
        f"model={_literal(model)}, contents={_literal(prompt)})\n"
        "print(reply.text)\n"
    )


def _literal(value: Any, indent: int | None = None) -> str:
    """A value of strings and containers as both languages write it."""
    return json.dumps(value, indent=indent, ensure_ascii=False)
