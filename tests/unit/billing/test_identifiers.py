"""Identifiers."""

import re
import time

import pytest

from provider_core.billing import make_generation_id, make_request_id, make_ulid
from provider_core.billing.identifiers import clean_client_request_id

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def decode(ulid: str) -> int:
    """The 128 bits of a ULID."""
    bits = 0
    for character in ulid:
        bits = bits << 5 | CROCKFORD.index(character)
    return bits


def test_a_ulid_holds_the_time_in_its_first_48_bits() -> None:
    """It is 26 characters and sorts by creation."""
    before = time.time_ns() // 1_000_000
    ulid = make_ulid()
    after = time.time_ns() // 1_000_000
    assert len(ulid) == 26
    assert decode(ulid) < 2**128
    assert before <= decode(ulid) >> 80 <= after


def test_a_ulid_has_80_random_bits() -> None:
    """Over many, each random bit is set about half the time, and none repeats."""
    values = [decode(make_ulid()) for _ in range(2000)]
    assert len(set(values)) == len(values)
    for bit in range(80):
        # 10 standard deviations of a fair coin: fails once in 10^22 runs.
        assert abs(sum(value >> bit & 1 for value in values) - 1000) < 224


def test_prefixes() -> None:
    """The usage event's schema fixes both forms."""
    assert re.fullmatch(r"gen-[0-9A-Z]{26}", make_generation_id())
    assert re.fullmatch(r"req-[0-9A-Z]{26}", make_request_id())


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (None, None),
        ("trace.1:a_b-C", "trace.1:a_b-C"),
        ("x" * 64, "x" * 64),
        ("x" * 65, None),
        ("", None),
        ("a b", None),
        ("a\n", None),
        ("é", None),
        ('{"event":"usage.final"}', None),
    ],
)
def test_only_harmless_client_ids_are_kept(sent: str | None, kept: str | None) -> None:
    """A client's id goes into logs as it is or not at all."""
    assert clean_client_request_id(sent) == kept
