"""Known fields that ask for what is not served: refused by name, unless their value asks nothing.

A client library often sends every field it knows with the value that changes nothing. Such a
request is fine. One whose answer would silently lack what was asked for is not.
"""

from collections.abc import Callable, Mapping
from typing import Any

from provider_core.dialects.openai.reasoning import thinking_switch
from provider_core.errors import UnsupportedParameter

_IsNeutral = Callable[[Any], bool]  # of any JSON value


def _one_of(*neutral: str) -> _IsNeutral:
    return lambda value: isinstance(value, str) and value in neutral


def _is_false(value: Any) -> bool:
    return value is False


def _is_true(value: Any) -> bool:
    return value is True


def _never(_value: Any) -> bool:
    return False


def _is_empty(value: Any) -> bool:
    return value in ([], {}, "")


def _is_text_format(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "text"


def _asks_no_reasoning(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("effort") in (None, "none")
        and value.get("max_tokens") is None
        and value.get("enabled") in (None, False)
    )


def _only_switches_thinking(value: Any) -> bool:
    return value == {} or thinking_switch(value) is not None


def _is_text_modality(value: Any) -> bool:
    return value in (["text"], [])


_CHAT = "is not supported for text completions; use chat completions"
_MEDIA = "is not supported by this model, which reads and writes text only"
_SERVER = "is not supported by this server"

UNSUPPORTED_FIELDS: Mapping[str, tuple[_IsNeutral, str]] = {
    "verbosity": (_one_of("medium"), "is not supported by this model"),
    "modalities": (_is_text_modality, _MEDIA),
    "audio": (_is_empty, _MEDIA),
    "web_search_options": (_never, "is not supported by this server, which has no search"),
    "moderation": (_is_empty, _SERVER),
    "store": (_is_false, "is not supported by this server, which stores no content"),
    "suffix": (_is_empty, "is not supported by this model, which cannot insert"),
    "prompt_embeds": (_is_empty, _SERVER),
    "inputs_embeds": (_is_empty, _SERVER),
    "chat_template": (_is_empty, _SERVER),
    "chat_template_kwargs": (_only_switches_thinking, _SERVER),
    "custom_logit_processor": (_is_empty, _SERVER),
    "logits_processors": (_is_empty, _SERVER),
    "bad_words": (_is_empty, _SERVER),
    "allowed_token_ids": (_is_empty, _SERVER),
    "guided_decoding_backend": (_is_empty, _SERVER),
    "guided_whitespace_pattern": (_is_empty, _SERVER),
    "use_beam_search": (_is_false, _SERVER),
    "include_stop_str_in_output": (_is_false, _SERVER),
    "skip_special_tokens": (_is_true, _SERVER),
    "prompt_logprobs": (_never, "is not supported by this server; use echo with logprobs"),
    "truncate_prompt_tokens": (_never, _SERVER),
}
"""What asks nothing, and why everything else is refused."""

CHAT_ONLY_FIELDS: Mapping[str, tuple[_IsNeutral, str]] = {
    "tools": (_is_empty, _CHAT),
    "tool_choice": (_one_of("none", "auto"), _CHAT),
    "functions": (_is_empty, _CHAT),
    "function_call": (_one_of("none", "auto"), _CHAT),
    "response_format": (_is_text_format, _CHAT),
    "structured_outputs": (_is_empty, _CHAT),
    "guided_json": (_is_empty, _CHAT),
    "guided_regex": (_is_empty, _CHAT),
    "guided_choice": (_is_empty, _CHAT),
    "guided_grammar": (_is_empty, _CHAT),
    "reasoning": (_asks_no_reasoning, _CHAT),
    "reasoning_effort": (_one_of("none"), _CHAT),
}
"""The same for what chats have and text completions have not."""


def refuse_unsupported(body: Mapping[str, Any], *, is_chat: bool) -> None:
    """Check the body of a chat or of a text completion.

    Raises:
        UnsupportedParameter: A field asks for what is not served; `param` names it.
    """
    for name, value in body.items():
        refused = UNSUPPORTED_FIELDS.get(name)
        if refused is None and not is_chat:
            refused = CHAT_ONLY_FIELDS.get(name)
        if value is None or refused is None:
            continue
        is_neutral, reason = refused
        if not is_neutral(value):
            raise UnsupportedParameter(f"{name} {reason}", param=name)
