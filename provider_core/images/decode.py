"""Bytes of an image file to pixels, within limits that its header alone must keep.

Only PNG, JPEG, GIF and WebP are opened: other decoders of the library have run programs and filled
memory. Nothing of what the library says reaches a client.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from provider_core.errors import InvalidRequest
from provider_core.images.picture import DecodedImage

FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
MAX_SIDE = 16_384  # pixels; a longer line is no picture


def count_pixels(data: bytes, *, max_pixels: int, param: str) -> int:
    """How many pixels `decode_image` makes of a file, of which no pixel is decoded here.

    Args:
        data: The file.
        max_pixels: Most of them.
        param: Where the client put it, for errors.

    Raises:
        InvalidRequest: As `decode_image` does; damage behind the header is not seen.
    """
    with _opened(data, max_pixels, param) as image:
        return image.width * image.height


def decode_image(data: bytes, *, max_pixels: int, param: str) -> DecodedImage:
    """Decode an image file, of an animation the first frame. On a worker thread.

    Args:
        data: The file.
        max_pixels: Most width times height, checked before a pixel is decoded.
        param: Where the client put it, for errors.

    Raises:
        InvalidRequest: It is no image of the four formats, is damaged, or is too large; the code is
            `invalid_image`.
    """
    with _opened(data, max_pixels, param) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return DecodedImage(np.array(_to_rgb(image)))


@contextmanager
def _opened(data: bytes, max_pixels: int, param: str) -> Iterator[Image.Image]:
    """Read the header of a file; whatever goes wrong until the end is the client's to mend."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size, max_pixels, param)
            yield image
    except InvalidRequest:
        raise
    except Image.DecompressionBombError:  # the library's own limit, far above any sensible one
        raise _invalid(param, f"must have at most {max_pixels} pixels") from None
    except Exception:  # noqa: BLE001 - damaged files raise anything, with our memory in the text
        raise _invalid(param, f"is not a valid image: {', '.join(FORMATS)}") from None


def _check_size(width: int, height: int, max_pixels: int, param: str) -> None:
    if not width or not height or max(width, height) > MAX_SIDE:
        raise _invalid(param, f"must have 1 to {MAX_SIDE} pixels on each side")
    if width * height > max_pixels:
        raise _invalid(param, f"must have at most {max_pixels} pixels, not {width} x {height}")


def _to_rgb(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    picture = image.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def _invalid(param: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"the image {param} {problem}", param=param, code="invalid_image")
