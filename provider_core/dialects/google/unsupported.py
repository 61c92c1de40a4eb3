"""Known fields that ask for what is not served: refused by name, unless their value asks nothing.

Everything else that is not honoured is a hint (`safetySettings`, `labels`, `mediaResolution`) and
ignored.
"""

from collections.abc import Mapping
from typing import Any

from provider_core.dialects.google.fields import get
from provider_core.errors import UnsupportedParameter

_TEXT_ONLY = "is not supported by this model, which writes text only"

UNSUPPORTED_FIELDS: Mapping[str, str] = {
    "cachedContent": "is not supported by this server, which caches prompts by itself",
}
UNSUPPORTED_CONFIG: Mapping[str, str] = {
    "speechConfig": _TEXT_ONLY,
    "imageConfig": _TEXT_ONLY,
    "responseModalities": _TEXT_ONLY,
}


def refuse_unsupported(body: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Check a request body and its `generationConfig`.

    Raises:
        UnsupportedParameter: A field asks for what is not served; `param` names it.
    """
    for prefix, fields, table in (
        ("", body, UNSUPPORTED_FIELDS),
        ("generationConfig.", config, UNSUPPORTED_CONFIG),
    ):
        for name, reason in table.items():
            if get(fields, name) not in (None, [], {}, "", ["TEXT"], ["text"]):
                raise UnsupportedParameter(f"{prefix}{name} {reason}", param=prefix + name)
