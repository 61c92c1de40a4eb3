"""Anthropic's messages to the form that chat templates read.

A turn is a string or blocks. Tool results become messages of their own, before what the user says
in the same turn or between it, as they stand there. Consecutive turns of one role are one turn, as
Anthropic defines it; templates often refuse two. Texts of one turn are joined by newlines.

An image of a user becomes a part of its turn, whose content then stays in parts.

Fields are named as Anthropic's own errors name them: `messages.0.content.1.text`.
"""

from collections.abc import Iterator
from typing import Any

from provider_core.dialects.chat_request import ImageSource
from provider_core.dialects.declared_tools import check_tool_name
from provider_core.dialects.turns import Turns
from provider_core.dialects.validation import MAX_ECHO, bad_value, wrong_type
from provider_core.errors import UnsupportedParameter

MAX_BLOCKS = 4096  # of all messages together
MAX_ID = 256  # characters of a call's id

_ROLES = ("user", "assistant", "system")
_ERROR_PREFIX = "Error: "  # how a failed tool shows in a prompt, for which templates know no field


def parse_messages(
    values: list[Any], system: Any, max_messages: int
) -> tuple[list[dict[str, Any]], tuple[ImageSource, ...]]:
    """Check a conversation.

    Args:
        values: JSON values of any kind, at least one.
        system: Any JSON value.
        max_messages: Most messages allowed.

    Returns:
        OpenAI's message objects, and what stands where they have a part `{"type": "image"}`.

    Raises:
        InvalidRequest: A message has the wrong shape; `param` says which and where.
        UnsupportedParameter: A block is known and cannot be honoured.
    """
    if len(values) > max_messages:
        raise bad_value("messages", f"must have at most {max_messages} items, not {len(values)}")
    num_blocks = sum(
        len(value["content"])
        for value in values
        if isinstance(value, dict) and isinstance(value.get("content"), list)
    )
    if num_blocks > MAX_BLOCKS:
        raise bad_value("messages", f"must have at most {MAX_BLOCKS} blocks, not {num_blocks}")
    conversation = _Conversation()
    turns = conversation.turns
    if system is not None:
        turns.say("system", _joined_text(system, "system"))
    for index, value in enumerate(values):
        conversation.take(value, f"messages.{index}")
    return turns.messages(), tuple(turns.images)


class _Conversation:
    """Collects turns."""

    def __init__(self) -> None:
        self.turns = Turns()
        self._tool_names: dict[str, str] = {}  # by the id of a call

    def take(self, value: Any, param: str) -> None:
        """Read one message of a client."""
        if not isinstance(value, dict):
            raise wrong_type(param, "an object", value)
        role = value.get("role")
        if not isinstance(role, str):
            raise wrong_type(f"{param}.role", "a string", role)
        if role not in _ROLES:
            raise bad_value(
                f"{param}.role", f"must be one of {', '.join(_ROLES)}, not {role[:MAX_ECHO]!r}"
            )
        content = value.get("content")
        if role == "system":
            self.turns.say("system", _joined_text(content, f"{param}.content"))
            return
        if role == "assistant":
            self.turns.open(role)  # an empty one may be continued, which is answering
        elif content == []:
            raise bad_value(f"{param}.content", "must not be empty")
        for block, place in _blocks(content, f"{param}.content"):
            if role == "user":
                self._take_user_block(block, place)
            else:
                self._take_assistant_block(block, place)

    def _take_user_block(self, block: dict[str, Any], param: str) -> None:
        match block["type"]:
            case "tool_result":
                self._take_result(block, param)
            case "image":
                self.turns.show(ImageSource(_image_url(block, param), param))
            case _:
                self.turns.say("user", _text(block, param))

    def _take_result(self, block: dict[str, Any], param: str) -> None:
        call_id = _string(block.get("tool_use_id"), f"{param}.tool_use_id", MAX_ID)
        content = block.get("content")
        text = "" if content is None else _joined_text(content, f"{param}.content")
        is_error = block.get("is_error")
        if is_error is not None and not isinstance(is_error, bool):
            raise wrong_type(f"{param}.is_error", "a boolean", is_error)
        if is_error:
            text = _ERROR_PREFIX + text
        self.turns.answer(call_id, text, self._tool_names.get(call_id))

    def _take_assistant_block(self, block: dict[str, Any], param: str) -> None:
        match block["type"]:
            case "tool_use":
                self._take_call(block, param)
            case "thinking":
                self.turns.think(_string(block.get("thinking"), f"{param}.thinking"))
            case "redacted_thinking":
                pass  # nobody but its author can read it
            case _:
                self.turns.say("assistant", _text(block, param))

    def _take_call(self, block: dict[str, Any], param: str) -> None:
        call_id = _string(block.get("id"), f"{param}.id", MAX_ID)
        name = check_tool_name(block.get("name"), f"{param}.name")
        arguments = block.get("input")
        if not isinstance(arguments, dict):
            raise wrong_type(f"{param}.input", "an object", arguments)
        self._tool_names[call_id] = name
        self.turns.call(call_id, name, arguments)


