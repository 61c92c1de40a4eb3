"""Image files to pixels: four formats, and nothing that is damaged, strange or too large."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from provider_core.errors import InvalidRequest
from provider_core.images.decode import MAX_SIDE, decode_image
from provider_core.images.picture import DecodedImage

COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[9, 9, 9], [0, 0, 0], [5, 6, 7]]])


def write(image: Image.Image, form: str, **options: Any) -> bytes:
    """An image file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def picture(pixels: np.ndarray = COLOURS) -> Image.Image:
    """An image of these pixels."""
    return Image.fromarray(pixels.astype(np.uint8))


def decode(data: bytes, max_pixels: int = 10_000) -> DecodedImage:
    """Decode with a small limit."""
    return decode_image(data, max_pixels=max_pixels, param="messages[0].content[1]")


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds no pixel."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(header))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I4s", 0, b"IDAT")
    )


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_pixels_are_the_files(form: str, options: dict[str, Any]) -> None:
    """Height, width, colours."""
    assert np.array_equal(decode(write(picture(), form, **options)).pixels, COLOURS)


@pytest.mark.parametrize("form", ["JPEG", "GIF", "WEBP"])
def test_four_formats_are_read(form: str) -> None:
    """Those that lose detail keep the size."""
    assert decode(write(picture(), form)).pixels.shape == (2, 3, 3)


def test_transparency_shows_white() -> None:
    """As on a page."""
    image = Image.new("RGBA", (1, 1), (10, 20, 30, 0))
    assert decode(write(image, "PNG")).pixels.tolist() == [[[255, 255, 255]]]


def test_photographs_stand_upright() -> None:
    """A camera's note of how it was held is followed."""
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turned by a quarter
    assert decode(write(picture(), "JPEG", exif=exif.tobytes())).pixels.shape == (3, 2, 3)


def test_v7_of_an_animation_the_first_frame_is_seen() -> None:
    """However many there are."""
    frames = [Image.new("P", (2, 2), index % 3) for index in range(50)]
    data = write(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data).pixels.shape == (2, 2, 3)


def test_v12_equal_pixels_of_other_shapes_have_other_digests() -> None:
    """Or one picture's cached text would answer for the other."""
    wide, tall = (picture(np.zeros(shape)) for shape in ((2, 8, 3), (8, 2, 3)))
    digests = {decode(write(image, "PNG")).digest for image in (wide, tall)}
    assert len(digests) == 2
    assert decode(write(wide, "PNG")).digest == decode(write(wide, "GIF")).digest


@pytest.mark.parametrize("form", ["TIFF", "BMP", "PPM", "TGA", "JPEG2000", "ICO", "EPS", "PDF"])
def test_v8_other_formats_are_refused(form: str) -> None:
    """Their decoders are never reached."""
    with pytest.raises(InvalidRequest) as caught:
        decode(write(picture(), form))
    assert caught.value.code == "invalid_image"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"\xff\xd8\xff\xe0",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        bytes(range(256)) * 4,
        png_header(3, 2),
        write(picture(), "PNG")[:-35],
        write(picture(), "JPEG")[:300],
    ],
)
def test_v9_damaged_files_are_refused_in_fixed_words(data: bytes) -> None:
    """No address of an object, no path, no text of the library."""
    with pytest.raises(InvalidRequest) as caught:
        decode(data)
    assert caught.value.message == (
        "the image messages[0].content[1] is not a valid image: PNG, JPEG, GIF, WEBP"
    )
    assert caught.value.param == "messages[0].content[1]"


@pytest.mark.parametrize(
    "size", [(65_535, 65_535), (MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (101, 100)]
)
def test_v7_size_is_known_before_a_pixel_is_decoded(size: tuple[int, int]) -> None:
    """The file holds a header and nothing else."""
    with pytest.raises(InvalidRequest, match="pixels") as caught:
        decode(png_header(*size))
    assert caught.value.code == "invalid_image"


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_v10_thin_pictures_are_pictures(size: tuple[int, int]) -> None:
    """Up to the limits."""
    assert decode(write(Image.new("RGB", size), "PNG")).pixels.shape == (size[1], size[0], 3)
