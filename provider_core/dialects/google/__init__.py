"""Google's dialect: request bodies in, answers and streams of answers out."""

from provider_core.dialects.google.answers import AnswerHead
from provider_core.dialects.google.errors import encode_error, error_body
from provider_core.dialects.google.models import model_id, model_list, model_object
from provider_core.dialects.google.requests import parse_count, parse_generate
from provider_core.dialects.google.responses import response
from provider_core.dialects.google.stream import ArrayEncoder, SseEncoder, encoder_class

__all__ = [
    "AnswerHead",
    "ArrayEncoder",
    "SseEncoder",
    "encode_error",
    "encoder_class",
    "error_body",
    "model_id",
    "model_list",
    "model_object",
    "parse_count",
    "parse_generate",
    "response",
]
