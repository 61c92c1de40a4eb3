"""OpenRouter's spelling of the OpenAI dialect, under `/api/v1`."""

from provider_core.dialects.openrouter.errors import encode_error, error_object

__all__ = ["encode_error", "error_object"]
