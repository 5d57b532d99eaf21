"""Reading, decoding, counting and packing as an actor does it, in this process."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from featgan.errors import UserError
from featgan.features.network import empty, load
from featgan.features.settings import FeatureSettings
from featgan.images.decode import decode, pixel_digest
from harness.counting import workers
from harness.counting.cache import NOT_COUNTED, EarlierCounts
from harness.counting.shards import Block
from harness.counting.workers import Counter, Job
from harness.sources import FolderSource
from harness.sources import folder as folders
from harness.storage.store import Store

FEATURES = FeatureSettings(weights="random", input_size=32)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    monkeypatch.setattr(workers.ray, "get", lambda reference: reference)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return [str(path).encode() for path in paths]


def job(folder: Path) -> Job:
    source = FolderSource(source="folder", path="/")
    return Job(Store(str(folder / "store")), "features/x", source, FEATURES, 16, {"device": "CPU"})


def batch(locations: list[bytes]) -> pa.Table:
    return pa.table({"block": [0], "locations": [locations]})


def decoded(job: Job, locations: list[bytes]) -> Block:
    """A block before its images are counted."""
    found = workers.decode_block(batch(locations), job, [EarlierCounts()])
    return Block.model_validate_json(found["block"][0].as_py())


@pytest.mark.parametrize(
    ("asked", "gpu", "expected"),
    [
        (None, False, (4, 4, 1.0)),
        (9, False, (9, 4, 1.0)),
        (None, True, (6, 6, 0.5)),
        (2, True, (2, 3, 1.0)),  # halves would share a GPU and leave two idle
        (3, True, (3, 3, 1.0)),
        (4, True, (4, 6, 0.5)),
    ],
)
def test_actors_share_gpus_only_where_there_are_more_of_them(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, gpu: bool, expected: tuple[int, int, float]
) -> None:
    monkeypatch.setattr(workers.ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 3.0})
    assert workers._room(asked, gpu) == expected


def test_known_counts_are_taken_and_not_made_again(images: list[bytes], tmp_path: Path) -> None:
    state = {name: tensor.numpy() for name, tensor in load(FEATURES).items()}
    digest = pixel_digest(decode(Path(images[1].decode()).read_bytes()))
    wrong = EarlierCounts().merged(np.array([digest], "S32"), np.array([4000]), [{"device": "GPU"}])

    def count(earlier: EarlierCounts) -> Block:
        weights: list[Any] = [(empty(FEATURES), state)]
        actor = Counter(job(tmp_path), weights, [earlier], gpu=False)
        return Block.model_validate_json(actor(batch(images))["block"][0].as_py())

    free, bound = count(EarlierCounts()), count(wrong)
    assert 1000 < min(free.counts) <= max(free.counts) < 3000
    assert bound.counts == [free.counts[0], 4000, free.counts[2]]
    assert (free.makers, bound.makers) == (
        [{"device": "CPU"}],
        [{"device": "GPU"}, {"device": "CPU"}],
    )
    assert free.shard == bound.shard


def failing(error: Exception) -> Callable[[bytes], bytes]:
    def read(_: bytes) -> bytes:
        raise error

    return read


@pytest.mark.guarantee(
    "Images",
    "An unreadable image is tried again; no other image is counted again",
)
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "no permission to read it"),
        (UserError("data: s3://b cannot be reached"), "cannot be read: data: s3://b cannot"),
        (OSError(errno.EIO, "Input/output\nerror"), "cannot be read: Input/output"),
        (MemoryError(), "cannot be read: MemoryError"),
    ],
)
def test_an_unreadable_image_is_not_a_bad_one(
    images: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(folders, "read", failing(error))
        found = decoded(job(tmp_path), images[:1])
    assert found.problems[0].startswith(reason)
    assert (found.unreadable, found.counts, found.shard) == ([0], [NOT_COUNTED], None)

    (tmp_path / "text.png").write_text("no image")
    found = decoded(job(tmp_path), [images[0], str(tmp_path / "text.png").encode()])
    assert found.problems == {1: "not an image that Pillow can read"}
    assert found.unreadable == []
    assert found.shard is not None
    assert found.shard.images == 1
