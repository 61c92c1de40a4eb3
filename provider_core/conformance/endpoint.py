"""Where a provider answers: the addresses that follow from the one its customers are given."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from provider_core.errors import ConfigurationError

_VERSIONED = ("/v1", "/api/v1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One provider.

    Attributes:
        root: Scheme, host, port and what of the path is common to everything.
        base: Of OpenAI's paths, e.g. `https://host/v1`.
        key: Sent as a bearer token; `None` sends none.
        monitor: Path of the monitor's document, below the root.
    """

    root: str
    base: str
    key: str | None = None
    monitor: str = "/openrouter/models"

    @property
    def openrouter(self) -> str:
        """Base of OpenRouter's own paths, if the provider has them."""
        return f"{self.root}/api/v1"

    @property
    def is_openrouter(self) -> bool:
        """Whether the base itself speaks OpenRouter's variant."""
        return self.base == self.openrouter

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, where nobody uses TLS."""
        return urlsplit(self.root).hostname in {"localhost", "127.0.0.1", "::1"}


def make_endpoint(
    url: str, *, key: str | None = None, monitor: str = "/openrouter/models"
) -> Endpoint:
    """Read what the command line was given.

    Args:
        url: With or without `/v1` or `/api/v1` at its end.
        key: Of the provider.
        monitor: Path of the monitor's document.

    Raises:
        ConfigurationError: The URL is not one of HTTP, or the key has characters no key has.
    """
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port
    except ValueError:  # a port that is none
        is_http = False
    if not is_http:
        raise ConfigurationError(f"{url!r} is not an http or https address")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ConfigurationError("--key holds characters that no API key has")
    path = parts.path.rstrip("/")
    root = f"{parts.scheme}://{parts.netloc}"
    for suffix in reversed(_VERSIONED):
        if path.endswith(suffix):
            prefix = root + path.removesuffix(suffix)
            return Endpoint(root=prefix, base=prefix + suffix, key=key, monitor=monitor)
    return Endpoint(root=root + path, base=f"{root}{path}/v1", key=key, monitor=monitor)
