"""Chat messages: roles, content shapes, and the chat's own fields."""

from typing import Any

import pytest

from provider_core.dialects.openai import parse_chat
from provider_core.dialects.openai.messages import MAX_PARTS, parse_messages
from provider_core.errors import InvalidRequest, UnsupportedParameter
from provider_core.settings import LimitSettings
from tests.unit.dialects.request_bodies import LIMITS, chat, refused_chat

USER = {"role": "user", "content": "hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


def parsed(*messages: Any) -> list[dict[str, Any]]:
    """What a chat of these messages makes of them."""
    return chat(messages=list(messages)).messages


def refused(*messages: Any) -> InvalidRequest:
    """The refusal of a chat of these messages."""
    return refused_chat(messages=list(messages))


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_every_role_takes_text(role: str) -> None:
    """A string is the usual content."""
    message = {"role": role, "content": "hi", "name": "ann"}
    assert parsed(message, USER)[0] == message


def test_text_parts_become_one_string() -> None:
    """Templates read strings; parts are joined by newlines, whatever hints they carry."""
    parts = [
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "b"},
    ]
    assert parsed({"role": "user", "content": parts}) == [{"role": "user", "content": "a\nb"}]


def test_unknown_keys_never_reach_a_template() -> None:
    """What is not read is dropped."""
    assert parsed({**USER, "__class__": 1, "weight": 0, "name": None}) == [USER]


def test_tool_history_is_passed_on() -> None:
    """Calls keep their arguments as strings; missing and empty ones are an empty object."""
    empty = {"id": "call_2", "function": {"name": "g", "arguments": ""}}
    history = parsed(
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL, empty]},
        {"role": "tool", "content": "1", "tool_call_id": "call_1"},
    )
    assert history[1]["content"] is None
    assert history[1]["tool_calls"][0] == CALL
    assert history[1]["tool_calls"][1]["function"] == {"name": "g", "arguments": "{}"}
    assert history[2] == {"role": "tool", "content": "1", "tool_call_id": "call_1"}


def test_reasoning_in_history_has_one_name() -> None:
    """`reasoning` and `reasoning_content` are the same."""
    for field in ("reasoning", "reasoning_content"):
        message = {"role": "assistant", "content": "x", field: "because"}
        assert parsed(message, USER)[0]["reasoning_content"] == "because"


def test_refusals_are_text() -> None:
    """A refusal in the history is what the assistant said."""
    part = {"type": "refusal", "refusal": "no"}
    assert parsed({"role": "assistant", "content": [part]}, USER)[0]["content"] == "no"
    refusal = {"role": "assistant", "content": None, "refusal": "no"}
    assert parsed(refusal, USER)[0]["content"] == "no"


