"""A picture in memory."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """A picture.

    Attributes:
        pixels: uint8 `[height, width, 3]`, red, green, blue; transparency shows white.
    """

    pixels: npt.NDArray[np.uint8]

    @property
    def digest(self) -> bytes:
        """32 bytes over shape and pixels: equal digests are equal pictures."""
        digest = hashlib.sha256(np.array(self.pixels.shape, "<i8").data)
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.digest()
