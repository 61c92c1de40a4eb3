"""What a model says to requests of every kind, and what a client must get."""

from dataclasses import dataclass, field
from typing import Any

from tests.serving import HERMES

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
ROME = '{"name": "weather", "arguments": {"city": "Rome"}}'
NOW = '{"name": "now", "arguments": {}}'


def calling(*calls: str) -> str:
    """How the model writes calls."""
    return "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls)


@dataclass
class Scenario:
    """What the model says to a request, and what a client must get.

    Attributes:
        says: The model's whole text, its end left out.
        fields: Of the request.
        text: Content, of every choice.
        reasoning: `None` if there is none.
        calls: Names and arguments.
        reason: Why it ended.
    """

    says: str
    fields: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    reasoning: str | None = None
    calls: list[tuple[str, str]] = field(default_factory=list)
    reason: str = "stop"

    @property
    def num_choices(self) -> int:
        """How many were asked for."""
        return int(self.fields.get("n", 1))


WITH_TOOLS = {"tools": TOOLS}
NAMED = {**WITH_TOOLS, "tool_choice": {"type": "function", "function": {"name": "weather"}}}
CALLED_ROME = ("weather", '{"city": "Rome"}')
CALLED_NOW = ("now", "{}")
SCENARIOS = {
    "text": Scenario("Hello!", text="Hello!"),
    "empty": Scenario(""),
    "two choices": Scenario("Hello!", {"n": 2}, text="Hello!"),
    "log probabilities": Scenario("Hi é", {"logprobs": True, "top_logprobs": 2}, text="Hi é"),
    "cut text": Scenario("Hello!", {"max_tokens": 3}, text="Hel", reason="length"),
    "stop string over tokens": Scenario(
        "one, two, three", {"stop": [", th", "never"]}, text="one, two"
    ),
    "stop string inside reasoning": Scenario(
        "<think>Hm.</think>Yes, no", {"stop": ["Hm", ","]}, text="Yes", reasoning="Hm."
    ),
    "stop string in a document": Scenario(
        '{"city": "Rome"}',
        {"response_format": {"type": "json_object"}, "stop": "Rome"},
        text='{"city": "',
    ),
    "almost a stop string": Scenario("one, two, t", {"stop": [", three"]}, text="one, two, t"),
    "emoji over tokens": Scenario("👩‍👩‍👧 漢字 é", text="👩‍👩‍👧 漢字 é"),
    "line ends of all kinds": Scenario("a\u2028b\u0085c\r\nd", text="a\u2028b\u0085c\r\nd"),
    "reasoning": Scenario("<think>\nHm.\n</think>\n\nYes", text="Yes", reasoning="Hm."),
    "reasoning with log probabilities": Scenario(
        "<think>Hm</think>Yes", {"logprobs": True}, text="Yes", reasoning="Hm"
    ),
    "cut reasoning": Scenario(
        "<think>Hm, well</think>Yes", {"max_tokens": 10}, reasoning="Hm,", reason="length"
    ),
    "hidden reasoning": Scenario(
        "<think>Hm</think>Yes", {"reasoning": {"exclude": True}}, text="Yes"
    ),
    "tools, none called": Scenario("Hello!", WITH_TOOLS, text="Hello!"),
    "one call": Scenario(calling(ROME), WITH_TOOLS, calls=[CALLED_ROME], reason="tool_calls"),
    "a call without arguments": Scenario(
        calling(NOW), WITH_TOOLS, calls=[CALLED_NOW], reason="tool_calls"
    ),
    "three calls": Scenario(
        calling(ROME, NOW, ROME),
        WITH_TOOLS,
        calls=[CALLED_ROME, CALLED_NOW, CALLED_ROME],
        reason="tool_calls",
    ),
    "one call of three": Scenario(
        calling(ROME, NOW, ROME),
        {**WITH_TOOLS, "parallel_tool_calls": False},
        calls=[CALLED_ROME],
        reason="tool_calls",
    ),
    "text and a call": Scenario(
        f"Let me look.\n{calling(ROME)}",
        WITH_TOOLS,
        text="Let me look.\n",
        calls=[CALLED_ROME],
        reason="tool_calls",
    ),
    "reasoning and a call": Scenario(
        f"<think>Hm</think>{calling(ROME)}",
        WITH_TOOLS,
        reasoning="Hm",
        calls=[CALLED_ROME],
        reason="tool_calls",
    ),
    "a required call": Scenario(
        calling(ROME),
        {**WITH_TOOLS, "tool_choice": "required"},
        calls=[CALLED_ROME],
        reason="tool_calls",
    ),
    "a named call": Scenario(calling(ROME), NAMED, calls=[CALLED_ROME], reason="tool_calls"),
    "a cut call": Scenario(
        calling(ROME),
        {**WITH_TOOLS, "max_tokens": len("<tool_call>\n") + len(ROME) - len('Rome"}}')},
        calls=[("weather", '{"city": "')],
        reason="length",
    ),
    "calls with log probabilities": Scenario(
        calling(ROME),
        {**WITH_TOOLS, "logprobs": True},
        calls=[CALLED_ROME],
        reason="tool_calls",
    ),
    "tools that must not be called": Scenario(
        calling(ROME), {**WITH_TOOLS, "tool_choice": "none"}, text=calling(ROME)
    ),
    "markup without tools": Scenario(calling(ROME), text=calling(ROME)),
    "a function of the old kind": Scenario(
        calling(NOW), {"functions": [{"name": "now"}]}, calls=[CALLED_NOW], reason="function_call"
    ),
    "a document by schema": Scenario(
        '{"city": "Rome"}',
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
            }
        },
        text='{"city": "Rome"}',
    ),
}
# Of a model whose template opens the reasoning of every reply.
OPENED = HERMES.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
OPENED_SCENARIOS = {
    "reasoning": Scenario("Hm.\n</think>\n\nYes", text="Yes", reasoning="Hm."),
    "cut reasoning": Scenario("Hm, well", {"max_tokens": 3}, reasoning="Hm,", reason="length"),
    "nothing but reasoning": Scenario("Hm", reasoning="Hm"),
    "a document behind reasoning": Scenario(
        '{ Hm</think>{"city": "Rome"}',
        {"response_format": {"type": "json_object"}},
        text='{"city": "Rome"}',
        reasoning="{ Hm",
    ),
    "a required call behind reasoning": Scenario(
        f"Hm</think>{calling(ROME)}",
        {**WITH_TOOLS, "tool_choice": "required"},
        reasoning="Hm",
        calls=[CALLED_ROME],
        reason="tool_calls",
    ),
}


def request_of(scenario: Scenario) -> dict[str, Any]:
    """The request's body."""
    return {
        "model": "test-model",
        "messages": [{"role": "user", "content": "hi"}],
        **scenario.fields,
    }
