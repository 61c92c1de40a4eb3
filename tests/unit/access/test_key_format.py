"""What keys look like."""

import re

from hypothesis import given
from hypothesis import strategies as st

from provider_core.access.key_format import (
    KEY_PATTERN,
    MAX_KEY_BYTES,
    digest_of,
    is_mistyped,
    mint,
)


def test_keys_fit_the_pattern_of_scanners() -> None:
    """And name the key they belong to."""
    minted = mint()
    assert re.fullmatch(KEY_PATTERN, minted.key)
    assert minted.public_id == "key_" + minted.key.split("-")[2]


def test_another_secret_keeps_the_public_id() -> None:
    """Rotation changes nothing in logs and bills."""
    first = mint()
    second = mint(first.public_id)
    assert second.public_id == first.public_id
    assert second.key != first.key


@given(st.integers(6, 64))
def test_one_wrong_character_is_mistyped(place: int) -> None:
    """The checksum covers the public id, the secret and itself."""
    key = mint().key
    assert not is_mistyped(key)
    wrong = "a" if key[place] != "a" else "b"
    if key[place] != "-":
        assert is_mistyped(key[:place] + wrong + key[place + 1 :])


@given(st.text())
def test_what_is_not_of_this_form_is_not_mistyped(text: str) -> None:
    """Keys of the settings have any form."""
    assert not is_mistyped(text)
    assert len(digest_of(text, b"pepper")) == 32


def test_an_over_long_key_equals_no_other() -> None:
    """Cutting it at the limit would make it one."""
    longest = "k" * MAX_KEY_BYTES
    assert digest_of(longest + "k", b"pepper") != digest_of(longest, b"pepper")
