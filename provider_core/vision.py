"""What a `ModelRunner` or an `Engine` can do besides: see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:  # a start imports this long before it has arrays
    import numpy as np
    import numpy.typing as npt


@runtime_checkable
class ImageEncoder(Protocol):
    """Turns pictures into vectors that its model reads in a prompt.

    The core shows the chat template a content part `{"type": "image"}` for each picture, repeats
    the placeholder that it writes there as often as the picture has vectors, and gives these to the
    model with the prompt: as `GenerationRequest.prompt_embeddings`, or `Batch.embeddings`.
    """

    @property
    def image_token_id(self) -> int:
        """The placeholder that the model's chat template writes once for each picture."""
        ...

    def num_image_tokens(self, height: int, width: int) -> int:
        """How many vectors `encode_image` will make of a picture of so many pixels, at least one.

        Called for requests that may yet be refused, on the event loop: it only calculates.
        """
        ...

    def encode_image(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Look at a picture. Called from a thread of its own, one picture at a time.

        Args:
            pixels: uint8 `[height, width, 3]`, of any size.

        Returns:
            float32 `[k, size]`, vectors of the size of the model's own; k is what
            `num_image_tokens` said.
        """
        ...
