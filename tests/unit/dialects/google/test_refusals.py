"""Bodies of Google's routes: what is refused, in which words."""

from typing import Any

import pytest

from provider_core.errors import InvalidRequest, UnsupportedParameter
from tests.unit.dialects.google.bodies import LOOK, SCHEMA, answer, call, model, parse, user

BAD: list[tuple[dict[str, Any], str]] = [
    ({"contents": None}, "contents"),
    ({"contents": []}, "contents"),
    ({"contents": 5}, "contents[0]"),
    ({"contents": ["hi"]}, "contents[0]"),
    ({"contents": [{"role": "system", "parts": [{"text": "a"}]}]}, "contents[0].role"),
    ({"contents": [{"role": 5}]}, "contents[0].role"),
    ({"contents": [user()]}, "contents[0].parts"),
    ({"contents": [user({"text": 5})]}, "contents[0].parts[0].text"),
    ({"contents": [user({})]}, "contents[0].parts[0]"),
    (
        {"contents": [user({"inlineData": {"mimeType": "image/png"}})]},
        "contents[0].parts[0].inlineData",
    ),
    (
        {"contents": [user({"fileData": {"mimeType": 5}})]},
        "contents[0].parts[0].fileData.mimeType",
    ),
    ({"contents": [user("hi")]}, "contents[0].parts[0]"),
    ({"contents": [model(call("two words"))]}, "contents[0].parts[0].functionCall.name"),
    (
        {"contents": [model({"functionCall": {"name": "a", "args": "{}"}})]},
        "contents[0].parts[0].functionCall.args",
    ),
    ({"contents": [user(answer("done"))]}, "contents[0].parts[0].functionResponse.response"),
    ({"contents": [user({"text": "a"})] * 3000}, "contents"),
    ({"contents": [user({"thoughtSignature": "c2ln"})]}, "contents[0].parts[0]"),
    ({"config": 5}, "generationConfig"),
    ({"config": {"temperature": 2.1}}, "generationConfig.temperature"),
    ({"config": {"topK": 1.5}}, "generationConfig.topK"),
    ({"config": {"topK": True}}, "generationConfig.topK"),
    ({"config": {"maxOutputTokens": 0}}, "generationConfig.maxOutputTokens"),
    ({"config": {"max_output_tokens": "9"}}, "generationConfig.maxOutputTokens"),
    ({"config": {"candidateCount": 0}}, "generationConfig.candidateCount"),
    ({"config": {"candidateCount": 9}}, "generationConfig.candidateCount"),
    ({"config": {"stopSequences": [""]}}, "generationConfig.stopSequences"),
    ({"config": {"logprobs": 3}}, "generationConfig.logprobs"),
    ({"config": {"logprobs": 21, "responseLogprobs": True}}, "generationConfig.logprobs"),
    ({"config": {"presencePenalty": 3}}, "generationConfig.presencePenalty"),
    ({"config": {"responseSchema": 5}}, "generationConfig.responseSchema"),
    ({"config": {"responseJsonSchema": True}}, "generationConfig.responseJsonSchema"),
    (
        {"config": {"responseSchema": SCHEMA, "responseJsonSchema": {}}},
        "generationConfig.responseSchema",
    ),
    (
        {"config": {"responseSchema": SCHEMA, "responseMimeType": "text/plain"}},
        "generationConfig.responseMimeType",
    ),
    ({"config": {"responseMimeType": "text/x.enum"}}, "generationConfig.responseSchema"),
    (
        {"config": {"thinkingConfig": {"thinkingBudget": -2}}},
        "generationConfig.thinkingConfig.thinkingBudget",
    ),
    (
        {"config": {"thinkingConfig": {"thinkingLevel": "ENORMOUS"}}},
        "generationConfig.thinkingConfig.thinkingLevel",
    ),
    (
        {"config": {"thinkingConfig": {"includeThoughts": "yes"}}},
        "generationConfig.thinkingConfig.includeThoughts",
    ),
    ({"systemInstruction": {"parts": [{"text": 5}]}}, "systemInstruction.parts[0].text"),
    ({"tools": [5]}, "tools[0]"),
    (
        {"tools": [{"functionDeclarations": [{"name": "a b"}]}]},
        "tools[0].functionDeclarations[0].name",
    ),
    (
        {"tools": [{"functionDeclarations": [LOOK | {"parametersJsonSchema": {}}]}]},
        "tools[0].functionDeclarations[0].parameters",
    ),
    (
        {"tools": [{"functionDeclarations": [{"name": "a", "parameters": {"type": "THING"}}]}]},
        "tools[0].functionDeclarations[0].parameters.type",
    ),
    ({"tools": [{"functionDeclarations": [LOOK, LOOK]}]}, "tools"),
    (
        {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
        "toolConfig.functionCallingConfig.mode",
    ),
    (
        {"toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}},
        "toolConfig.functionCallingConfig.mode",
    ),
    (
        {"toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["x"]}}},
        "toolConfig.functionCallingConfig.allowedFunctionNames",
    ),
]


@pytest.mark.parametrize(("fields", "param"), BAD, ids=lambda value: str(value)[:60])
def test_bug_10_a_bad_field_is_named_as_this_dialect_spells_it(
    fields: dict[str, Any], param: str
) -> None:
    """In `param` and in the message."""
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.param == param
    assert param in caught.value.message


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    (
        {"contents": [user({"text": "a"}, {"inlineData": {"mimeType": "audio/wav"}})]},
        "contents[0].parts[1].inlineData",
    ),
    ({"contents": [user({"file_data": {"file_uri": "x"}})]}, "contents[0].parts[0].fileData"),
    (
        {"contents": [model({"inlineData": {"mimeType": "image/png"}})]},
        "contents[0].parts[0].inlineData",
    ),
    ({"contents": [model({"executableCode": {}})]}, "contents[0].parts[0].executableCode"),
    ({"systemInstruction": {"parts": [{"inlineData": {}}]}}, "systemInstruction.parts[0]"),
    ({"tools": [{"googleSearch": {}}]}, "tools[0].googleSearch"),
    ({"cachedContent": "cachedContents/x"}, "cachedContent"),
    ({"config": {"speechConfig": {"a": 1}}}, "generationConfig.speechConfig"),
    ({"config": {"response_modalities": ["IMAGE"]}}, "generationConfig.responseModalities"),
    ({"config": {"responseMimeType": "audio/wav"}}, "generationConfig.responseMimeType"),
]


@pytest.mark.parametrize(("fields", "param"), UNSUPPORTED, ids=lambda value: str(value)[:60])
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """Rather than answered as if it had not been asked."""
    with pytest.raises(UnsupportedParameter) as caught:
        parse(**fields)
    assert caught.value.param == param
    assert param in caught.value.message
