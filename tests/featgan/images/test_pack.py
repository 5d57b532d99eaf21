from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from featgan.images import pack as images
from featgan.images.pack import ImagePack


def numbered(count: int) -> np.ndarray:
    """Image i is filled with i."""
    return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 8, 8), np.uint8)


def test_pack_keeps_order_across_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "SHORTEST", 2)
    some = numbered(5)
    written = ImagePack.write(tmp_path, list("abcde"), [some[:1], some[1:1], some[1:]])
    pack = ImagePack.open(tmp_path)

    assert len([*tmp_path.glob("*.npy")]) == 3
    assert (len(pack), pack.size, pack.image_ids.tolist()) == (5, 8, list("abcde"))
    assert pack.rows(np.array([4, 1, 2, 1]))[:, 0, 0, 0].tolist() == [4, 1, 2, 1]
    assert written.rows(np.array([], int)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("lengths", [[7], [3, 4], [1] * 7, [2, 5], [5, 0, 2]])
def test_a_packs_shards_are_few_however_its_images_come(
    lengths: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "SHORTEST", 1)
    monkeypatch.setattr(images, "MOST_SHARDS", 3)
    pieces = np.split(numbered(7), np.cumsum(lengths)[:-1])
    ImagePack.write(tmp_path / "pack", list("abcdefg"), iter(pieces))

    shards = sorted((tmp_path / "pack").glob("*.npy"))
    for shard, expected in zip(shards, np.split(numbered(7), [3, 6]), strict=True):
        np.save(tmp_path / "expected.npy", expected)
        assert shard.read_bytes() == (tmp_path / "expected.npy").read_bytes()


def test_opening_a_pack_reads_no_pixels(tmp_path: Path) -> None:
    ImagePack.write(tmp_path, list("ab"), [np.zeros((2, 3, 8, 8), np.uint8)])
    pack = ImagePack.open(tmp_path)
    shard = tmp_path / "00000.npy"
    with shard.open("r+b") as file:  # changed after opening, seen by reading
        file.seek(-1, os.SEEK_END)
        file.write(b"\x07")

    assert pack.rows(np.array([1]))[0, 2, 7, 7] == 7