def test_p18_the_list_has_limits() -> None:
    """P18: none, too many, no list; too many parts; the limits themselves are allowed."""
    assert refused().param == "messages"
    assert refused_chat(messages=None).param == "messages"
    assert refused_chat(messages="hi").param == "messages"
    assert refused_chat(messages={}).param == "messages"
    assert len(parsed(*[USER] * LIMITS.max_messages)) == LIMITS.max_messages
    assert refused(*[USER] * (LIMITS.max_messages + 1)).param == "messages"
    part = {"type": "text", "text": "x"}
    assert parsed({"role": "user", "content": [part] * MAX_PARTS})
    assert refused({"role": "user", "content": [part] * (MAX_PARTS + 1)}).param == "messages"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("hi", "messages[1]"),
        (None, "messages[1]"),
        ([], "messages[1]"),
        ({"content": "x"}, "messages[1].role"),
        ({"role": None, "content": "x"}, "messages[1].role"),
        ({"role": "robot", "content": "x"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": None}, "messages[1].content"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": {}}, "messages[1].content"),
        ({"role": "user", "content": []}, "messages[1].content"),
        ({"role": "user", "content": ["x"]}, "messages[1].content[0]"),
        ({"role": "user", "content": [{}]}, "messages[1].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"type": "poem"}]}, "messages[1].content[0].type"),
        (
            {"role": "user", "content": [{"type": "refusal", "refusal": "x"}]},
            "messages[1].content[0].type",
        ),
        ({"role": "user", "content": "x", "name": 5}, "messages[1].name"),
        ({"role": "user", "content": "x", "name": "a\0b"}, "messages[1].name"),
        ({"role": "user", "content": "x", "name": "n" * 65}, "messages[1].name"),
        ({"role": "assistant", "content": None}, "messages[1].content"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "messages[1].content"),
        ({"role": "assistant", "content": "x", "refusal": 5}, "messages[1].refusal"),
        ({"role": "assistant", "content": "x", "reasoning": 5}, "messages[1].reasoning"),
        ({"role": "assistant", "content": "x", "tool_calls": "f"}, "messages[1].tool_calls"),
        ({"role": "assistant", "tool_calls": [5]}, "messages[1].tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[1].tool_calls[0].id"),
        (
            {"role": "assistant", "tool_calls": [{"id": "x", "type": "custom"}]},
            "messages[1].tool_calls[0].type",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "x"}]},
            "messages[1].tool_calls[0].function",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": ""}}]},
            "messages[1].tool_calls[0].function.name",
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": {}}}],
            },
            "messages[1].tool_calls[0].function.arguments",
        ),
        ({"role": "assistant", "function_call": "f"}, "messages[1].function_call"),
        ({"role": "tool", "content": "x"}, "messages[1].tool_call_id"),
        ({"role": "tool", "content": None, "tool_call_id": "x"}, "messages[1].content"),
    ],
)
def test_p18_what_is_wrong_is_named(message: Any, param: str) -> None:
    """P18, J10: roles, content, parts and names of the wrong shape, by place."""
    error = refused(USER, message)
    assert (error.status, error.param) == (400, param)
    assert param in error.message


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_image", "image_url": "http://169.254.169.254/"},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "x"}},
        {"type": "video_url", "video_url": {"url": "x"}},
    ],
)
def test_media_are_refused_by_place(part: dict[str, Any]) -> None:
    """A text model reads no images, audio, video or files; nothing is fetched."""
    error = refused({"role": "user", "content": [{"type": "text", "text": "look"}, part]})
    assert isinstance(error, UnsupportedParameter)
    assert error.param == "messages[0].content[1]"
    audio = refused(USER, {"role": "assistant", "audio": {"id": "x"}})
    assert isinstance(audio, UnsupportedParameter)


def test_v13_images_of_users_stay_where_they_are() -> None:
    """Which model reads them is not known yet; what the client says of their detail is nothing."""
    look = {"type": "text", "text": "look"}
    images = [{"url": "https://example.com/a", "detail": "low"}, {"url": "data:x", "fps": 9}]
    parts = [{"type": "image_url", "image_url": image} for image in images]
    parsed = chat(messages=[USER, {"role": "user", "content": [parts[0], look, parts[1]]}])
    image = {"type": "image"}
    assert parsed.messages[1]["content"] == [image, look, image]
    assert [(each.url, each.param) for each in parsed.images] == [
        ("https://example.com/a", "messages[1].content[0]"),
        ("data:x", "messages[1].content[2]"),
    ]


@pytest.mark.parametrize("role", ["system", "assistant", "developer"])
def test_only_users_show_images(role: str) -> None:
    """Other roles' are refused at their place."""
    part = {"type": "image_url", "image_url": {"url": "data:x"}}
    error = refused({"role": role, "content": [part]}, USER)
    assert isinstance(error, UnsupportedParameter)
    assert error.param == "messages[0].content[0]"


def test_an_image_needs_an_address() -> None:
    """As a string."""
    part = {"type": "image_url", "image_url": {"detail": "low"}}
    error = refused({"role": "user", "content": [part]})
    assert error.param == "messages[0].content[0].image_url.url"


def test_a_trailing_assistant_message_is_continued() -> None:
    """A prefill with text is continued; calls and nothing are answered."""
    prefill = {"role": "assistant", "content": "Once"}
    assert chat(messages=[USER, prefill]).continue_final_message
    assert not chat(messages=[USER]).continue_final_message
    assert not chat(messages=[prefill, USER]).continue_final_message
    calls = {"role": "assistant", "content": "x", "tool_calls": [CALL]}
    assert not chat(messages=[USER, calls]).continue_final_message
    empty = chat(messages=[USER, {"role": "assistant", "content": ""}])
    assert (empty.messages, empty.continue_final_message) == ([USER], False)


def test_a_trailing_message_that_says_nothing_asks_for_an_answer() -> None:
    """Also behind another one of the assistant, as in the other dialects: one rule for all."""
    prefill = {"role": "assistant", "content": "Once"}
    answered = chat(messages=[USER, prefill, {"role": "assistant", "content": ""}])
    assert answered.continue_final_message is False
    assert [message["content"] for message in answered.messages] == [USER["content"], "Once"]


