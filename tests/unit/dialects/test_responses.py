"""Whole replies: shape, log probabilities, usage."""

from typing import Any

import orjson
import pytest

from provider_core.dialects.openai import (
    chat_completion,
    make_decode_token,
    text_completion,
    usage_object,
)
from provider_core.text.events import ChoiceResult
from provider_core.types import TokenLogprobs, Usage
from tests.sse_checker import check_usage

USAGE = Usage(prompt_tokens=5, cached_tokens=2, completion_tokens=3, reasoning_tokens=1)
EMOJI = "🤖".encode()
VOCABULARY = [b"a", "é".encode(), EMOJI[:2], EMOJI[2:], b"", b" b"]
decode_token = make_decode_token(VOCABULARY.__getitem__)


def reply(encode: Any, choices: list[ChoiceResult], **options: Any) -> dict[str, Any]:
    """A reply as a client parses it."""
    body = encode(
        choices,
        USAGE,
        generation_id="gen-1",
        created=7,
        model="a/b",
        fingerprint="fp",
        **options,
    )
    parsed: dict[str, Any] = orjson.loads(orjson.dumps(body))
    return parsed


def choice(index: int = 0, text: str = "hi", **fields: Any) -> ChoiceResult:
    """A choice that ended by itself."""
    return ChoiceResult(index, text, finish_reason="stop", native_finish_reason="eos", **fields)


def entries(*token_ids: int) -> list[TokenLogprobs]:
    """One entry per id, without alternatives."""
    return [TokenLogprobs(token_id, -0.5) for token_id in token_ids]


def test_a_whole_chat_completion() -> None:
    """Every key that clients insist on is there, null where null is meant."""
    assert reply(chat_completion, [choice()]) == {
        "id": "gen-1",
        "object": "chat.completion",
        "created": 7,
        "model": "a/b",
        "system_fingerprint": "fp",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    }


def test_a_whole_text_completion() -> None:
    """The object's name is the same as in streams; `text` is always a string."""
    body = reply(text_completion, [choice(), choice(1, "")])
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {"index": 0, "text": "hi", "logprobs": None, "finish_reason": "stop"},
        {"index": 1, "text": "", "logprobs": None, "finish_reason": "stop"},
    ]


def test_openrouter_gets_native_reasons_and_an_exact_cost() -> None:
    """`/api/v1` only, and every digit of the cost."""
    for encode in (chat_completion, text_completion):
        body = reply(encode, [choice()], openrouter=True, cost="0.0000001234")
        assert body["choices"][0]["native_finish_reason"] == "eos"
        assert body["usage"]["cost"] == 1.234e-07
        plain = reply(encode, [choice()], cost="0.1")
        assert "cost" not in plain["usage"]
        assert "native_finish_reason" not in plain["choices"][0]


def test_cost_is_a_number_without_rounding() -> None:
    """More digits than a double holds survive on the wire."""
    raw = orjson.dumps(usage_object(USAGE, cost="0.123456789012345678"))
    assert b'"cost":0.123456789012345678}' in raw


def test_usage_is_always_whole() -> None:
    """BUG-29, BUG-33: zeros are integers, never null, never missing."""
    check_usage(orjson.loads(orjson.dumps(usage_object(Usage()))))
    assert usage_object(Usage())["prompt_tokens_details"] == {"cached_tokens": 0}


def test_bug_09_bytes_are_exact_and_join_to_the_text() -> None:
    """BUG-09: half a character has its own bytes, never those of U+FFFD."""
    result = choice(text="aé🤖", logprobs=entries(0, 1, 2, 3, 4))
    body = reply(chat_completion, [result], decode_token=decode_token)
    content = body["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(token["bytes"]) for token in content).decode() == "aé🤖"
    assert content[2]["token"] == "bytes:\\xf0\\x9f"
    assert content[2]["bytes"] == [0xF0, 0x9F]
    assert b"\xef\xbf\xbd" not in orjson.dumps(body)
    assert body["choices"][0]["logprobs"]["refusal"] is None


def test_bug_09_alternatives_are_decoded_by_themselves() -> None:
    """BUG-09: an alternative's bytes do not depend on what was chosen before."""
    entry = TokenLogprobs(0, -0.1, ((0, -0.1), (2, -2.0), (3, -3.0)))
    body = reply(chat_completion, [choice(logprobs=[entry])], decode_token=decode_token)
    top = body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert [bytes(token["bytes"]) for token in top] == [b"a", EMOJI[:2], EMOJI[2:]]


def test_bug_18_one_entry_per_token() -> None:
    """BUG-18: hidden control tokens count, too."""
    body = reply(chat_completion, [choice(logprobs=entries(0, 4))], decode_token=decode_token)
    assert len(body["choices"][0]["logprobs"]["content"]) == 2


@pytest.mark.parametrize("logprob", [float("-inf"), float("nan"), -1e6])
def test_logprobs_are_numbers(logprob: float) -> None:
    """JSON has no infinity; OpenAI writes -9999."""
    entry = TokenLogprobs(0, logprob, ((0, logprob),))
    for encode in (chat_completion, text_completion):
        raw = orjson.dumps(reply(encode, [choice(logprobs=[entry])], decode_token=decode_token))
        assert raw.count(b"-9999.0") == 2


def test_legacy_logprobs() -> None:
    """Four lists of one length; offsets in characters; the chosen token among the likeliest."""
    logprobs = [
        TokenLogprobs(5, -0.5, ((0, -0.1), (1, -0.2))),
        *entries(2, 3, 1),
    ]
    result = choice(text=" b🤖é", logprobs=logprobs)
    body = reply(text_completion, [result], decode_token=decode_token)
    assert body["choices"][0]["logprobs"] == {
        "tokens": [" b", "bytes:\\xf0\\x9f", "bytes:\\xa4\\x96", "é"],
        "token_logprobs": [-0.5, -0.5, -0.5, -0.5],
        "top_logprobs": [
            {"a": -0.1, "é": -0.2, " b": -0.5},
            {"bytes:\\xf0\\x9f": -0.5},
            {"bytes:\\xa4\\x96": -0.5},
            {"é": -0.5},
        ],
        "text_offset": [0, 2, 3, 3],
    }


def test_echo_repeats_the_prompt_with_its_logprobs() -> None:
    """The prompt precedes the text; its first token has no log probability."""
    result = choice(
        text="é",
        prompt_logprobs=(TokenLogprobs(0, None), TokenLogprobs(5, -1.0)),
        logprobs=entries(1),
    )
    body = reply(text_completion, [result], decode_token=decode_token, echo=["a b"])
    assert body["choices"][0]["text"] == "a bé"
    logprobs = body["choices"][0]["logprobs"]
    assert logprobs["token_logprobs"] == [None, -1.0, -0.5]
    assert logprobs["top_logprobs"][0] is None
    assert logprobs["text_offset"] == [0, 1, 3]


def test_tokens_are_decoded_once() -> None:
    """A tokenizer is asked once per id, however often the id comes."""
    asked: list[int] = []

    def token_bytes(token_id: int) -> bytes:
        asked.append(token_id)
        return b"x"

    decode = make_decode_token(token_bytes)
    assert [decode(7), decode(7), decode(8)] == [("x", b"x")] * 3
    assert asked == [7, 8]
