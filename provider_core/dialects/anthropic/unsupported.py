"""Known fields that ask for what is not served: refused by name, unless their value asks nothing.

Everything else that is not honoured is a hint (`service_tier`, `cache_control`, `speed`,
`context_management`) and ignored.
"""

from collections.abc import Mapping
from typing import Any

from provider_core.errors import UnsupportedParameter

UNSUPPORTED_FIELDS: Mapping[str, str] = {
    "container": "is not supported by this server, which runs no code",
    "mcp_servers": "is not supported by this server, which calls no others",
    "inference_geo": "is not supported by this server, which runs in one place",
}


def refuse_unsupported(body: Mapping[str, Any]) -> None:
    """Check a request body.

    Raises:
        UnsupportedParameter: A field asks for what is not served; `param` names it.
    """
    for name, reason in UNSUPPORTED_FIELDS.items():
        if body.get(name) not in (None, [], {}, ""):
            raise UnsupportedParameter(f"{name} {reason}", param=name)
