"""Pictures to the pixels that a vision encoder was trained on, as `preprocessor_config.json` says.

Resizing, cutting out the middle, scaling and normalising: what the processors of CLIP, SigLIP and
their kin do. The keys are those of Hugging Face.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from provider_core import ConfigurationError

CONFIG = "preprocessor_config.json"
BICUBIC = 3  # Pillow's number, which these files write
MAX_RATIO = 16  # of the sides, before what is longer loses its ends


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProcessor:
    """What to do with a picture.

    Attributes:
        size: Height and width to resize to; one number is the shorter side's, `None` resizes
            nothing.
        crop: Height and width of the middle that is kept; `None` keeps all.
        resample: Pillow's number of the filter.
        scale: Factor of each channel's values, 0 to 255.
        mean: Of each channel after that, taken away.
        std: Of each channel, divided by.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: int
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Turn uint8 `[height, width, 3]` into float32 `[1, 3, height, width]`."""
        image = Image.fromarray(pixels)
        if isinstance(self.size, int):  # else a line of pixels would be resized to gigabytes
            shorter = MAX_RATIO * min(image.size)
            image = _middle(image, min(image.height, shorter), min(image.width, shorter))
        if self.size is not None:
            height, width = self._target(image.height, image.width)
            image = image.resize((width, height), Image.Resampling(self.resample))
        if self.crop is not None:
            image = _middle(image, *self.crop)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        values = (np.asarray(image, np.float32) * np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(values.transpose(2, 0, 1)[np.newaxis], np.float32)

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of every picture that it makes.

        Raises:
            ConfigurationError: They depend on the picture.
        """
        fixed = self.crop or self.size
        if not isinstance(fixed, tuple):
            raise ConfigurationError(f"{CONFIG} must bring all images to one size")
        return fixed

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, tuple):
            return self.size
        shortest = self.size or 1
        longest = int(shortest * max(height, width) / min(height, width))
        return (shortest, longest) if height <= width else (longest, shortest)


def _middle(image: Image.Image, height: int, width: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def read_processor(folder: Path) -> ImageProcessor:
    """Read a model folder's `preprocessor_config.json`.

    Raises:
        ConfigurationError: It is missing or malformed, or asks for a step that is not known.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
        return _processor_of(config)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(f"{path} does not say how images are prepared") from error


def _processor_of(config: Mapping[str, Any]) -> ImageProcessor:
    for step in ("do_image_splitting", "do_pan_and_scan", "do_pad"):
        if config.get(step):
            raise ConfigurationError(f"{CONFIG}: the step {step} is not known")
    crop = _size(config["crop_size"]) if config.get("do_center_crop", False) else None
    if isinstance(crop, int):
        crop = (crop, crop)
    normalizes = config.get("do_normalize", True)
    rescales = config.get("do_rescale", True)
    return ImageProcessor(
        size=_size(config["size"]) if config.get("do_resize", True) else None,
        crop=crop,
        resample=int(config.get("resample", BICUBIC)),
        scale=float(config.get("rescale_factor", 1 / 255)) if rescales else 1.0,
        mean=_channels(config["image_mean"]) if normalizes else (0.0, 0.0, 0.0),
        std=_channels(config["image_std"]) if normalizes else (1.0, 1.0, 1.0),
    )


def _size(value: Any) -> tuple[int, int] | int:  # whatever the file holds
    if isinstance(value, int):
        return value
    if "shortest_edge" in value:
        return int(value["shortest_edge"])
    return int(value["height"]), int(value["width"])


def _channels(values: Any) -> tuple[float, float, float]:  # whatever the file holds
    red, green, blue = map(float, values)
    return red, green, blue
