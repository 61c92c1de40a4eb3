"""Pictures as vision encoders were trained on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from provider_core import ConfigurationError
from provider_onnxruntime.image_processor import read_processor

CLIP = {
    "do_resize": True,
    "size": {"shortest_edge": 4},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 4, "width": 4},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.25, 0.0],
    "image_std": [0.5, 0.5, 1.0],
}


def process(folder: Path, pixels: np.ndarray, **changes: Any) -> np.ndarray:
    """Prepare a picture as a folder says."""
    (folder / "preprocessor_config.json").write_text(json.dumps({**CLIP, **changes}))
    return read_processor(folder)(pixels)


def plain(height: int, width: int) -> np.ndarray:
    """A picture of one colour."""
    return np.full((height, width, 3), (255, 0, 51), np.uint8)


def test_channels_are_scaled_and_normalised(tmp_path: Path) -> None:
    """Each with its own mean and deviation, channels first."""
    values = process(tmp_path, plain(8, 8))
    assert values.shape == (1, 3, 4, 4)
    assert values.dtype == np.float32
    assert np.allclose(values[0, :, 0, 0], [1.0, -0.5, 0.2])


@pytest.mark.parametrize("shape", [(40, 8), (8, 40), (4, 4), (5, 4)])
def test_the_shorter_side_decides_and_the_middle_is_kept(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    """As CLIP's processor does it."""
    assert process(tmp_path, plain(*shape)).shape == (1, 3, 4, 4)


def test_the_middle_is_the_middle(tmp_path: Path) -> None:
    """The ends of a long picture are cut off."""
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8] = 255
    values = process(tmp_path, pixels, do_resize=False, do_normalize=False)
    assert (values == 1).all()


def test_a_size_of_two_sides_is_taken_as_it_is(tmp_path: Path) -> None:
    """SigLIP's: the picture is stretched."""
    size = {"height": 6, "width": 2}
    assert process(tmp_path, plain(8, 9), size=size, do_center_crop=False).shape == (1, 3, 6, 2)


@pytest.mark.parametrize("shape", [(1, 16_384), (16_384, 1)])
def test_a_line_is_cut_before_it_is_enlarged(tmp_path: Path, shape: tuple[int, int]) -> None:
    """To 336 by 5.5 million pixels otherwise. What is left is its middle."""
    pixels = plain(*shape)
    pixels[:8000] = pixels[:, :8000] = 0
    pixels[shape[0] // 2 - 50 : shape[0] // 2 + 50, shape[1] // 2 - 50 : shape[1] // 2 + 50] = 255
    large = {"height": 336, "width": 336}
    values = process(tmp_path, pixels, size=336, crop_size=large, do_normalize=False)
    assert values.shape == (1, 3, 336, 336)
    assert (values == 1).all()


@pytest.mark.parametrize(
    "changes",
    [{"do_center_crop": False}, {"do_center_crop": False, "do_resize": False}],
)
def test_the_size_of_what_it_makes_is_known_or_refused(
    tmp_path: Path, changes: dict[str, bool]
) -> None:
    """Tokens are counted before a picture is looked at."""
    process(tmp_path, plain(4, 4))
    assert read_processor(tmp_path).output_size == (4, 4)
    process(tmp_path, plain(4, 4), **changes)
    with pytest.raises(ConfigurationError, match="one size"):
        _ = read_processor(tmp_path).output_size
