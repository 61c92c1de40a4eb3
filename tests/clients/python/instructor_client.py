"""Instructor over the openai package: objects of a class, by a tool or by a document."""

from collections.abc import Callable, Mapping
from typing import Any

import instructor
from conversation import ASK, COUNT, DESCRIBE, HELLO, MODEL, TOO_LONG, picture, said, shown
from openai import OpenAI
from pydantic import BaseModel


class Weather(BaseModel):
    """The weather."""

    city: str
    days: int


def cases(url: str, key: str) -> Mapping[str, Callable[[], Any]]:
    """The programs."""

    def client(
        mode: instructor.Mode = instructor.Mode.TOOLS, *, with_key: str = key
    ) -> instructor.Instructor:
        openai = OpenAI(base_url=f"{url}/v1", api_key=with_key, max_retries=0)
        return instructor.from_openai(openai, mode=mode)

    def create(mode: instructor.Mode, text: str, **fields: Any) -> Any:
        options = {"model": MODEL, "messages": said(text), "response_model": Weather}
        return client(mode).create(**{**options, "max_retries": 0, **fields})

    def whole() -> Any:
        reply: Any = client().create(model=MODEL, messages=said(HELLO), response_model=None)
        usage = reply.usage
        return shown(
            reply.choices[0].message.content, (usage.prompt_tokens, usage.completion_tokens)
        )

    def partial() -> Any:
        *_, last = client().create_partial(
            model=MODEL, messages=said(ASK), response_model=Weather, max_retries=0
        )
        return [["Weather", last.model_dump()]]

    def refused(**fields: Any) -> Any:
        return client().create(
            **{
                "model": MODEL,
                "messages": said(HELLO),
                "response_model": None,
                "max_retries": 0,
                **fields,
            }
        )

    def left() -> Any:
        stream: Any = client().create(
            model=MODEL, messages=said(COUNT), response_model=None, stream=True
        )
        text = next(
            chunk.choices[0].delta.content for chunk in stream if chunk.choices[0].delta.content
        )
        stream.close()
        return text

    def forced() -> Any:
        return [["Weather", create(instructor.Mode.TOOLS, ASK).model_dump()]]

    def strict() -> Any:
        return [["Weather", create(instructor.Mode.TOOLS_STRICT, ASK).model_dump()]]

    return {
        "whole": whole,
        "forced": forced,
        "called": strict,
        "called in a stream": partial,
        "document": lambda: create(instructor.Mode.JSON_SCHEMA, DESCRIBE).model_dump(),
        "wrong key": lambda: client(with_key="sk-wrong-key").create(
            model=MODEL, messages=said(HELLO), response_model=None
        ),
        "unknown model": lambda: refused(model="nobody"),
        "picture": lambda: refused(messages=picture()).choices[0].message.content,
        "too long": lambda: refused(messages=said(TOO_LONG)),
        "left": left,
    }
