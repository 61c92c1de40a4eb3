"""From the images that a conversation names to their places in its prompt.

Nothing here takes a model's time: it looks at them once the request is let in.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from provider_core.dialects.chat_request import ImageSource
from provider_core.dialects.validation import bad_value
from provider_core.errors import DeadlineExceeded, InvalidRequest, UnsupportedParameter
from provider_core.images.picture import DecodedImage
from provider_core.images.sources import DATA, read_data_url
from provider_core.server.daemon_executor import DaemonExecutor
from provider_core.server.image_fetch import ImageFetcher
from provider_core.server.image_memory import ImageMemory
from provider_core.server.models import ServedModel
from provider_core.settings import ImageSettings

_NUM_DECODERS = 2  # threads: decoding takes several times the memory of what it makes
_PIXEL_BYTES = 3
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptImages:
    """What a prompt shows beside its ids. Close it.

    Attributes:
        pictures: In order. Whoever looks at one takes it away, and forgets it then: pixels are
            large.
        spans: Of each, where its vectors begin in the prompt and how many there are.
        salt: Tells prompts of other images apart, whose ids are the same.
        forget: Told of each picture that is not needed any more.
    """

    pictures: deque[DecodedImage] = field(default_factory=deque)
    spans: Sequence[tuple[int, int]] = ()
    salt: str = ""
    forget: Callable[[DecodedImage], None] = lambda _: None

    @property
    def count(self) -> int:
        """How many images, looked at or not."""
        return len(self.spans)

    def close(self) -> None:
        """Forget what nobody has looked at. Idempotent."""
        while self.pictures:
            self.forget(self.pictures.popleft())


@dataclass(frozen=True, slots=True)
class _ImageFile:
    """A file as the client sent it, or as it was fetched."""

    data: bytes
    num_pixels: int
    param: str


class ImageReader:
    """Fetches and decodes images. Close it.

    Args:
        settings: Limits.
        wait_s: Longest wait for memory.
        fetcher: Gets what is not in the request itself.
    """

    def __init__(
        self, settings: ImageSettings, *, wait_s: float, fetcher: ImageFetcher | None = None
    ) -> None:
        self._settings = settings
        self._fetcher = fetcher or ImageFetcher(settings)
        largest = _PIXEL_BYTES * settings.max_request_pixels  # one request always has room
        self._memory = ImageMemory(max(settings.memory_mib * 2**20, largest), wait_s)
        self._decoders = DaemonExecutor(_NUM_DECODERS, "image-decoding")

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
        self,
        model: ServedModel,
        images: Sequence[ImageSource],
        prompt_ids: tuple[int, ...],
        *,
        deadline_s: float,
    ) -> tuple[tuple[int, ...], PromptImages]:
        """Make room for a conversation's images in its prompt.

        Args:
            model: Which model.
            images: In the order of the conversation, checked by `check`.
            prompt_ids: As the chat template wrote them, with one placeholder for each image.
            deadline_s: On the `time.monotonic` clock.

        Returns:
            The ids, each placeholder repeated for every vector of its image, and the images.

        Raises:
            InvalidRequest: An image cannot be had or read, they are too large together, or the
                template shows others than the conversation has.
            Overloaded: Images of others take all memory that there is for them.
            DeadlineExceeded: It takes too long.
        """
        encoder = model.image_encoder
        if not images or encoder is None:
            return prompt_ids, PromptImages()
        if prompt_ids.count(encoder.image_token_id) != len(images):
            raise InvalidRequest(
                "this model's chat template does not show every image once", param="messages"
            )
        try:
            async with asyncio.timeout(deadline_s - monotonic()):
                pictures = await self._decode_all(await self._load_all(images))
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed while the images were read") from None
        try:
            lengths = [encoder.num_image_tokens(*picture.pixels.shape[:2]) for picture in pictures]
            ids, spans = make_room(prompt_ids, encoder.image_token_id, lengths)
            salt = await asyncio.to_thread(_salt_of, pictures)
        except BaseException:
            for picture in pictures:
                self._forget(picture)
            raise
        return ids, PromptImages(
            pictures=deque(pictures), spans=spans, salt=salt, forget=self._forget
        )

    async def close(self) -> None:
        """Close all connections, and decode nothing more. Idempotent."""
        self._decoders.close()
        await self._fetcher.close()

    async def _load_all(self, images: Sequence[ImageSource]) -> list[_ImageFile]:
        """Load the files, and refuse what is too large before a pixel is decoded."""
        files = await _side_by_side(map(self._load, images))
        most = self._settings.max_request_pixels
        num_pixels = sum(file.num_pixels for file in files)
        if num_pixels > most:
            raise InvalidRequest(
                f"the images of a request must have at most {most} pixels together, "
                f"not {num_pixels}",
                param="messages",
                code="invalid_image",
            )
        return files

    async def _load(self, image: ImageSource) -> _ImageFile:
        # Its library takes longer to import than a server that sees no image should wait.
        from provider_core.images.decode import count_pixels  # noqa: PLC0415

        settings = self._settings
        if image.url[: len(DATA)].lower() == DATA:
            data = await asyncio.to_thread(
                read_data_url, image.url, max_bytes=settings.max_bytes, param=image.param
            )
        else:
            data = await self._fetcher.fetch(image.url, param=image.param)
        num_pixels = await asyncio.to_thread(
            count_pixels, data, max_pixels=settings.max_pixels, param=image.param
        )
        return _ImageFile(data, num_pixels, image.param)

    async def _decode_all(self, files: Sequence[_ImageFile]) -> list[DecodedImage]:
        """Decode once there is room for all: two requests with room for a part each would wait on.

        Nobody can stop a thread: what it decodes for a client that left is beyond the memory, which
        is one picture for each of `_NUM_DECODERS`.
        """
        num_bytes = _PIXEL_BYTES * sum(file.num_pixels for file in files)
        await self._memory.take(num_bytes)
        try:
            return await _side_by_side(map(self._decode, files))
        except BaseException:
            self._memory.give_back(num_bytes)
            raise

    async def _decode(self, file: _ImageFile) -> DecodedImage:
        from provider_core.images.decode import decode_image  # noqa: PLC0415 - as above

        most = self._settings.max_pixels
        decode = partial(decode_image, file.data, max_pixels=most, param=file.param)
        return await asyncio.wrap_future(self._decoders.submit(decode))

    def _forget(self, picture: DecodedImage) -> None:
        self._memory.give_back(picture.pixels.nbytes)


async def _side_by_side(all_work: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Do some work at once; the first that fails ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in all_work]
    except* InvalidRequest as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


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