def _blocks(content: Any, param: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Each block of a turn with its place; every one is an object with a `type`."""
    if isinstance(content, str):
        yield {"type": "text", "text": content}, param
        return
    if not isinstance(content, list):
        raise wrong_type(param, "a string or an array of blocks", content)
    for index, block in enumerate(content):
        place = f"{param}.{index}"
        if not isinstance(block, dict):
            raise wrong_type(place, "an object", block)
        if not isinstance(block.get("type"), str):
            raise wrong_type(f"{place}.type", "a string", block.get("type"))
        yield block, place


def _joined_text(content: Any, param: str) -> str:
    return "\n".join(_text(block, place) for block, place in _blocks(content, param))


def _text(block: dict[str, Any], param: str) -> str:
    """The text of a block that is text."""
    match block["type"]:
        case "text":
            if "text" not in block:  # a string's own place has no `.text`
                raise wrong_type(f"{param}.text", "a string", None)
            return _string(block["text"], f"{param}.text")
        case "document":
            return _document(block, param)
        case "image":
            raise _unsupported(
                param, "images are not supported by this model, which reads text only"
            )
        case block_type:
            raise _unsupported(
                param, f"blocks of type {block_type[:MAX_ECHO]!r} are not supported here"
            )


def _image_url(block: dict[str, Any], param: str) -> str:
    """The address of an image: a data URL if it is in the request itself."""
    source = block.get("source")
    if not isinstance(source, dict):
        raise wrong_type(f"{param}.source", "an object", source)
    match source.get("type"):
        case "base64":
            media_type = _string(source.get("media_type"), f"{param}.source.media_type")
            return f"data:{media_type};base64,{_string(source.get('data'), f'{param}.source.data')}"
        case "url":
            return _string(source.get("url"), f"{param}.source.url")
        case _:
            raise _unsupported(f"{param}.source", "an image must be given as base64 or as a url")


def _document(block: dict[str, Any], param: str) -> str:
    source = block.get("source")
    if not isinstance(source, dict):
        raise wrong_type(f"{param}.source", "an object", source)
    match source.get("type"):
        case "text":
            text = _string(source.get("data"), f"{param}.source.data")
        case "content":
            text = _joined_text(source.get("content"), f"{param}.source.content")
        case _:
            raise _unsupported(param, "only documents of plain text are supported by this model")
    headings = [block[key] for key in ("title", "context") if isinstance(block.get(key), str)]
    return "\n".join([*headings, text])


def _string(value: Any, param: str, max_chars: int | None = None) -> str:
    if not isinstance(value, str):
        raise wrong_type(param, "a string", value)
    if max_chars is not None and not 1 <= len(value) <= max_chars:
        raise bad_value(param, f"must have 1 to {max_chars} characters")
    return value


def _unsupported(param: str, reason: str) -> UnsupportedParameter:
    return UnsupportedParameter(f"{param}: {reason}", param=param)
