"""What a client may name as an image: a data URL, or an https address on the open internet."""

import binascii
import ipaddress
from base64 import b64decode

from yarl import URL

from provider_core.errors import InvalidRequest, RequestTooLarge

DATA = "data:"
MEDIA_TYPES = frozenset({"image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp"})
MAX_URL = 8_192  # characters of an address
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # NAT64: an IPv4 address in other clothes


def read_data_url(url: str, *, max_bytes: int, param: str) -> bytes:
    """The bytes in a data URL, whose length is known before they are decoded.

    Args:
        url: Begins with `data:`.
        max_bytes: Most of them.
        param: Where the client put it, for errors.

    Raises:
        InvalidRequest: It is no image in base64.
        RequestTooLarge: It holds more than `max_bytes`.
    """
    head, comma, text = url[len(DATA) :].partition(",")
    media_type, _, encoding = head.partition(";")
    if not comma or media_type.lower() not in MEDIA_TYPES or encoding.lower() != "base64":
        raise InvalidRequest(
            f"{param} must be a data URL of {', '.join(sorted(MEDIA_TYPES))} in base64",
            param=param,
            code="invalid_image",
        )
    if len(text) // 4 * 3 > max_bytes + 2:
        raise RequestTooLarge(f"{param} exceeds the limit of {max_bytes} bytes", param=param)
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(
            f"{param} is not valid base64", param=param, code="invalid_image"
        ) from None


def check_url(url: str, *, param: str, schemes: frozenset[str] = frozenset({"https"})) -> URL:
    """Parse an address as it will be fetched: there is no second parser to disagree with.

    Args:
        url: As the client, or a redirect, wrote it.
        param: Where the client put it, for errors.
        schemes: That may be fetched.

    Raises:
        InvalidRequest: Another scheme, credentials, or nothing that names a host; the code is
            `image_fetch_failed`.
    """
    strange = len(url) > MAX_URL or any(char <= " " or char in "\\\x7f" for char in url)
    try:
        parsed = URL(url)
        usable = bool(parsed.scheme in schemes and parsed.host) and parsed.port is not None
    except ValueError:
        usable = False
    if strange or not usable or parsed.user is not None or parsed.password is not None:
        raise fetch_failed(param, f"must be a data URL or an address of {', '.join(schemes)}")
    return parsed.with_fragment(None)


def is_public(address: IPAddress) -> bool:
    """Whether an address is on the open internet, whatever it is wrapped in."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _TRANSLATED:
            return is_public(ipaddress.IPv4Address(address.packed[-4:]))
        if address.sixtofour is not None or address.teredo is not None:
            return False  # tunnels: nobody serves images there
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
    return address.is_global and not address.is_multicast


def fetch_failed(param: str, problem: str = "could not be fetched") -> InvalidRequest:
    """The error of an address that is not, or could not be, fetched: it never says why not."""
    return InvalidRequest(f"{param} {problem}", param=param, code="image_fetch_failed")
