"""OpenAI's dialect: request bodies in, response bodies and event streams out."""

from provider_core.dialects.openai.chunks import (
    DONE,
    KEEPALIVE,
    ChatStreamEncoder,
    CompletionStreamEncoder,
    StreamEncoder,
)
from provider_core.dialects.openai.errors import encode_error, error_object
from provider_core.dialects.openai.logprobs import DecodeToken, make_decode_token
from provider_core.dialects.openai.models import model_item, model_list
from provider_core.dialects.openai.requests import (
    ParsedChat,
    ParsedCompletion,
    parse_chat,
    parse_completion,
)
from provider_core.dialects.openai.responses import chat_completion, text_completion
from provider_core.dialects.openai.usage import usage_object

__all__ = [
    "DONE",
    "KEEPALIVE",
    "ChatStreamEncoder",
    "CompletionStreamEncoder",
    "DecodeToken",
    "ParsedChat",
    "ParsedCompletion",
    "StreamEncoder",
    "chat_completion",
    "encode_error",
    "error_object",
    "make_decode_token",
    "model_item",
    "model_list",
    "parse_chat",
    "parse_completion",
    "text_completion",
    "usage_object",
]
