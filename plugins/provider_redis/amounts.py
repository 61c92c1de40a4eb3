"""Amounts of USD as the scripts keep them: whole USD, then twice nine decimals from 0 up."""

from decimal import Context, Decimal

_EXACT = Context(prec=60)
_NANO = 10**9
_ATTO = 10**18


def to_text(usd: Decimal) -> str:
    """Write an amount of at most 18 decimals: `-0.5` is `-1 500000000 0`."""
    whole, rest = divmod(int(_EXACT.multiply(usd, Decimal(_ATTO))), _ATTO)
    nano, atto = divmod(rest, _NANO)
    return f"{whole} {nano} {atto}"


def to_usd(text: str) -> Decimal:
    """Read one, exactly."""
    whole, nano, atto = map(int, text.split())
    return _EXACT.divide(Decimal((whole * _NANO + nano) * _NANO + atto), Decimal(_ATTO))
