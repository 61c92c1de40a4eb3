"""Properties: no input raises anything but a refusal, and no text is changed on its way."""

from typing import Any, Literal

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.dialects.json_body import parse_json_object
from provider_core.dialects.openai import (
    ChatStreamEncoder,
    CompletionStreamEncoder,
    StreamEncoder,
    encode_error,
    parse_chat,
    parse_completion,
)
from provider_core.dialects.openai.protocol import ChatCompletionRequest, CompletionRequest
from provider_core.dialects.openai.responses_api import parse_response
from provider_core.dialects.openai.responses_api.protocol import ResponseRequest
from provider_core.dialects.openai.unsupported import UNSUPPORTED_FIELDS
from provider_core.dialects.sampling import to_sampling_params
from provider_core.errors import InvalidRequest
from provider_core.text.events import Finished, TextDelta
from provider_core.types import Usage
from tests.sse_checker import check_error_object, check_stream
from tests.unit.dialects.request_bodies import LIMITS, MESSAGES

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.sampled_from(["text", "type", "role", "content", "user", "assistant", "tool", "function"])
    | st.sampled_from(["json_schema", "function_call", "function_call_output", "reasoning", "f"])
)
WORDS = st.sampled_from(
    [
        *(
            "role",
            "content",
            "type",
            "text",
            "name",
            "tool_calls",
            "function",
            "include_usage",
            "7",
        ),
        *("parameters", "schema", "json_schema", "regex", "effort", "max_tokens", "arguments"),
        *("call_id", "output", "summary", "format", "mode", "tools", "allowed_tools"),
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | WORDS, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    sorted(
        {
            *ChatCompletionRequest.model_fields,
            *CompletionRequest.model_fields,
            *ResponseRequest.model_fields,
            *UNSUPPORTED_FIELDS,
        }
    )
)


def serve(body: bytes) -> None:
    """All that the dialect does with a request before anything runs."""
    for parse in (parse_chat, parse_completion, parse_response):
        try:
            parsed: Any = parse(parse_json_object(body), LIMITS)
            sampling = to_sampling_params(
                parsed.sampling,
                num_prompt_tokens=5,
                max_model_len=64,
                max_output_tokens=None,
                vocab_size=100,
            )
        except InvalidRequest as error:
            status, _, reply = encode_error(error, "r")
            assert status == 400
            check_error_object(orjson.loads(reply)["error"])
        else:
            assert 1 <= sampling.max_tokens <= 59


@given(st.dictionaries(FIELDS | TEXT, VALUES, max_size=4))
@settings(max_examples=400, deadline=None)
def test_any_value_in_any_field_is_served_or_refused(fields: dict[str, Any]) -> None:
    """BUG-10: nothing a client sends is our error."""
    serve(orjson.dumps({"model": "m", "messages": MESSAGES, "prompt": "x", "input": "x", **fields}))


@given(st.lists(st.dictionaries(WORDS, VALUES, max_size=4), max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_messages_are_served_or_refused(messages: list[Any]) -> None:
    """P18: whatever stands where a message should."""
    body = {"model": "m", "messages": messages, "prompt": messages, "input": messages}
    serve(orjson.dumps(body))


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_served_or_refused(body: bytes) -> None:
    """J1, J2: no body raises anything else."""
    serve(body)


@given(texts=st.lists(TEXT, max_size=8), include_usage=st.booleans())
@settings(deadline=None)
def test_text_arrives_as_it_was(texts: list[str], *, include_usage: bool) -> None:
    """Any Unicode text round-trips through either stream, on whole lines."""
    kinds: list[tuple[Literal["chat", "completion"], type[StreamEncoder]]] = [
        ("chat", ChatStreamEncoder),
        ("completion", CompletionStreamEncoder),
    ]
    for kind, encoder_type in kinds:
        encoder = encoder_type(
            generation_id="g", created=1, model="m", fingerprint="f", include_usage=include_usage
        )
        events = [TextDelta(0, text) for text in texts]
        body = encoder.first(0) + b"".join(map(encoder.encode, events))
        body += encoder.encode(Finished(0, "length", "length")) + encoder.end(Usage())
        checked = check_stream(body, kind=kind, include_usage=include_usage)
        assert checked.texts[0] == "".join(texts)
