"""Reading, decoding and counting as an actor does it, in this process and without Ray."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from featgan.errors import UserError
from featgan.features.network import load
from featgan.features.settings import FeatureSettings
from harness.counting import workers
from harness.counting.cache import NOT_COUNTED, Known
from harness.counting.workers import Counter, Decoder
from harness.sources import FolderSource

NOTHING = Known.of(pd.DataFrame({"sha256": [], "feature_count": []}))
FEATURES = FeatureSettings(weights="random", input_size=32)


@pytest.fixture
def images(tmp_path: Path) -> list[bytes]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return [str(path).encode() for path in paths]


def decoder(known: Known = NOTHING, read: Callable[[bytes], bytes] | None = None) -> Decoder:
    made = Decoder(FolderSource(source="folder", path="/"), 32, 16, known)
    if read:
        made._read = read
    return made


def batch(locations: list[bytes]) -> workers.Batch:
    places = np.array(locations, object)
    return {"index": np.arange(len(places)), "location": places}


@pytest.mark.parametrize(
    ("asked", "gpu", "expected"),
    [
        (None, False, (4, 4, 0.0)),
        (9, False, (9, 4, 0.0)),
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


@pytest.mark.parametrize(
    ("images", "actors", "blocks", "length"),
    [(20, 2, 3, 8), (4096, 2, 512, 8), (100_000, 2, 521, 192), (100_000, 64, 2084, 48)],
)
def test_blocks_are_whole_batches_and_do_not_grow_in_number(
    images: int, actors: int, blocks: int, length: int
) -> None:
    rows = pd.DataFrame({"index": range(images), "location": [b"x"] * images})
    found = workers._blocks(rows, actors, batch=8)

    assert (len(found), found[0].num_rows) == (blocks, length)
    assert pa.concat_tables(found)["index"].to_pylist() == list(range(images))


def test_known_counts_are_taken_and_not_made_again(
    images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {name: tensor.numpy() for name, tensor in load(FEATURES).items()}
    monkeypatch.setattr(workers.ray, "get", lambda reference: reference)
    weights: list[Any] = [state]
    digest = hashlib.sha256(Path(images[1].decode()).read_bytes()).hexdigest()
    wrong = Known.of(pd.DataFrame({"sha256": [digest], "feature_count": [4000]}))

    free = Counter(FEATURES, weights, decoder(), gpu=False)(batch(images))["count"].tolist()
    bound = Counter(FEATURES, weights, decoder(wrong), gpu=False)(batch(images))["count"].tolist()
    assert 1000 < min(free) <= max(free) < 3000
    assert bound == [free[0], 4000, free[2]]


def failing(*errors: Exception) -> Callable[[bytes], bytes]:
    left = list(errors)

    def read(location: bytes) -> bytes:
        if left:
            raise left.pop(0)
        return Path(location.decode()).read_bytes()

    return read


@pytest.mark.guarantee(
    "Images",
    "An unreadable image is tried again; no other image is counted again",
)
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, None])
def test_a_storage_that_stumbles_is_asked_again(
    number: int | None, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.time, "sleep", lambda _: None)
    stumble = OSError(number, "stumbled") if number else OSError("stumbled")
    found = decoder(read=failing(stumble, stumble)).decode(batch(images[:1]))

    assert (found["problem"][0], found["unreadable"].tolist()) == ("", [False])


@pytest.mark.guarantee(
    "Images",
    "Storage that stays unreachable is waited for once, not for each image",
)
def test_unreachable_storage_is_waited_for_once(
    images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(workers.time, "sleep", waited.append)
    monkeypatch.setattr(Decoder, "_waited", 0.0)
    read = failing(*(OSError(errno.EIO, "gone") for _ in range(200)))
    found = decoder(read=read)
    lost = [decoder(read=read).problem(images[0]) for _ in range(60)]  # as Ray's tasks have them

    assert set(lost) == {"cannot be read: gone"}
    assert 120 <= sum(waited) < 125  # seconds, where each image alone would have cost four
    while found.problem(images[0]):
        pass
    stumbling = failing(OSError(errno.EIO, "gone"))
    found._read = stumbling  # once one could be read, there is patience again
    assert found.problem(images[0]) == ""


def test_what_cannot_be_read_is_told_apart_from_what_is_bad(
    images: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.time, "sleep", lambda _: None)
    for error, reason in (
        (PermissionError(errno.EACCES, "Permission denied"), "no permission to read it"),
        (UserError("data: s3://b cannot be reached"), "cannot be read: data: s3://b cannot"),
    ):
        found = decoder(read=failing(error)).decode(batch(images[:1]))
        assert found["problem"][0].startswith(reason)
        assert found["unreadable"].tolist() == [True]
    gone = OSError(errno.EIO, "Input/output\nerror")
    assert decoder(read=failing(*[gone] * 9)).decode(batch(images[:1]))["unreadable"].all()

    (tmp_path / "text.png").write_text("no image")
    found = decoder().decode(batch([str(tmp_path / "text.png").encode()]))
    assert found["problem"][0] == "not an image that Pillow can read"
    assert not found["unreadable"].any()
    assert found["count"].tolist() == [NOT_COUNTED]


def test_actors_asked_for_wait_for_a_cluster_that_grows() -> None:
    pools = [workers._pool(actors, fit) for actors, fit in ((8, 1), (2, 2), (1, 4))]

    assert [(pool.min_size, pool.max_size) for pool in pools] == [(1, 8), (2, 2), (1, 1)]
