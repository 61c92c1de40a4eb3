"""Chat messages: checked, and reduced to what a chat template reads.

The messages that come out hold only known keys, text as one string, and no value a template could
not expect. Text parts are joined by newlines, as vLLM and llama.cpp do for templates that take
strings. A `function_call` and the message that answers it become a call of a tool and its result,
which is what templates know.
"""

from typing import Any

from provider_core.dialects.chat_request import ImageSource
from provider_core.dialects.validation import MAX_ECHO, bad_value, wrong_type
from provider_core.errors import InvalidRequest, UnsupportedParameter

MAX_PARTS = 4096  # content parts of all messages together
MAX_NAME = 64  # characters

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_MEDIA_PARTS = {
    "image_url": "images",
    "input_image": "images",
    "input_audio": "audio",
    "file": "files",
    "input_file": "files",
    "video_url": "video",
    "input_video": "video",
}


def parse_messages(
    values: list[Any], max_messages: int, images: list[ImageSource] | None = None
) -> list[dict[str, Any]]:
    """Check the messages of a chat.

    Args:
        values: JSON values of any kind, at least one.
        max_messages: Most messages allowed.
        images: Gets the images of the user's messages, whose content then stays in parts; `None`
            refuses them.

    Raises:
        InvalidRequest: A message has the wrong shape; `param` says which and where.
        UnsupportedParameter: A message holds an image, audio, video or a file.
    """
    check_sizes(values, max_messages, "messages")
    messages = [
        parse_message(value, f"messages[{index}]", images) for index, value in enumerate(values)
    ]
    _modernise(messages)
    return messages


def check_sizes(values: list[Any], max_messages: int, param: str) -> None:
    """Check how many messages there are, and how many parts they have together.

    Raises:
        InvalidRequest: Too many.
    """
    if len(values) > max_messages:
        raise bad_value(param, f"must have at most {max_messages} items, not {len(values)}")
    num_parts = sum(
        len(value["content"])
        for value in values
        if isinstance(value, dict) and isinstance(value.get("content"), list)
    )
    if num_parts > MAX_PARTS:
        raise bad_value(param, f"must have at most {MAX_PARTS} content parts, not {num_parts}")


def parse_message(
    value: Any, param: str, images: list[ImageSource] | None = None
) -> dict[str, Any]:
    """Check one message of a chat, which `param` names in errors; see `parse_messages`."""
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    role = value.get("role")
    if not isinstance(role, str):
        raise wrong_type(f"{param}.role", "a string", role)
    if role not in _ROLES:
        raise bad_value(
            f"{param}.role", f"must be one of {', '.join(_ROLES)}, not {role[:MAX_ECHO]!r}"
        )
    message: dict[str, Any] = {
        "role": role,
        "content": parse_content(value.get("content"), role, f"{param}.content", images),
    }
    if value.get("name") is not None:
        message["name"] = _name(value["name"], f"{param}.name")
    if role == "assistant":
        _add_assistant_fields(message, value, param)
    elif role == "tool":
        if not isinstance(value.get("tool_call_id"), str):
            raise wrong_type(f"{param}.tool_call_id", "a string", value.get("tool_call_id"))
        message["tool_call_id"] = value["tool_call_id"]
    return message


def parse_content(
    content: Any, role: str, param: str, images: list[ImageSource] | None = None
) -> str | list[dict[str, str]] | None:
    """Check a message's content, which `param` names in errors; see `parse_messages`."""
    if isinstance(content, str):
        return content
    if content is None and role == "assistant":
        return None
    if content is None and role == "function":
        return ""
    if not isinstance(content, list):
        raise wrong_type(param, "a string or an array of content parts", content)
    if not content:
        raise bad_value(param, "must not be empty")
    places = [(f"{param}[{index}]", part) for index, part in enumerate(content)]
    if images is None or role != "user" or not any(_is_image(part) for part in content):
        return "\n".join(_part(part, role, place) for place, part in places)
    parts: list[dict[str, str]] = []
    for place, part in places:
        if _is_image(part):
            images.append(ImageSource(_image_url(part, place), place))
            parts.append({"type": "image"})
        else:
            parts.append({"type": "text", "text": _part(part, role, place)})
    return parts


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image_url"


def _image_url(part: dict[str, Any], param: str) -> str:
    """The address of an image; whatever else the client says of it changes nothing."""
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise wrong_type(f"{param}.image_url.url", "a string", url)
    return url


