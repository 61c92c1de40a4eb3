"""A model's looks at the pictures of prompts: after both gates, and with the bill open."""

import asyncio
from time import monotonic

import numpy as np
import numpy.typing as npt

from provider_core.errors import BackendError, DeadlineExceeded
from provider_core.images.picture import DecodedImage
from provider_core.server.images import PromptImages
from provider_core.server.models import ServedModel
from provider_core.vision import ImageEncoder


class ImageLooker:
    """Has models look at one picture at a time. One per server."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(1)

    async def look(
        self, model: ServedModel, images: PromptImages, *, deadline_s: float
    ) -> tuple[tuple[int, memoryview], ...]:
        """What a model sees, for `GenerationRequest.prompt_embeddings`.

        Args:
            model: Which model.
            images: Of its prompt; their pictures are taken away.
            deadline_s: On the `time.monotonic` clock.

        Raises:
            DeadlineExceeded: It takes too long.
            BackendError: The model sees more or less of a picture than it said.
        """
        encoder = model.image_encoder
        if encoder is None or not images.count:
            return ()
        seen = []
        try:
            async with asyncio.timeout(deadline_s - monotonic()):
                for place, length in images.spans:
                    vectors = await self._take_turn(model, encoder, images)
                    if len(vectors) != length:
                        raise BackendError("the model sees another part of an image than it said")
                    seen.append((place, np.ascontiguousarray(vectors, np.float32).data))
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed while the model saw the images") from None
        return tuple(seen)

    async def _take_turn(
        self, model: ServedModel, encoder: ImageEncoder, images: PromptImages
    ) -> npt.NDArray[np.float32]:
        await self._turns.acquire()
        picture = images.pictures.popleft()
        # Nobody can stop a thread: if the client leaves, the thread keeps its turn, its picture and
        # its model.
        looking = asyncio.create_task(self._look(model, encoder, images, picture))
        return await asyncio.shield(looking)

    async def _look(
        self,
        model: ServedModel,
        encoder: ImageEncoder,
        images: PromptImages,
        picture: DecodedImage,
    ) -> npt.NDArray[np.float32]:
        try:
            with model.held():
                return await asyncio.to_thread(encoder.encode_image, picture.pixels)
        finally:
            images.forget(picture)
            self._turns.release()
