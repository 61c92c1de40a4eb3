"""Anthropic's dialect: request bodies in, messages and event streams out."""

from provider_core.dialects.anthropic.blocks import MessageHead
from provider_core.dialects.anthropic.errors import encode_error, error_body
from provider_core.dialects.anthropic.models import model_info, model_page
from provider_core.dialects.anthropic.requests import parse_count, parse_create
from provider_core.dialects.anthropic.responses import message
from provider_core.dialects.anthropic.stream import MessageStreamEncoder

__all__ = [
    "MessageHead",
    "MessageStreamEncoder",
    "encode_error",
    "error_body",
    "message",
    "model_info",
    "model_page",
    "parse_count",
    "parse_create",
]
