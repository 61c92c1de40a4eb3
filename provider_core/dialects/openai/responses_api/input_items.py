"""The `input` of a response: a text, or items, to the messages of a chat.

One turn of the assistant may be spread over items: its reasoning, its text, its calls. They become
one message, as chat templates write it.
"""

from typing import Any

from provider_core.dialects.chat_request import ImageSource
from provider_core.dialects.openai.messages import check_sizes, parse_content, parse_message
from provider_core.dialects.validation import MAX_ECHO, bad_value, wrong_type
from provider_core.errors import InvalidRequest, UnsupportedParameter

_TEXT_PARTS = {"input_text", "output_text", "summary_text", "reasoning_text", "text"}


def parse_input(value: Any, max_messages: int, images: list[ImageSource]) -> list[dict[str, Any]]:
    """Read `input`.

    Args:
        value: Any JSON value.
        max_messages: Most items allowed.
        images: Gets the images of the user's messages; see `parse_messages`.

    Raises:
        InvalidRequest: It is missing or has another shape; `param` says which item and where.
        UnsupportedParameter: An item needs a server that stores, or tools that run in it.
    """
    if value is None:
        raise InvalidRequest("input is required", param="input", code="missing_required_parameter")
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise wrong_type("input", "a string or an array", value)
    if not value:
        raise bad_value("input", "must not be empty")
    check_sizes(value, max_messages, "input")
    conversation = _Conversation(images)
    for index, item in enumerate(value):
        conversation.add(item, f"input[{index}]")
    return conversation.messages


class _Conversation:
    """Messages as items are added to them."""

    def __init__(self, images: list[ImageSource]) -> None:
        self._images = images
        self.messages: list[dict[str, Any]] = []
        self._reasoning: str | None = None  # of the turn that comes next

    def add(self, item: Any, param: str) -> None:
        if not isinstance(item, dict):
            raise wrong_type(param, "an object", item)
        kind = item.get("type", "message")
        match kind:
            case "message":
                self._add_message(parse_message(_message(item), param, self._images))
            case "function_call":
                self._add_call(_call(item, param))
            case "function_call_output":
                self._reasoning = None
                self.messages.append(_result(item, param))
            case "reasoning":
                self._reasoning = _reasoning(item, param)
            case str():
                raise _other_kind(kind, f"{param}.type")
            case _:
                raise wrong_type(f"{param}.type", "a string", kind)

    def _add_message(self, message: dict[str, Any]) -> None:
        if message["role"] == "assistant" and self._reasoning:
            message["reasoning_content"] = self._reasoning
        self._reasoning = None
        self.messages.append(message)

    def _add_call(self, call: dict[str, Any]) -> None:
        last = self.messages[-1] if self.messages else None
        if last is None or last["role"] != "assistant" or self._reasoning:
            last = {"role": "assistant", "content": None}
            self._add_message(last)
        last.setdefault("tool_calls", []).append(call)


def _message(item: dict[str, Any]) -> dict[str, Any]:
    """An item as a chat's message: parts have other names there."""
    content = item.get("content")
    if isinstance(content, list):
        content = [_part(part) for part in content]
    return {"role": item.get("role"), "content": content}


def _part(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        return part
    if kind in _TEXT_PARTS:
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image" and part.get("image_url") is not None:
        image = {"url": part["image_url"], "detail": part.get("detail") or "auto"}
        return {"type": "image_url", "image_url": image}
    return part


def _call(item: dict[str, Any], param: str) -> dict[str, Any]:
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    for name, value in (("call_id", item.get("call_id")), *function.items()):
        if not isinstance(value, str):
            raise wrong_type(f"{param}.{name}", "a string", value)
    call = {"id": item["call_id"], "type": "function", "function": function}
    message = parse_message({"role": "assistant", "tool_calls": [call]}, param)
    checked: dict[str, Any] = message["tool_calls"][0]
    return checked


def _result(item: dict[str, Any], param: str) -> dict[str, Any]:
    if not isinstance(item.get("call_id"), str):
        raise wrong_type(f"{param}.call_id", "a string", item.get("call_id"))
    output = item.get("output")
    if isinstance(output, list):
        output = [_part(part) for part in output] or ""
    content = parse_content(output, "tool", f"{param}.output")
    return {"role": "tool", "content": content, "tool_call_id": item["call_id"]}


def _reasoning(item: dict[str, Any], param: str) -> str:
    """What was thought, or at least its summary; what is encrypted is another provider's."""
    for name in ("content", "summary"):
        parts = item.get(name) or []
        if not isinstance(parts, list):
            raise wrong_type(f"{param}.{name}", "an array", parts)
        texts = []
        for index, part in enumerate(parts):
            text = part.get("text") if isinstance(part, dict) else None
            if not isinstance(text, str):
                raise wrong_type(f"{param}.{name}[{index}].text", "a string", text)
            texts.append(text)
        if texts:
            return "".join(texts)
    return ""


def _other_kind(kind: str, param: str) -> UnsupportedParameter:
    if kind == "item_reference":
        message = f"{param} is not supported by this server, which stores nothing: send the item"
    else:
        message = f"{param} {kind[:MAX_ECHO]!r} is not supported by this server"
    return UnsupportedParameter(message, param=param)
