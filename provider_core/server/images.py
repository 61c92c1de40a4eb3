"""From the images that a conversation names to what its model reads of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from provider_core.dialects.chat_request import ImageSource
from provider_core.dialects.validation import bad_value
from provider_core.errors import InvalidRequest, UnsupportedParameter
from provider_core.images.picture import DecodedImage
from provider_core.images.sources import DATA, read_data_url
from provider_core.server.image_fetch import ImageFetcher
from provider_core.server.models import ServedModel
from provider_core.settings import ImageSettings
from provider_core.vision import ImageEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptImages:
    """What a prompt shows beside its ids.

    Attributes:
        embeddings: For `GenerationRequest.prompt_embeddings`.
        salt: Tells prompts of other images apart, whose ids are the same.
        count: How many images.
    """

    embeddings: tuple[tuple[int, memoryview], ...] = ()
    salt: str = ""
    count: int = 0


class ImageReader:
    """Fetches, decodes and encodes images. Close it.

    Args:
        settings: Limits.
        fetcher: Gets what is not in the request itself.
    """

    def __init__(self, settings: ImageSettings, fetcher: ImageFetcher | None = None) -> None:
        self._settings = settings
        self._fetcher = fetcher or ImageFetcher(settings)
        self._turns = asyncio.Semaphore(1)  # a model looks at one picture at a time

    def check(self, model: ServedModel, images: Sequence[ImageSource]) -> None:
        """Refuse what can be refused before anything is fetched.

        Raises:
            UnsupportedParameter: The model does not see.
            InvalidRequest: Too many images.
        """
        if not images:
            return
        if model.image_encoder is None:
            param = images[0].param
            raise UnsupportedParameter(
                f"{param}: images are not supported by this model, which reads text only",
                param=param,
            )
        most = self._settings.max_images
        if len(images) > most:
            raise bad_value("messages", f"must have at most {most} images, not {len(images)}")

    async def read(
        self, model: ServedModel, images: Sequence[ImageSource], prompt_ids: tuple[int, ...]
    ) -> tuple[tuple[int, ...], PromptImages]:
        """Put a conversation's images into its prompt.

        Args:
            model: Which model.
            images: In the order of the conversation, checked by `check`; all are loaded before
                one is looked at.
            prompt_ids: As the chat template wrote them, with one placeholder for each image.

        Returns:
            The ids, each placeholder repeated for every vector of its image, and the vectors.

        Raises:
            InvalidRequest: An image cannot be had or read, or the template shows others than the
                conversation has.
        """
        encoder = model.image_encoder
        if not images or encoder is None:
            return prompt_ids, PromptImages()
        if prompt_ids.count(encoder.image_token_id) != len(images):
            raise InvalidRequest(
                "this model's chat template does not show every image once", param="messages"
            )
        pictures = await self._load_all(images)
        vectors = [await self._look(encoder, picture) for picture in pictures]
        ids, embeddings = place_vectors(prompt_ids, encoder.image_token_id, vectors)
        salt = "".join(f"/{picture.digest.hex()}" for picture in pictures)
        return ids, PromptImages(embeddings=embeddings, salt=salt, count=len(images))

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        await self._fetcher.close()

    async def _load_all(self, images: Sequence[ImageSource]) -> list[DecodedImage]:
        """Load side by side; the first that fails ends the others."""
        try:
            async with asyncio.TaskGroup() as group:
                loading = [group.create_task(self._load(image)) for image in images]
        except* InvalidRequest as failures:
            raise failures.exceptions[0] from None
        return [each.result() for each in loading]

    async def _load(self, image: ImageSource) -> DecodedImage:
        # Its library takes longer to import than a server that sees no image should wait.
        from provider_core.images.decode import decode_image  # noqa: PLC0415

        settings = self._settings
        if image.url[: len(DATA)].lower() == DATA:
            data = await asyncio.to_thread(
                read_data_url, image.url, max_bytes=settings.max_bytes, param=image.param
            )
        else:
            data = await self._fetcher.fetch(image.url, param=image.param)
        return await asyncio.to_thread(
            decode_image, data, max_pixels=settings.max_pixels, param=image.param
        )

    async def _look(self, encoder: ImageEncoder, picture: DecodedImage) -> npt.NDArray[np.float32]:
        async with self._turns:
            return await asyncio.to_thread(encoder.encode_image, picture.pixels)


def place_vectors(
    prompt_ids: tuple[int, ...], placeholder: int, vectors: Sequence[npt.NDArray[np.float32]]
) -> tuple[tuple[int, ...], tuple[tuple[int, memoryview], ...]]:
    """Repeat each placeholder for the vectors of its image.

    Args:
        prompt_ids: With as many placeholders as there are images.
        placeholder: Its id.
        vectors: float32 `[k, size]` of each image, in order.

    Returns:
        The longer prompt, and each image's position in it with its vectors.
    """
    ids: list[int] = []
    embeddings = []
    waiting = iter(vectors)
    for token_id in prompt_ids:
        if token_id != placeholder:
            ids.append(token_id)
            continue
        values = next(waiting)
        embeddings.append((len(ids), np.ascontiguousarray(values, np.float32).data))
        ids += [placeholder] * len(values)
    return tuple(ids), tuple(embeddings)
