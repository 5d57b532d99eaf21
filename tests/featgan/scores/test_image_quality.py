"""Qualities of images small enough to work out by hand."""

import math

import numpy as np
import pytest

from featgan.scores import image_quality


def flat(*colours, size=4):
    """One image of one colour for each colour given."""
    pixels = np.array(colours, np.uint8)[:, :, None, None]
    return np.broadcast_to(pixels, (len(colours), 3, size, size)).copy()


def test_sharpness_is_the_gradient_of_the_luminance():
    ramp = np.zeros((2, 3, 5, 5), np.uint8)
    ramp[0] = np.arange(5) * 10  # 10 grey levels a pixel across
    ramp[1] = np.arange(5) * 3 + np.arange(5)[:, None] * 4  # 3 across, 4 down
    assert image_quality.sharpness(ramp) == pytest.approx([10, 5])
    assert image_quality.sharpness(flat((9, 9, 9))) == pytest.approx([0])


def test_sharpness_weighs_green_most():
    steps = np.zeros((3, 3, 2, 2), np.uint8)
    for channel in range(3):
        steps[channel, channel, :, 1] = 100
    assert image_quality.sharpness(steps) == pytest.approx([29.9, 58.7, 11.4])


def test_saturation_is_that_of_hsv():
    images = flat((255, 0, 0), (200, 100, 150), (80, 80, 80), (0, 0, 0))
    assert image_quality.saturation(images) == pytest.approx([1, 0.5, 0, 0])


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
    images = flat((0, 0, 0), (5, 5, 5), (100, 100, 100), (200, 200, 200))
    assert image_quality.near_duplicates(images) == 0.5
    apart = flat((0, 0, 0), (15, 15, 15))
    assert image_quality.near_duplicates(apart) == 0.0


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
    images = flat((0, 0, 0), (30, 30, 30))
    found = image_quality.measure(images, flat((0, 0, 0), (20, 20, 20)))
    assert (found.images, found.diversity, found.near_duplicates) == (2, 30, 0)
    assert found.nearest_training == pytest.approx(5)
    itself = image_quality.measure(images, images, same=True)
    assert itself.nearest_training == pytest.approx(30)
