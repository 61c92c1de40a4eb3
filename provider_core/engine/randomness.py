"""Random numbers by counting, so that a seed fixes a text whatever runs beside it.

A generator with hidden state would tie a sequence's draws to the order of the batch. Here the
draw for the i-th new token of a sequence is a pure function of its seed and i: SplitMix64 (Steele,
Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) read at position i.
"""

import secrets

import numpy as np
import numpy.typing as npt

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: SplitMix64's increment
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB

STREAM_STEP = np.uint64(_GOLDEN)
"""Add this to a state to come to the next draw of the same stream."""


def fresh_seed() -> int:
    """A seed for a request that brought none: 64 bits from the operating system."""
    return secrets.randbits(64)


def stream_state(seed: int, position: int) -> int:
    """State whose `uniforms` is the draw number `position` of the stream of `seed`.

    The seed is mixed first, so that seeds that differ by the increment are not the same stream
    shifted by one.

    Args:
        seed: Any integer, taken modulo 2**64.
        position: From 0.
    """
    return (_finalize(seed + _GOLDEN) + position * _GOLDEN) & _MASK


def uniforms(states: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """One draw from [0, 1) for each state, with 53 random bits.

    Args:
        states: uint64 `[n]`.

    Returns:
        float64 `[n]`.
    """
    z = states ^ (states >> np.uint64(30))
    z *= np.uint64(_MIX_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(_MIX_2)
    z ^= z >> np.uint64(31)
    z >>= np.uint64(11)
    return z.astype(np.float64) * 2.0**-53


def _finalize(value: int) -> int:
    z = value & _MASK
    z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
    return z ^ (z >> 31)
