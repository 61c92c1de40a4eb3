"""What a client asks, whichever dialect it speaks: every dialect's parser returns one of these.

Messages and tools have OpenAI's form, which is what chat templates read. A dialect adds what only
its own answers need by deriving from `ChatRequest`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from provider_core.dialects.sampling import PendingSampling
from provider_core.types import Constraint, Tool, ToolChoice

__all__ = [
    "ChatRequest",
    "Effort",
    "ReasoningOptions",
    "RequestFields",
    "Tool",
    "ToolChoice",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFields:
    """What chat and raw completions have in common.

    Attributes:
        model: As the client spelled it, up to the whole body long; echo 64 characters at most.
        n: Choices per prompt.
        best_of: Sequences to generate per prompt, of which the best `n` are returned.
        stop: Texts that end a choice.
        user: The client's name for its end user, cut to a documented length.
        metadata: The client's labels, cut to the documented limits.
        cache_salt: Prompts of the same client with another salt share nothing in the prefix cache.
    """

    model: str
    sampling: PendingSampling
    stream: bool = False
    n: int = 1
    best_of: int = 1
    stop: tuple[str, ...] = ()
    user: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    cache_salt: str = ""


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningOptions:
    """How much a model that reasons should, and whether the client sees it.

    Attributes:
        enabled: `None` leaves it to the model's template.
        max_tokens: Most tokens of reasoning, after which it is ended.
        exclude: Reason, and do not show it.
        param: The field that asked, for errors.
    """

    enabled: bool | None = None
    effort: Effort | None = None
    max_tokens: int | None = None
    exclude: bool = False
    param: str = "reasoning"


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image of a conversation.

    Attributes:
        url: A data URL, or an address, not checked yet.
        param: Where the client put it, for errors.
    """

    url: str
    param: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest(RequestFields):
    """A conversation to be answered.

    Attributes:
        messages: Ready for `ChatTemplate.render`: OpenAI's message objects, checked.
        images: What stands where messages have a content part `{"type": "image"}`, in order.
        continue_final_message: The last message is the assistant's and is to be continued.
        tools: What may be called; the template sees them unless `tool_choice` is `none`.
        parallel_tool_calls: Several calls may be made in one answer.
        response_format: What the answer's text has to be; reasoning and calls are free of it.
    """

    messages: list[dict[str, Any]]
    images: tuple[ImageSource, ...] = ()
    continue_final_message: bool = False
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_tool_calls: bool = True
    response_format: Constraint | None = None
    reasoning: ReasoningOptions = field(default_factory=ReasoningOptions)
