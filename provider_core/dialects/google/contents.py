"""Google's contents to the messages that chat templates read.

A content holds parts. Calls of functions may come without ids, or with empty ones; they get one by
their order, and a response without an id answers the oldest open call of its function. Google's own
library sends a streamed answer back piece by piece, each piece a content of its own; so consecutive
contents of a model are one message, whose texts are joined by nothing. A user's are joined by
newlines.
"""

from collections import deque
from collections.abc import Mapping
from itertools import count
from typing import Any

import orjson

from provider_core.dialects.chat_request import ImageSource
from provider_core.dialects.declared_tools import check_tool_name
from provider_core.dialects.google.fields import get, get_object, get_string, objects
from provider_core.dialects.google.tools import NAME_CHARACTERS
from provider_core.dialects.turns import Turns
from provider_core.dialects.validation import MAX_ECHO, bad_value
from provider_core.errors import InvalidRequest, UnsupportedParameter

MAX_PARTS = 4096  # of all contents together

_MEDIA = ("inlineData", "fileData")
_FOREIGN = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
_STANDARD_BASE64 = str.maketrans("-_", "+/")


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
    return conversation.turns.messages(), tuple(conversation.turns.images)


class _Conversation:
    """Collects contents."""

    def __init__(self) -> None:
        self.turns = Turns({"assistant": ""})
        self._open_calls: dict[str, deque[str]] = {}  # ids by name, oldest first
        self._answered: set[str] = set()
        self._call_ids: dict[str, str] = {}  # by what the client calls them
        self._made_ids: set[str] = set()
        self._unused_ids = map("call_{}".format, count())
        self._num_parts = 0

    def instruct(self, system: Any) -> None:
        """`systemInstruction`: a content of text, or a string."""
        if isinstance(system, str):
            system = {"parts": [{"text": system}]}
        ((content, _),) = objects([system], "systemInstruction")
        for part, param in objects(content.get("parts") or [], "systemInstruction.parts"):
            text = get_string(part, "text", f"{param}.")
            if text is None:
                raise _unsupported(param, "a system instruction is text only")
            self.turns.say("system", text)

    def take(self, content: dict[str, Any], param: str) -> None:
        """One content of a client."""
        role = get_string(content, "role", f"{param}.") or "user"
        if role not in {"user", "model", "function"}:
            raise bad_value(f"{param}.role", f"must be user or model, not {role[:MAX_ECHO]!r}")
        parts = content.get("parts")
        if parts is None or parts == []:
            if role == "model":
                self.turns.open("assistant")  # an answer that was empty
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
                self.turns.show(ImageSource(_image_url(media, name, place), place))
                return
        call = get_object(part, "functionCall", f"{param}.")
        response = get_object(part, "functionResponse", f"{param}.")
        if call is not None:
            self._call(call, f"{param}.functionCall")
        elif response is not None:
            self._respond(response, f"{param}.functionResponse")
        else:
            self._text(part, role, param)

    def _text(self, part: dict[str, Any], role: str, param: str) -> None:
        text = get_string(part, "text", f"{param}.")
        if role == "assistant":
            self.turns.open(role)
            if text is None and get(part, "thoughtSignature") is not None:
                return  # it belonged to a thought that was not shown
        if text is None:
            raise bad_value(param, "must hold text, a functionCall or a functionResponse")
        if role == "assistant" and part.get("thought") is True:
            self.turns.think(text)
        else:
            self.turns.say(role, text)

    def _call(self, call: Mapping[str, Any], param: str) -> None:
        name = check_tool_name(call.get("name"), f"{param}.name", also=NAME_CHARACTERS)
        arguments = get_object(call, "args", f"{param}.") or {}
        given = get_string(call, "id", f"{param}.")
        if given and given not in self._call_ids:
            self._call_ids[given] = self._make_id() if given in self._made_ids else given
        call_id = self._call_ids[given] if given else self._make_id()
        self._open_calls.setdefault(name, deque()).append(call_id)
        self.turns.call(call_id, name, arguments)

    def _respond(self, response: Mapping[str, Any], param: str) -> None:
        name = check_tool_name(response.get("name"), f"{param}.name", also=NAME_CHARACTERS)
        result = get_object(response, "response", f"{param}.") or {}
        given = get_string(response, "id", f"{param}.")
        call_id = self._call_ids.get(given, given) if given else self._oldest_open(name)
        self._answered.add(call_id)
        self.turns.answer(call_id, _result_text(result), name)

    def _oldest_open(self, name: str) -> str:
        """The id of the oldest call of a function that has no answer yet, or one of nothing."""
        open_calls = self._open_calls.get(name, deque())
        while open_calls:
            call_id = open_calls.popleft()
            if call_id not in self._answered:
                return call_id
        return self._make_id()

    def _make_id(self) -> str:
        """An id that nothing has so far; a call that comes with it later gets another one."""
        made = next(
            each
            for each in self._unused_ids
            if each not in self._call_ids and each not in self._answered
        )
        self._made_ids.add(made)
        return made


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
        return "Error: " + _plain(result["error"])
    return _plain(result["output"]) if "output" in result else _plain(dict(result))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _unsupported(param: str, reason: str) -> UnsupportedParameter:
    return UnsupportedParameter(f"{param} is not supported: {reason}", param=param)
