"""Qualities of images small enough to work out by hand."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from featgan.scores import image_quality


def flat(*colours, size=4):
    """One image of one colour for each colour given."""
    pixels = np.array(colours, np.uint8)[:, :, None, None]
    return np.broadcast_to(pixels, (len(colours), 3, size, size)).copy()


def test_outlines_by_hand():
    images = np.zeros((3, 3, 20, 20), np.uint8)
    images[0] = np.arange(20) * 3 + np.arange(20)[:, None] * 4  # a ramp
    # 1 change to the next pixel; over 4 pixels 4 across and, 1 pixel along, 3 on the diagonals
    images[1, :, :, 10:] = 100
    assert image_quality.outlines(images) == pytest.approx([1 / 4, 4 / 7, 0])


def shapes(random, count=20, size=64):
    """Return images of half planes, 10 to 35 grey levels brighter than what they cover."""
    places = np.mgrid[: 4 * size, : 4 * size] / (4 * size)
    images = np.full((count, 4 * size, 4 * size), 60.0)
    for image in images:
        for _ in range(4):
            angle, centre = random.uniform(0, np.pi), random.uniform(0.3, 0.7, (2, 1, 1))
            across, down = places - centre
            image[across * np.cos(angle) + down * np.sin(angle) > 0] += random.uniform(10, 35)
    return images.reshape(count, size, 4, size, 4).mean(axis=(2, 4))


def test_outlines_are_blurred_but_not_changed_by_contrast_or_noise():
    random = np.random.default_rng(0)
    drawn = shapes(random)
    noise = random.normal(0, 5, drawn.shape)
    blurred = gaussian_filter(drawn, (0, 1, 1))

    def measured(images):
        pixels = np.rint(images).clip(0, 255).astype(np.uint8)
        return image_quality.outlines(pixels[:, None].repeat(3, 1)).mean()

    sharp = measured(drawn)
    assert measured(blurred) < 0.8 * sharp
    assert measured(blurred + noise) < 0.8 * sharp
    assert measured(drawn / 2) == pytest.approx(sharp, rel=0.01)
    assert measured(drawn + 30) == pytest.approx(sharp, rel=0.01)
    assert measured(drawn + noise) == pytest.approx(sharp, rel=0.05)
    assert measured(128 + 8 * noise) < 0.25 * sharp  # noise alone


def test_outlines_hardly_depend_on_their_direction():
    places = np.mgrid[-12 : 12 : 1 / 8, -12 : 12 : 1 / 8] + 0.3  # 8 points in each pixel
    images = np.stack(
        [np.cos(angle) * places[0] + np.sin(angle) * places[1] > 0 for angle in np.arange(8) / 2.5]
    )
    pixels = (200 * images.reshape(8, 24, 8, 24, 8).mean(axis=(2, 4))).astype(np.uint8)
    found = image_quality.outlines(pixels[:, None].repeat(3, 1))
    assert found.max() < 1.2 * found.min()


def test_colour_is_chroma_and_continuous_at_black():
    images = flat((255, 0, 0), (200, 100, 150), (80, 80, 80), (2, 0, 0))
    assert image_quality.colour(images) == pytest.approx([255, 100, 0, 2])


def test_colourfulness_of_hasler_and_suesstrunk():
    half = flat((255, 0, 0), (90, 90, 90))
    half[0, :, :, 2:] = np.array([0, 0, 255])[:, None, None]  # left red, right blue
    # rg is 255 or 0: mean 127.5, deviation 127.5; yb is 127.5 or -255: -63.75 and 191.25.
    expected = math.hypot(127.5, 191.25) + 0.3 * math.hypot(127.5, 63.75)
    assert image_quality.colourfulness(half) == pytest.approx([expected, 0])


def test_distance_is_rms_in_grey_levels():
    images = flat((0, 0, 0), (30, 30, 30), (30, 0, 0))
    expected = [[0, 30, 30 / math.sqrt(3)], [30, 0, 30 * math.sqrt(2 / 3)]]
    assert image_quality.distances(images[:2], images)[:, 1] == pytest.approx([30, 0])
    assert image_quality.distances(images[:2], images) == pytest.approx(np.array(expected))


def test_detail_below_the_compared_size_is_no_distance():
    fine = np.zeros((2, 3, 64, 64), np.uint8)
    fine[0, :, ::2] = 200
    fine[1, :, 1::2] = 200
    assert image_quality.distances(fine[:1], fine[1:]) == pytest.approx(np.zeros((1, 1)))


def test_diversity_is_the_mean_over_pairs():
    images = flat((0, 0, 0), (10, 10, 10), (40, 40, 40))
    assert image_quality.diversity(images) == pytest.approx((10 + 40 + 30) / 3)
    assert math.isnan(image_quality.diversity(images[:1]))


def test_near_duplicates_are_counted_as_images():
    images = flat((0, 0, 0), (5, 5, 5), (100, 100, 100), (200, 200, 200), size=20)
    assert image_quality.measure(images, images).near_duplicates == 0.5
    apart = flat((0, 0, 0), (15, 15, 15), size=20)
    assert image_quality.measure(apart, apart).near_duplicates == 0.0


def test_nearest_training_image_finds_copies_across_blocks():
    training = np.arange(2500, dtype=np.uint16)
    pixels = np.stack([training % 250, training // 250 * 20, training % 7], 1).astype(np.uint8)
    training = flat(*pixels, size=1)
    assert image_quality.nearest(training[[3, 1700, 2499]], training) == pytest.approx([0, 0, 0])
    alone = image_quality.nearest(training, training, same=True)
    brute = image_quality.distances(training[1700:1701], np.delete(training, 1700, 0)).min()
    assert alone[1700] == pytest.approx(brute)
    assert alone[1700] > 0


def test_all_qualities_at_once():
    images = flat((0, 0, 0), (30, 30, 30), size=12)
    found = image_quality.measure(images, flat((0, 0, 0), (20, 20, 20), size=12))
    assert (found.images, found.diversity, found.near_duplicates) == (2, 30, 0)
    assert found.nearest_training == pytest.approx(5)
    itself = image_quality.measure(images, images, same=True)
    assert itself.nearest_training == pytest.approx(30)
