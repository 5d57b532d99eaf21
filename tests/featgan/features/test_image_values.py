from __future__ import annotations

import numpy as np
import pytest
from image_files import encode
from PIL import Image

from featgan.features.image_values import PIXEL_VALUES, edge_density, entropy, grey, jpeg_size


def flat(*levels: int) -> np.ndarray:
    """Grey images [n, 3, 4, 4] of one level each."""
    return np.repeat(np.array(levels, np.uint8), 48).reshape(-1, 3, 4, 4)


def test_grey_is_pillows() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 9, 9), np.uint8)
    expected = [np.asarray(Image.fromarray(i.transpose(1, 2, 0)).convert("L")) for i in images]

    assert np.array_equal(grey(images), expected)
    assert grey(flat(255, 0, 7))[:, 0, 0].tolist() == [255, 0, 7]


def test_entropy_counts_bits_of_grey_levels() -> None:
    halves, quarters = flat(10, 10)
    halves[:, :2] = 200
    quarters[:, 0], quarters[:, 1], quarters[:, 2] = 1, 2, 3
    three = flat(0)[0]
    three[:, :2], three[:, 2] = 50, 60  # shares of a half, a quarter and a quarter

    values = entropy(np.stack([flat(77)[0], halves, quarters, three]))
    assert values == pytest.approx([0, 1, 2, 1.5], abs=1e-12)


def test_edge_density_is_the_share_of_steps_over_16_levels() -> None:
    step, weak, corner = flat(100, 100, 100)
    step[:, :, 2:] = 117  # one of three columns of differences
    weak[:, :, 2:] = 116
    corner[:, 1, 1] = 112  # 12 across and 12 down: 17 along the gradient, at its own pixel alone

    assert edge_density(np.stack([flat(3)[0], step, weak, corner])) == pytest.approx(
        [0, 3 / 9, 0, 1 / 9]
    )


def test_jpeg_size_is_that_of_the_file_and_grows_with_detail() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    plain = np.full((3, 32, 32), 90, np.uint8)
    file = encode(Image.fromarray(noise.transpose(1, 2, 0)), "jpeg", quality=75)

    sizes = jpeg_size(np.stack([plain, noise]))
    assert sizes[1] == len(file)
    assert sizes[1] > sizes[0] + 500


@pytest.mark.parametrize("name", PIXEL_VALUES)
def test_a_value_does_not_depend_on_its_neighbours(name: str) -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 3, 32, 32), np.uint8)
    images[2] //= 4
    values = PIXEL_VALUES[name](images)

    assert values.dtype == np.float64
    assert len(set(values)) > 1
    for row in range(5):
        assert PIXEL_VALUES[name](images[row : row + 1]) == values[row]
