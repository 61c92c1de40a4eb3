"""Which beginnings a request's prompt has, before anybody tokenises it.

As in a server's prefix cache a prompt is cut into blocks, here of text, and a block's key is a hash
over it and the key before it: equal keys are equal beginnings. The chain starts at who asks, for
which model, and the request's own salt, because servers share nothing across those.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import orjson

BLOCK_BYTES = 256  # of JSON: about 64 tokens
_MAX_BLOCKS = 64  # prompts that differ only later count as one
_KEY_BYTES = 16
_CREDENTIALS = ("authorization", "x-api-key", "x-goog-api-key")
# Every dialect's, in the order in which chat templates write them.
_TEXTS = (
    "tools",
    "system",
    "instructions",
    "systemInstruction",
    "system_instruction",
    "messages",
    "contents",
    "prompt",
    "input",
)


def prefix_keys(path: str, headers: Mapping[str, str], body: bytes) -> tuple[bytes, ...]:
    """A key for each beginning of the prompt, the shortest first; none if there is none.

    Args:
        path: The request's, which may name its model, and its query, which may hold its key.
        headers: By lower-case name.
        body: The request's.
    """
    try:
        fields = orjson.loads(body)
        if not isinstance(fields, dict):
            return ()
        text = orjson.dumps([fields[name] for name in _TEXTS if name in fields])
    except (ValueError, TypeError):  # not JSON, or nested too deep: the server's to refuse
        return ()
    key = _first_key(path, headers, fields)
    keys = []
    for start in range(0, min(len(text), _MAX_BLOCKS * BLOCK_BYTES) - BLOCK_BYTES + 1, BLOCK_BYTES):
        key = blake2b(text[start : start + BLOCK_BYTES], key=key, digest_size=_KEY_BYTES).digest()
        keys.append(key)
    return tuple(keys)


def _first_key(path: str, headers: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
    credentials = [headers.get(name, "") for name in _CREDENTIALS]
    salt = [path, *credentials, str(fields.get("model")), str(fields.get("cache_salt"))]
    return blake2b(orjson.dumps(salt), digest_size=_KEY_BYTES).digest()
