"""A server whose scripted model answers each turn of a conversation as the clients expect it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.serving import EOS, Serving, ids_of, scripted_runner, serving

# The prompt is only what decides the answer. The words behind it say which syntax calls have.
TEMPLATE = (
    "{% set last = messages[-1] %}"
    "{% if last.role == 'tool' %}told{% elif tools %}{{ tools[0].function.name }}?"
    "{% else %}{{ last.content }}{% endif %}"
    "{# <tool_call> and </tool_call> around JSON with name and arguments #}"
)
HELLO = "Hello! Καλημέρα 👋"
CALL = '<tool_call>\n{"name": "Weather", "arguments": {"city": "Rome", "days": 2}}\n</tool_call>'
CALLS = [["Weather", {"city": "Rome", "days": 2}]]
DOCUMENT = {"city": "Rome", "days": 2}
TOLD = "The sky is blue."
LONG = "1 2 3 4 5 6 7 8 " * 100
SCRIPTS = {
    "Say hello.": HELLO,
    "Weather?": CALL,
    "PartialWeather?": CALL.replace("Weather", "PartialWeather"),  # as Instructor calls it
    "What is the weather in Rome?": CALL,
    "told": TOLD,
    "Describe the weather.": '{"city": "Rome", "days": 2}',
    "Count for a long time.": LONG,
}


@asynccontextmanager
async def answering(**options: Any) -> AsyncIterator[Serving]:
    """Serve it, a step every two milliseconds so that a client can leave in between."""
    scripts = {tuple(ids_of(said)): [*ids_of(answer), EOS] for said, answer in SCRIPTS.items()}
    runner = scripted_runner(scripts=scripts, reply=[*ids_of("what?"), EOS], step_time_s=0.002)
    async with serving(runner, chat_template=TEMPLATE, **options) as served:
        yield served
