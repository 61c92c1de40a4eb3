"""OpenAI's dialect: request bodies in, response bodies and event streams out."""

from provider_core.dialects.openai.errors import encode_error, error_object
from provider_core.dialects.openai.json_body import parse_json_object
from provider_core.dialects.openai.models import model_item, model_list
from provider_core.dialects.openai.requests import (
    ParsedChat,
    ParsedCompletion,
    parse_chat,
    parse_completion,
)
from provider_core.dialects.openai.sampling import (
    PendingSampling,
    check_token_ids,
    to_sampling_params,
)

__all__ = [
    "ParsedChat",
    "ParsedCompletion",
    "PendingSampling",
    "check_token_ids",
    "encode_error",
    "error_object",
    "model_item",
    "model_list",
    "parse_chat",
    "parse_completion",
    "parse_json_object",
    "to_sampling_params",
]
