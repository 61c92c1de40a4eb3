"""OpenAI's Responses API, without state: every request holds its whole conversation."""

from provider_core.dialects.openai.responses_api.output import Output
from provider_core.dialects.openai.responses_api.requests import ParsedResponse, parse_response
from provider_core.dialects.openai.responses_api.resource import ResponseHead
from provider_core.dialects.openai.responses_api.stream import ResponseStreamEncoder, whole_response

__all__ = [
    "Output",
    "ParsedResponse",
    "ResponseHead",
    "ResponseStreamEncoder",
    "parse_response",
    "whole_response",
]
