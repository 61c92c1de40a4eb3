"""From the images that a conversation names to their places in its prompt.

Nothing here takes a model's time: it looks at them once the request is let in.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from provider_core.dialects.chat_request import ImageSource
from provider_core.dialects.validation import bad_value
from provider_core.errors import InvalidRequest, UnsupportedParameter
from provider_core.images.picture import DecodedImage
from provider_core.images.sources import DATA, read_data_url
from provider_core.server.image_fetch import ImageFetcher
from provider_core.server.models import ServedModel
from provider_core.settings import ImageSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptImages:
    """What a prompt shows beside its ids.

    Attributes:
        pictures: In order. Whoever looks at one takes it away: pixels are large.
        spans: Of each, where its vectors begin in the prompt and how many there are.
        salt: Tells prompts of other images apart, whose ids are the same.
    """

    pictures: deque[DecodedImage] = field(default_factory=deque)
    spans: Sequence[tuple[int, int]] = ()
    salt: str = ""

    @property
    def count(self) -> int:
        """How many images, looked at or not."""
        return len(self.spans)


class ImageReader:
    """Fetches and decodes images. Close it.

    Args:
        settings: Limits.
        fetcher: Gets what is not in the request itself.
    """

    def __init__(self, settings: ImageSettings, fetcher: ImageFetcher | None = None) -> None:
        self._settings = settings
        self._fetcher = fetcher or ImageFetcher(settings)

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
        """Make room for a conversation's images in its prompt.

        Args:
            model: Which model.
            images: In the order of the conversation, checked by `check`.
            prompt_ids: As the chat template wrote them, with one placeholder for each image.

        Returns:
            The ids, each placeholder repeated for every vector of its image, and the images.

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
        lengths = [encoder.num_image_tokens(*picture.pixels.shape[:2]) for picture in pictures]
        ids, spans = make_room(prompt_ids, encoder.image_token_id, lengths)
        salt = await asyncio.to_thread(_salt_of, pictures)
        return ids, PromptImages(pictures=deque(pictures), spans=spans, salt=salt)

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


def make_room(
    prompt_ids: tuple[int, ...], placeholder: int, lengths: Sequence[int]
) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """Repeat each placeholder for the vectors of its image.

    Args:
        prompt_ids: With as many placeholders as there are images.
        placeholder: Its id.
        lengths: How many vectors each image has, in order.

    Returns:
        The longer prompt, and each image's position in it with its length.
    """
    ids: list[int] = []
    spans = []
    waiting = iter(lengths)
    for token_id in prompt_ids:
        if token_id != placeholder:
            ids.append(token_id)
            continue
        length = next(waiting)
        spans.append((len(ids), length))
        ids += [placeholder] * length
    return tuple(ids), spans


def _salt_of(pictures: Sequence[DecodedImage]) -> str:
    return "".join(f"/{picture.digest.hex()}" for picture in pictures)
