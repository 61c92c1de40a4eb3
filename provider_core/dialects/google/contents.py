"""Google's contents to the messages that chat templates read.

A content holds parts. Calls of functions may come without ids; they get one by their order, and a
response without an id answers the oldest open call of its function. Google's own library sends a
streamed answer back piece by piece, each piece a content of its own; so consecutive contents of a
model are one message, whose texts are joined by nothing. A user's are joined by newlines.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from provider_core.dialects.chat_request import ImageSource
from provider_core.dialects.declared_tools import check_tool_name
from provider_core.dialects.google.fields import get, get_object, get_string, objects
from provider_core.dialects.google.tools import NAME_CHARACTERS
from provider_core.dialects.validation import MAX_ECHO, bad_value
from provider_core.errors import InvalidRequest, UnsupportedParameter

MAX_PARTS = 4096  # of all contents together

_MEDIA = ("inlineData", "fileData")
_FOREIGN = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
_STANDARD_BASE64 = str.maketrans("-_", "+/")
_SEPARATORS = {"user": "\n", "assistant": ""}


def parse_contents(
    contents: Any, system: Any, max_messages: int
) -> tuple[list[dict[str, Any]], tuple[ImageSource, ...]]:
    """Check a conversation.

    Args:
        contents: Any JSON value.
        system: `systemInstruction`; any JSON value.
        max_messages: Most contents allowed.

    Returns:
        OpenAI's message objects, at least one, and what stands where they have a part
        `{"type": "image"}`.

    Raises:
        InvalidRequest: A content has the wrong shape; `param` says which and where.
        UnsupportedParameter: A part is known and cannot be honoured.
    """
    if contents is None or contents == []:
        raise InvalidRequest(
            "contents is required", param="contents", code="missing_required_parameter"
        )
    if isinstance(contents, list) and len(contents) > max_messages:
        raise bad_value("contents", f"must have at most {max_messages} items, not {len(contents)}")
    conversation = _Conversation()
    if system is not None:
        conversation.instruct(system)
    for content, param in objects(contents, "contents"):
        conversation.take(content, param)
    return conversation.messages, tuple(conversation.images)


class _Conversation:
    """Collects contents."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.images: list[ImageSource] = []
        self._open_calls: list[tuple[str, str]] = []  # name and id, oldest first
        self._num_calls = 0
        self._num_parts = 0

    def instruct(self, system: Any) -> None:
        """`systemInstruction`: a content of text, or a string."""
        if isinstance(system, str):
            system = {"parts": [{"text": system}]}
        ((content, _),) = objects([system], "systemInstruction")
        texts = []
        for part, param in objects(content.get("parts") or [], "systemInstruction.parts"):
            text = get_string(part, "text", f"{param}.")
            if text is None:
                raise _unsupported(param, "a system instruction is text only")
            texts.append(text)
        if texts:
            self.messages.append({"role": "system", "content": "\n".join(texts)})

    def take(self, content: dict[str, Any], param: str) -> None:
        """One content of a client."""
        role = get_string(content, "role", f"{param}.") or "user"
        if role not in {"user", "model", "function"}:
            raise bad_value(f"{param}.role", f"must be user or model, not {role[:MAX_ECHO]!r}")
        parts = content.get("parts")
        if parts is None or parts == []:
            if role == "model":
                self._message("assistant")  # an answer that was empty
                return
            raise bad_value(f"{param}.parts", "must not be empty")
        for part, place in objects(parts, f"{param}.parts"):
            self._num_parts += 1
            if self._num_parts > MAX_PARTS:
                raise bad_value("contents", f"must have at most {MAX_PARTS} parts")
            self._part(part, "assistant" if role == "model" else "user", place)

    def _part(self, part: dict[str, Any], role: str, param: str) -> None:
        for name in _FOREIGN:
            if get(part, name) is not None:
                raise _unsupported(f"{param}.{name}", "this server runs nothing itself")
        for name in _MEDIA:
            media = get_object(part, name, f"{param}.")
            if media is not None:
                place = f"{param}.{name}"
                if role != "user":
                    raise _unsupported(place, "only a user shows images")
                self._show(ImageSource(_image_url(media, name, place), place))
                return
        call = get_object(part, "functionCall", f"{param}.")
        response = get_object(part, "functionResponse", f"{param}.")
        if call is not None:
            self._call(call, f"{param}.functionCall")
        elif response is not None:
            self._respond(response, f"{param}.functionResponse")
        else:
            text = get_string(part, "text", f"{param}.")
            if text is None:
                if role == "assistant" and get(part, "thoughtSignature") is not None:
                    self._message(role)  # it belonged to a thought that was not shown
                    return
                raise bad_value(param, "must hold text, a functionCall or a functionResponse")
            self._say(text, role, is_thought=part.get("thought") is True)

    def _say(self, text: str, role: str, *, is_thought: bool) -> None:
        key = "reasoning_content" if is_thought else "content"
        message = self._message(role)
        before = message.get(key)
        if isinstance(before, list):
            before.append({"type": "text", "text": text})
        else:
            message[key] = text if before is None else before + _SEPARATORS[role] + text

    def _show(self, image: ImageSource) -> None:
        self.images.append(image)
        message = self._message("user")
        content = message["content"]
        if not isinstance(content, list):
            message["content"] = [{"type": "text", "text": content}] if content else []
        message["content"].append({"type": "image"})

    def _call(self, call: Mapping[str, Any], param: str) -> None:
        name = check_tool_name(call.get("name"), f"{param}.name", also=NAME_CHARACTERS)
        arguments = get_object(call, "args", f"{param}.") or {}
        call_id = get_string(call, "id", f"{param}.") or f"call_{self._num_calls}"
        self._num_calls += 1
        self._open_calls.append((name, call_id))
        function = {"name": name, "arguments": orjson.dumps(arguments).decode()}
        self._message("assistant").setdefault("tool_calls", []).append(
            {"id": call_id, "type": "function", "function": function}
        )

    def _respond(self, response: Mapping[str, Any], param: str) -> None:
        name = check_tool_name(response.get("name"), f"{param}.name", also=NAME_CHARACTERS)
        result = get_object(response, "response", f"{param}.") or {}
        call_id = get_string(response, "id", f"{param}.")
        for call in self._open_calls:
            if call_id == call[1] or (call_id is None and name == call[0]):
                self._open_calls.remove(call)
                call_id = call[1]
                break
        self.messages.append(
            {
                "role": "tool",
                "tool_call_id": call_id or f"call_{self._num_calls}",
                "name": name,
                "content": _result_text(result),
            }
        )

    def _message(self, role: str) -> dict[str, Any]:
        """The running message of a role, or a new one."""
        if not self.messages or self.messages[-1]["role"] != role:
            self.messages.append({"role": role, "content": None})
        return self.messages[-1]


def _image_url(media: Mapping[str, Any], name: str, param: str) -> str:
    """The address of an image: a data URL if it is in the request itself."""
    mime_type = get_string(media, "mimeType", f"{param}.") or ""
    if not mime_type.startswith("image/"):
        raise _unsupported(param, "of all media only images are read")
    source = "fileUri" if name == "fileData" else "data"
    value = get_string(media, source, f"{param}.")
    if value is None:
        raise bad_value(param, f"must have a {source}")
    if name == "fileData":
        return value
    # Bytes of protocol buffers may be in either alphabet of base64, with padding or without.
    plain = value.translate(_STANDARD_BASE64).rstrip("=")
    return f"data:{mime_type};base64,{plain}{'=' * (-len(plain) % 4)}"


def _result_text(result: Mapping[str, Any]) -> str:
    """What a function gave: its `output` or its `error` if it names them, else all of it."""
    if "error" in result:
        return "Error: " + _text(result["error"])
    return _text(result["output"]) if "output" in result else _text(dict(result))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _unsupported(param: str, reason: str) -> UnsupportedParameter:
    return UnsupportedParameter(f"{param} is not supported: {reason}", param=param)
