"""Packs of images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featgan.images.pack import ImagePack, shard_bytes

LENGTHS = (2, 2, 1)


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Shards of five images; image i is filled with i."""
    paths = [tmp_path / f"{number}.npy" for number in range(len(LENGTHS))]
    pixels = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 8, 8), np.uint8)
    for path, images in zip(paths, np.split(pixels, [2, 4]), strict=True):
        path.write_bytes(shard_bytes(images))
    return paths


def test_rows_come_in_any_order_across_shards(shards: list[Path]) -> None:
    pack = ImagePack(shards, LENGTHS, np.arange(sum(LENGTHS)))
    assert (len(pack), pack.size) == (5, 8)
    assert pack.rows(np.array([4, 1, 2, 1]))[:, 0, 0, 0].tolist() == [4, 1, 2, 1]
    assert pack.rows(np.array([], int)).shape == (0, 3, 8, 8)


def test_open_shards_take_no_file_descriptors(shards: list[Path]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    pack = ImagePack(shards, LENGTHS, np.arange(sum(LENGTHS)))
    pack.rows(np.arange(5))
    assert len(os.listdir("/proc/self/fd")) == before


def test_images_are_in_another_order_than_their_shards(shards: list[Path]) -> None:
    pack = ImagePack(shards, LENGTHS, np.array([4, 0, 3]))
    assert len(pack) == 3
    assert pack.rows(np.array([0, 1, 2, 0]))[:, 0, 0, 0].tolist() == [4, 0, 3, 4]


def test_a_shard_is_a_file_that_numpy_reads(shards: list[Path]) -> None:
    load: Callable[[Path], np.ndarray] = np.load
    assert load(shards[1])[:, 0, 0, 0].tolist() == [2, 3]


def test_opening_a_pack_reads_no_pixels(shards: list[Path]) -> None:
    pack = ImagePack(shards, LENGTHS, np.arange(sum(LENGTHS)))
    with shards[0].open("r+b") as file:  # changed after opening, seen by reading
        file.seek(-1, os.SEEK_END)
        file.write(b"\x07")
    assert pack.rows(np.array([1]))[0, 2, 7, 7] == 7
