"""Chat templates of model folders: OpenAI's messages in, prompt text out.

What a template can and cannot do with a conversation is found by probing it once at load: does it
show a developer's message, a system message anywhere, any system message, content given as parts?
`render` then gives it messages in the form that it handles, so that no instruction is dropped.

Control tokens that a client typed stay plain text: they are replaced by digits nobody can guess
before the template runs, and the prompt is cut there afterwards (see `client_text`).
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from provider_core.errors import ConfigurationError, InvalidRequest, UnsupportedParameter
from provider_core.interfaces import RenderedPrompt
from provider_core.text.client_text import ClientText, ControlTokens, unguessable_digits
from provider_core.text.template_sandbox import (
    BoundedEnvironment,
    RenderLimitExceeded,
    TemplateRaised,
)
from provider_core.text.tokenizer import (
    read_json_object,
    read_special_tokens,
    special_token_text,
)

_Message = dict[str, Any]  # JSON

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_SYSTEM_ROLES = frozenset({"system", "developer"})
_BASE_CHARS = 2**22  # what any rendering may make, whatever its messages
_CHARS_PER_INPUT_CHAR = 8  # and on top for each character that came in


def load_chat_template(model_dir: Path, *, timeout_s: float = 1.0) -> "FolderChatTemplate | None":
    """Read the chat template of a model folder; `None` if it has none.

    The first of chat_template.jinja, chat_template.json and tokenizer_config.json that has one.

    Args:
        model_dir: The folder.
        timeout_s: Longest rendering.

    Raises:
        ConfigurationError: The template is broken, or takes too long or too much.
    """
    config = read_json_object(model_dir / "tokenizer_config.json")
    sources = _read_sources(model_dir, config)
    if not sources:
        return None
    variables = {
        name: text
        for name in config
        if name.endswith("_token") and (text := special_token_text(config[name])) is not None
    }
    return FolderChatTemplate(
        sources,
        variables=variables,
        control_tokens=read_special_tokens(model_dir),
        timeout_s=timeout_s,
    )


def _read_sources(model_dir: Path, config: Mapping[str, Any]) -> dict[str, str]:
    path = model_dir / "chat_template.jinja"
    if path.exists():
        return {"default": path.read_text(encoding="utf-8")}
    field = (read_json_object(model_dir / "chat_template.json") or config).get("chat_template")
    if field is None:
        return {}
    if isinstance(field, str):
        return {"default": field}
    try:
        sources = {entry["name"]: entry["template"] for entry in field}
    except (TypeError, KeyError) as error:
        raise ConfigurationError(f"chat_template in {model_dir} is not a template") from error
    if "default" not in sources:
        raise ConfigurationError(f"chat_template in {model_dir} has no template named default")
    return sources


class FolderChatTemplate:
    """`interfaces.ChatTemplate` on Jinja sources. Thread-safe.

    Args:
        sources: By name; `default`, and `tool_use` if conversations with tools have their own.
        variables: What the sources may name beside messages and tools: `bos_token` and the like.
        control_tokens: Spellings that only the template may write.
        timeout_s: Longest rendering.

    Raises:
        ConfigurationError: A source is broken, or renders even a greeting too long or too large.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        *,
        variables: Mapping[str, str] | None = None,
        control_tokens: Sequence[str] = (),
        timeout_s: float = 1.0,
    ) -> None:
        self._environment = BoundedEnvironment()
        self._templates = {name: self._environment.load(text) for name, text in sources.items()}
        self._source = "\n".join(sources.values())
        self._variables = dict(variables or {})
        self._control_tokens = ControlTokens(control_tokens)
        self._timeout_s = timeout_s
        # A template that prints whatever role it gets does not know what a developer is.
        self._has_developer = any("developer" in text for text in sources.values()) and self._shows(
            {"role": "developer"}, {"role": "user"}
        )
        self._has_system_anywhere = self._shows(
            {"role": "system"}, {"role": "user"}, {"role": "system"}, {"role": "user"}
        )
        self._has_system = self._shows({"role": "system"}, {"role": "user"})
        self._has_system_alone = self._shows({"role": "system"})
        self._has_tools_in_system = "message['tools']" in self._source
        self._has_short_ids = "length != 9" in self._source or "length 9" in self._source
        self._has_text_arguments = self._shows_call("{}") and not self._shows_call({})
        self._has_parts = self._shows({"role": "user"}, as_parts=True)

    @property
    def source(self) -> str:
        """The text of all its sources."""
        return self._source

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],  # OpenAI's message objects, JSON values
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> RenderedPrompt:
        """Render a conversation; see `interfaces.ChatTemplate`.

        Raises:
            InvalidRequest: The template refuses these messages, or took too long or too much.
            UnsupportedParameter: A content part is not text.
        """
        if continue_final_message and messages[-1].get("role") != "assistant":
            raise InvalidRequest("only an assistant's message can be continued", param="messages")
        client = ClientText(self._control_tokens)
        masked = [client.mask_message(message) for message in self._adapt(messages)]
        masked_tools = client.mask(tools) if tools else None
        if masked_tools and self._has_tools_in_system:
            masked = _with_tools(masked, masked_tools)
        mark = unguessable_digits() if continue_final_message else ""
        if mark:
            masked[-1] = _append(masked[-1], mark)
        text = self._render(
            masked,
            masked_tools,
            num_chars=client.num_chars,
            ends_open=not mark,
            variables=variables,
        )
        if mark:
            text, found, _ = text.rpartition(mark)
            if not found:
                message = "this model's chat template cannot continue an assistant's message"
                raise InvalidRequest(message, param="messages")
        return RenderedPrompt(client.split(text))

    def _adapt(self, messages: Sequence[Mapping[str, Any]]) -> list[_Message]:
        """Bring messages into the form that this template handles."""
        adapted = [self._adapt_message(message) for message in messages]
        places = [i for i, message in enumerate(adapted) if message["role"] == "system"]
        is_alone = len(places) == len(adapted)
        has_system = self._has_system_alone if is_alone else self._has_system
        if not places or (has_system and (places == [0] or self._has_system_anywhere)):
            return adapted
        instructions = "\n\n".join(
            _text_of_content(message["content"])
            for message in adapted
            if message["role"] == "system"
        )
        others = [message for message in adapted if message["role"] != "system"]
        if has_system:
            return [{"role": "system", "content": instructions}, *others]
        for i, message in enumerate(others):
            if message["role"] == "user":
                content = _prepend(f"{instructions}\n\n", message["content"])
                others[i] = message | {"content": content}
                return others
        return [{"role": "user", "content": instructions}, *others]

    def _adapt_message(self, message: Mapping[str, Any]) -> _Message:
        adapted = dict(message)
        role = adapted.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise InvalidRequest(f"role {role!r} is not one of {sorted(_ROLES)}", param="messages")
        if role == "developer" and not self._has_developer:
            adapted["role"] = "system"
        content = adapted.get("content")
        if _has_image(content):
            if not self._has_parts:
                raise UnsupportedParameter(
                    "this model's chat template shows no images", param="messages"
                )
        elif not (self._has_parts and isinstance(content, list)):
            adapted["content"] = _text_of_content(content)
        else:
            _text_of_content(content)  # to refuse what is not text
        if calls := adapted.get("tool_calls"):
            as_text = self._has_text_arguments
            adapted["tool_calls"] = [_decode_arguments(call, as_text=as_text) for call in calls]
        else:
            adapted.pop("tool_calls", None)  # absent, never null: templates ask whether it is there
        if self._has_short_ids:
            _shorten_ids(adapted)
        return adapted

    def _render(
        self,
        messages: Sequence[_Message],
        tools: object,
        *,
        num_chars: int,
        ends_open: bool,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        name = "tool_use" if tools and "tool_use" in self._templates else "default"
        known = (
            dict(variables or {})
            | self._variables
            | {
                "messages": messages,
                "tools": tools,
                "add_generation_prompt": ends_open,
            }
        )
        try:
            return self._environment.render_bounded(
                self._templates[name],
                known,
                timeout_s=self._timeout_s,
                max_chars=_BASE_CHARS + _CHARS_PER_INPUT_CHAR * num_chars,
            )
        except (RenderLimitExceeded, MemoryError) as error:
            message = "rendering this model's chat template took too long or too much"
            raise InvalidRequest(message, param="messages") from error
        except TemplateRaised as error:
            message = "this model's chat template refuses these messages"
            raise InvalidRequest(message, param="messages") from error
        except Exception as error:  # the template is foreign code, and these messages broke it
            message = "this model's chat template cannot render these messages"
            raise InvalidRequest(message, param="messages") from error

    def _shows_call(self, arguments: str | dict[str, Any]) -> bool:
        """Whether the template takes the arguments of a call in this form."""
        mark = unguessable_digits()
        function = {"name": mark, "arguments": arguments}
        call = {"id": mark[:9], "type": "function", "function": function}
        turn = {"role": "assistant", "content": "", "tool_calls": [call]}
        try:
            text = self._render(
                [{"role": "user", "content": ""}, turn], None, num_chars=0, ends_open=True
            )
        except InvalidRequest:
            return False
        return mark in text

    def _shows(self, *messages: Mapping[str, str], as_parts: bool = False) -> bool:
        """Whether the template shows each of these roles' content, in order.

        Raises:
            ConfigurationError: It took too long or too much for that.
        """
        marks = [unguessable_digits() for _ in messages]
        conversation: list[_Message] = [
            {**message, "content": [{"type": "text", "text": mark}] if as_parts else mark}
            for message, mark in zip(messages, marks, strict=True)
        ]
        try:
            text = self._render(conversation, None, num_chars=0, ends_open=True)
        except InvalidRequest as error:
            if isinstance(error.__cause__, RenderLimitExceeded | MemoryError | RecursionError):
                message = "the chat template takes too long or too much for a greeting"
                raise ConfigurationError(message) from error
            return False
        places = [text.find(mark) for mark in marks]
        return -1 not in places and places == sorted(places) and "'type'" not in text


def _text_of_content(content: object) -> str:
    """Content as a string: parts are lines.

    Raises:
        UnsupportedParameter: A part is not text.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest("content is neither a string nor a list of parts", param="messages")
    texts = []
    for part in content:
        text = part.get("text", part.get("refusal")) if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise UnsupportedParameter("this model takes parts of text only", param="messages")
        texts.append(text)
    return "\n".join(texts)


def _has_image(content: object) -> bool:
    return isinstance(content, list) and {"type": "image"} in content


def _prepend(text: str, content: object) -> object:
    if isinstance(content, list) and _has_image(content):
        return [{"type": "text", "text": text}, *content]
    return text + _text_of_content(content)


def _append(message: _Message, text: str) -> _Message:
    content = message["content"]
    if isinstance(content, list):
        return message | {"content": [*content, {"type": "text", "text": text}]}
    return message | {"content": content + text}


def _with_tools(messages: Sequence[_Message], tools: Sequence[Mapping[str, Any]]) -> list[_Message]:
    """Put tools where Phi's template looks for them: into the system's message, as text."""
    first, *others = messages
    if first["role"] != "system":
        first, others = {"role": "system", "content": ""}, [*messages]
    shown = json.dumps([tool.get("function", tool) for tool in tools], ensure_ascii=False)
    return [first | {"tools": shown}, *others]


def _shorten_ids(message: _Message) -> None:
    """Bring the ids of calls to nine letters or digits, on which Mistral's templates insist."""
    for call in message.get("tool_calls", ()):
        call["id"] = _short_id(call.get("id"))
    if "tool_call_id" in message:
        message["tool_call_id"] = _short_id(message["tool_call_id"])


def _short_id(call_id: object) -> str:
    return sha256(str(call_id).encode()).hexdigest()[:9]


def _decode_arguments(call: object, *, as_text: bool) -> _Message:
    """OpenAI's calls carry arguments as JSON text; most templates iterate over an object.

    Text that is no JSON stays as it is: a model wrote it, and the client sent it back.

    Raises:
        InvalidRequest: It is no call of a function.
    """
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        raise InvalidRequest("tool_calls holds what is no call of a function", param="messages")
    arguments = function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        arguments = "{}"
    if isinstance(arguments, str):
        with suppress(ValueError, RecursionError):
            arguments = json.loads(arguments)
    if arguments is None:  # the text was `null`
        arguments = {}
    if as_text and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}
