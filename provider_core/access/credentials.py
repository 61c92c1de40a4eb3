"""Where clients put their key: one of three headers, or the query on routes that allow it.

The order of the headers and who sends which is contract section 1.2: OpenAI and newer Anthropic
clients send `Authorization: Bearer`, older Anthropic ones `x-api-key`, Google's `x-goog-api-key`.
"""

from collections.abc import Mapping

from multidict import MultiMapping

from provider_core.errors import AuthenticationFailed

QUERY_PARAMETER = "key"
"""Google's REST clients only. Whoever asks hides it on the routes of other dialects."""

_PLAIN_HEADERS = ("X-Api-Key", "X-Goog-Api-Key")


def extract_key(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """Find the key a client presents.

    Args:
        headers: Case-insensitive, as aiohttp's.
        query: What of the query may carry a key; empty on most routes.

    Returns:
        The key, not checked; `None` if none is presented.

    Raises:
        AuthenticationFailed: A header is there twice, or is not `Bearer <key>`.
    """
    authorization = _single(headers, "Authorization")
    if authorization is not None:
        scheme, _, key = authorization.partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise AuthenticationFailed("the authorization header must be 'Bearer <api key>'")
        return key
    for name in _PLAIN_HEADERS:
        key_or_none = _single(headers, name)
        if key_or_none:
            return key_or_none.strip()
    return query.get(QUERY_PARAMETER) or None


def _single(headers: Mapping[str, str], name: str) -> str | None:
    if not isinstance(headers, MultiMapping):
        return headers.get(name)
    values = headers.getall(name, [])
    if len(values) > 1:
        raise AuthenticationFailed(f"the {name.lower()} header is given {len(values)} times")
    return values[0] if values else None
