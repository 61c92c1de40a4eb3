"""What a key looks like: ``sk-pc-<public id>-<secret><checksum>``.

The prefix lets a secret scanner find leaked keys (`KEY_PATTERN`), the public id names the key in
logs and bills, the secret's 40 characters are 238 bits, and the checksum tells a mistyped key from
a wrong one without a look at any store.
"""

import hmac
import re
import secrets
import string
import zlib
from typing import NamedTuple

KEY_PATTERN = r"sk-pc-[a-z0-9]{12}-[A-Za-z0-9]{46}"
"""Regular expression of a minted key, for secret scanners."""

MAX_KEY_BYTES = 512
"""No key is longer, so that judging a megabyte costs no more than judging a key."""

_ID_ALPHABET = string.ascii_lowercase + string.digits
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_CHECKSUM_LENGTH = 6  # 62**6 > 2**32
_KEY = re.compile(KEY_PATTERN)


class Minted(NamedTuple):
    """A new key, which nobody will see again."""

    public_id: str
    key: str


def mint(public_id: str | None = None) -> Minted:
    """Make a key at random.

    Args:
        public_id: Of a key that gets another secret; by default a new one, `key_...`.
    """
    bare_id = _random(_ID_ALPHABET, 12) if public_id is None else public_id.removeprefix("key_")
    body = f"sk-pc-{bare_id}-{_random(_ALPHABET, 40)}"
    return Minted(f"key_{bare_id}", body + _checksum(body))


def is_mistyped(key: str) -> bool:
    """Whether a key looks like one of ours and cannot be one."""
    return _KEY.fullmatch(key) is not None and _checksum(key[:-_CHECKSUM_LENGTH]) != key[-6:]


def digest_of(key: str, pepper: bytes) -> bytes:
    """HMAC-SHA256 of a whole key; of anything a client sent."""
    # One byte beyond the limit is kept, so that an over-long key equals no stored one.
    raw = key[: MAX_KEY_BYTES + 1].encode("utf-8", "surrogatepass")[: MAX_KEY_BYTES + 1]
    return hmac.digest(pepper, raw, "sha256")


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


def _checksum(body: str) -> str:
    rest = zlib.crc32(body.encode())
    digits = []
    for _ in range(_CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