def _part(part: Any, role: str, param: str) -> str:
    """The text of one content part."""
    if not isinstance(part, dict):
        raise wrong_type(param, "an object", part)
    part_type = part.get("type")
    if not isinstance(part_type, str):
        raise wrong_type(f"{param}.type", "a string", part_type)
    if part_type in _MEDIA_PARTS:
        raise UnsupportedParameter(
            f"{param}: {_MEDIA_PARTS[part_type]} are not supported by this model, which reads text "
            "only",
            param=param,
        )
    if part_type != "text" and not (part_type == "refusal" and role == "assistant"):
        raise bad_value(f"{param}.type", f"must be 'text', not {part_type[:MAX_ECHO]!r}")
    text = part.get(part_type)
    if not isinstance(text, str):
        raise wrong_type(f"{param}.{part_type}", "a string", text)
    return text


def _add_assistant_fields(message: dict[str, Any], value: dict[str, Any], param: str) -> None:
    if value.get("audio") is not None:
        raise UnsupportedParameter(
            f"{param}.audio: audio is not supported by this model, which reads text only",
            param=f"{param}.audio",
        )
    refusal = value.get("refusal")
    if refusal is not None and not isinstance(refusal, str):
        raise wrong_type(f"{param}.refusal", "a string", refusal)
    if message["content"] is None and refusal:
        message["content"] = refusal
    reasoning = _reasoning(value, param)
    if reasoning is not None:
        message["reasoning_content"] = reasoning
    if value.get("tool_calls"):
        message["tool_calls"] = _tool_calls(value["tool_calls"], f"{param}.tool_calls")
    if value.get("function_call") is not None:
        message["function_call"] = _function(value["function_call"], f"{param}.function_call")
    if message["content"] is None and not message.keys() & {"tool_calls", "function_call"}:
        raise InvalidRequest(
            f"{param}.content must be a string or an array of content parts, not null, "
            "when the message calls no tool",
            param=f"{param}.content",
            code="invalid_type",
        )


def _reasoning(value: dict[str, Any], param: str) -> str | None:
    """What the assistant thought, under whichever of its names."""
    details = _reasoning_text(value.get("reasoning_details") or [], f"{param}.reasoning_details")
    said = None
    for field in ("reasoning", "reasoning_content"):
        text = value.get(field)
        if text is not None and not isinstance(text, str):
            raise wrong_type(f"{param}.{field}", "a string", text)
        said = text or said
    return said or details or None


def _reasoning_text(details: Any, param: str) -> str:
    """What `reasoning_details` say in words; encrypted items are another provider's."""
    if not isinstance(details, list):
        raise wrong_type(param, "an array", details)
    texts = []
    for index, item in enumerate(details):
        if not isinstance(item, dict):
            raise wrong_type(f"{param}[{index}]", "an object", item)
        text = item.get("text") or item.get("summary") or ""
        if not isinstance(text, str):
            raise wrong_type(f"{param}[{index}].text", "a string", text)
        texts.append(text)
    return "".join(texts)


def _modernise(messages: list[dict[str, Any]]) -> None:
    """Turn functions into tools: each call gets an id, which the next result then has."""
    call_id = ""
    for index, message in enumerate(messages):
        if "function_call" in message:
            call_id = f"call_{index}"
            function = message.pop("function_call")
            call = {"id": call_id, "type": "function", "function": function}
            message.setdefault("tool_calls", []).append(call)
        elif message["role"] == "function":
            message |= {"role": "tool", "tool_call_id": call_id}


def _tool_calls(calls: Any, param: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise wrong_type(param, "an array", calls)
    checked = []
    for index, call in enumerate(calls):
        place = f"{param}[{index}]"
        if not isinstance(call, dict):
            raise wrong_type(place, "an object", call)
        if not isinstance(call.get("id"), str):
            raise wrong_type(f"{place}.id", "a string", call.get("id"))
        if call.get("type", "function") != "function":
            raise bad_value(f"{place}.type", "must be 'function'")
        function = _function(call.get("function"), f"{place}.function")
        checked.append({"id": call["id"], "type": "function", "function": function})
    return checked


def _function(function: Any, param: str) -> dict[str, str]:
    if not isinstance(function, dict):
        raise wrong_type(param, "an object", function)
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        raise wrong_type(f"{param}.arguments", "a string", arguments)
    name = _name(function.get("name"), f"{param}.name")
    return {"name": name, "arguments": arguments or "{}"}


def _name(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise wrong_type(param, "a string", value)
    if not 1 <= len(value) <= MAX_NAME or not value.isprintable():
        raise bad_value(param, f"must have 1 to {MAX_NAME} printable characters")
    return value