def test_the_limit_of_messages_is_a_setting() -> None:
    """The operator decides how long a conversation may be."""
    with pytest.raises(InvalidRequest):
        parse_chat({"model": "m", "messages": [USER] * 3}, LimitSettings(max_messages=2))
    assert parse_messages([USER] * 2, max_messages=2)


def test_bug_15_the_newer_token_limit_wins_and_there_is_no_hidden_one() -> None:
    """BUG-15: max_tokens, max_completion_tokens, both, null, absent."""
    assert chat().sampling.max_tokens is None
    assert chat(max_tokens=None, max_completion_tokens=None).sampling.max_tokens is None
    assert chat(max_tokens=5).sampling.max_tokens == 5
    assert chat(max_completion_tokens=6).sampling.max_tokens == 6
    assert chat(max_tokens=5, max_completion_tokens=6).sampling.max_tokens == 6
    assert chat(max_tokens=5, max_completion_tokens=None).sampling.max_tokens == 5
    for value in (0, -1, "5", True, 5.0):
        assert refused_chat(max_completion_tokens=value).param == "max_completion_tokens"


def test_p8_top_logprobs_needs_logprobs() -> None:
    """P8: 0 to 20, and only with `logprobs: true`."""
    assert chat().sampling.logprobs is None
    assert chat(logprobs=False).sampling.logprobs is None
    assert chat(logprobs=True).sampling.logprobs == 0
    assert chat(logprobs=True, top_logprobs=20).sampling.logprobs == 20
    assert refused_chat(top_logprobs=1).param == "top_logprobs"
    assert refused_chat(logprobs=False, top_logprobs=1).param == "top_logprobs"
    for value in (21, 10**6, -1, True, "1"):
        assert refused_chat(logprobs=True, top_logprobs=value).param == "top_logprobs"
    for value in (1, 5, "true"):
        assert refused_chat(logprobs=value).param == "logprobs"


def test_a_function_call_becomes_a_call_of_a_tool() -> None:
    """Templates know tools only: each call gets an id, and the next result the same."""
    call = {"name": "f", "arguments": "{}"}
    first, second = ({"role": "assistant", "function_call": call} for _ in range(2))
    result = {"role": "function", "name": "f", "content": "1"}
    messages = parsed(USER, first, result, second, {**result, "content": None})
    assert [message["role"] for message in messages[1:]] == ["assistant", "tool"] * 2
    ids = [messages[index]["tool_calls"][0]["id"] for index in (1, 3)]
    assert [messages[index]["tool_call_id"] for index in (2, 4)] == ids
    assert ids[0] != ids[1]
    assert messages[1]["tool_calls"][0]["function"] == call
    assert [messages[2]["content"], messages[4]["content"]] == ["1", ""]


def test_bug_17_tool_history_keeps_ids_order_and_parts() -> None:
    """BUG-17: several turns of several calls, with empty, missing and broken arguments."""
    arguments = ["", None, "{", '{"a": 1}']
    calls = [
        {"id": f"c{i}", "type": "function", "function": {"name": "f", "arguments": argument}}
        for i, argument in enumerate(arguments)
    ]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    results = [
        {"role": "tool", "tool_call_id": f"c{i}", "content": parts if i == 1 else ""}
        for i in (1, 0, 3, 2)
    ]
    turn = [{"role": "assistant", "content": None, "tool_calls": calls}, *results]
    messages = parsed(USER, *turn, *turn, USER)
    assert [message.get("tool_call_id") for message in messages[1:6]] == [
        None,
        "c1",
        "c0",
        "c3",
        "c2",
    ]
    assert messages[1:6] == messages[6:11]
    assert messages[2]["content"] == "a\nb"
    given = [call["function"]["arguments"] for call in messages[1]["tool_calls"]]
    assert given == ["{}", "{}", "{", '{"a": 1}']


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning": "hm"},
        {"reasoning_content": "hm"},
        {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "h"}, {"summary": "m"}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}, {"text": "hm"}]},
    ],
)
def test_reasoning_comes_back_under_any_name(fields: dict[str, Any]) -> None:
    """What clients replay reaches the template under the name that templates know."""
    (message,) = parsed({"role": "assistant", "content": "x", **fields})[:1]
    assert message == {"role": "assistant", "content": "x", "reasoning_content": "hm"}


@pytest.mark.parametrize("details", ["hm", [5], [{"text": 5}]])
def test_malformed_reasoning_details_are_refused(details: Any) -> None:
    """A shape that nobody writes."""
    message = {"role": "assistant", "content": "x", "reasoning_details": details}
    error = refused(USER, message)
    assert error.param is not None
    assert error.param.startswith("messages[1].reasoning_details")
