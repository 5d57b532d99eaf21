from __future__ import annotations

import errno
import json
import os
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
import torch
from noise import FEATURES, IMAGES, draw, run
from PIL import Image
from ray import cloudpickle
from torchvision import transforms
from torchvision.models import vgg16

from featgan.errors import UserError
from featgan.features.counter import FeatureCounter
from featgan.features.network import load
from featgan.features.settings import FeatureSettings
from featgan.images.decode import decode, pixel_digest, square
from harness.counting import workers
from harness.counting.cache import EarlierCounts
from harness.counting.workers import Counter
from harness.records.data_set import DataSet, data_record, load_rejected, load_table, open_pack
from harness.sources import FolderSource
from harness.storage.store import Store


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return draw(tmp_path / "photos")


Counted = tuple[Path, Store, DataSet, list[tuple[str, int, int | None]]]


@pytest.fixture(scope="module")
def counted(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Counted:
    """Images, the store they were counted into by two actors, and what the screen was given."""
    scratch = tmp_path_factory.mktemp("counted")
    folder, store = draw(scratch / "photos"), Store(str(scratch / "store"))
    shown: list[tuple[str, int, int | None]] = []
    data = run(folder, store, actors=2, progress=lambda *progress: shown.append(progress))
    return folder, store, data, shown


class Interrupted(Exception):
    pass


def plain_loop(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts by torchvision's network and transforms, one image at a time.

    And how many outputs of each image lie within rounding of zero.
    """
    network = vgg16(weights=None, init_weights=False).eval()
    network.load_state_dict(load(FEATURES), strict=False)
    network.classifier = network.classifier[:1]
    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    counts, undecided = [], []
    for pixels in inputs.transpose(0, 2, 3, 1):
        with torch.inference_mode():
            outputs = network(normalize(transforms.functional.to_tensor(pixels))[None])
        counts.append(int((outputs > 0).sum()))
        undecided.append(int((outputs.abs() < 1e-5 * outputs.abs().max()).sum()))
    return np.array(counts), np.array(undecided)


def test_table_and_pack_are_a_plain_loops_image_by_image(counted: Counted) -> None:
    photos, store, data, shown = counted
    table = load_table(store, data.key)
    packed = open_pack(store, data.key).rows(np.argsort(table["image_id"]))
    assert table["sha256"].is_monotonic_increasing
    table = table.sort_values("image_id")

    files = sorted(photos.iterdir())
    counter = FeatureCounter(FEATURES, torch.device("cpu"))
    images = [decode(file.read_bytes()) for file in files]
    inputs = np.stack([square(image, 32) for image in images])
    counts = counter.count(inputs[::-1])[::-1].tolist()
    assert table["image_id"].tolist() == [file.name for file in files]
    assert table["feature_count"].tolist() == counts
    assert len(set(counts)) > 5
    plain, undecided = plain_loop(inputs)
    assert (np.abs(table["feature_count"] - plain) <= undecided).all()
    assert undecided.mean() < 1
    assert table["sha256"].tolist() == [pixel_digest(image).hex() for image in images]
    assert np.array_equal(packed, np.stack([square(image, 16) for image in images]))
    what = "photos: counting features, to group the images by them"
    assert shown[0] == (what, 0, IMAGES)
    assert shown[-1] == (what, IMAGES, IMAGES)
    assert (data.images, data.rejected, data.duplicates) == (IMAGES, 0, 0)

    again = run(photos, store, progress=lambda *_: pytest.fail("counted again"))
    assert again == data

    record = data_record(store, data, FolderSource(source="folder", path=str(photos)))
    assert record.protocol["weights_sha256"] == "random, seed 0"
    assert record.protocol["versions"]["torch"] == version("torch")
    assert json.loads(record.to_json())["digest"] == data.digest


def test_decoding_tasks_feed_counting_actors_on_a_shared_gpu(
    counted: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of a machine with GPUs, but that the network is on the CPU."""
    photos, _, data, _ = counted
    counter, count = workers.counter, Counter.__call__

    def on_cpu(settings: FeatureSettings, weights: Any, gpu: bool) -> FeatureCounter:
        assert gpu
        assert ray.get_gpu_ids() == [0]
        return counter(settings, weights, False)

    def of_decoded(actor: Counter, batch: pa.Table) -> pa.Table:
        assert not actor._decodes
        return count(actor, batch)

    monkeypatch.setattr(workers, "counter", on_cpu)
    monkeypatch.setattr(Counter, "__call__", of_decoded)
    cloudpickle.register_pickle_by_value(workers)
    try:
        found = run(photos, Store(str(tmp_path / "store")), actors=None, gpu=True)
    finally:
        cloudpickle.unregister_pickle_by_value(workers)
    assert (found.images, found.digest) == (IMAGES, data.digest)


def test_weights_lie_once_in_a_machines_shared_memory(ray_session: None) -> None:
    weights = workers.shared_weights(FEATURES)

    @ray.remote(num_cpus=1)
    def places(weights: list[ray.ObjectRef]) -> set[str]:
        """What the network's parameters are mapped from: device, inode and path."""
        network = workers.counter(FEATURES, weights, False)._network
        starts = [parameter.data_ptr() for parameter in network.parameters()]
        found = set()
        for line in Path("/proc/self/maps").read_text().splitlines():
            bounds, _, _, *file = line.split()
            low, high = (int(bound, 16) for bound in bounds.split("-"))
            if any(low <= start < high for start in starts):
                found.add(" ".join(file))
        return found

    first, second = ray.get([places.remote(weights) for _ in range(2)])
    assert len(first) == 1
    assert first == second
    assert "plasma" in first.pop()


@pytest.mark.usefixtures("ray_session")
def test_bad_images_and_duplicates_are_listed(photos: Path, tmp_path: Path) -> None:
    (photos / "00 empty.jpg").touch()
    (photos / 'line\nbreak, "quoted".png').write_bytes((photos / "03.png").read_bytes()[:200])
    (photos / "gone.png").symlink_to("nowhere")
    (photos / "unreadable.png").symlink_to("/proc/self/mem")  # a file that not even root can read
    (photos / "copy of 05.png").write_bytes((photos / "05.png").read_bytes())
    store = Store(str(tmp_path / "store"))
    data = run(photos, store, remove_duplicates=True)

    rejected = load_rejected(store, data).set_index("image_id")["reason"]
    assert rejected["00 empty.jpg"] == "empty file"
    assert rejected["gone.png"] == "link to a file that does not exist"
    assert rejected['line\nbreak, "quoted".png'].startswith("damaged PNG")
    assert rejected["unreadable.png"] == "cannot be read: Input/output error"
    assert (data.images, data.rejected, data.duplicates) == (IMAGES, 4, 1)
    duplicates = pd.read_csv(store.local(f"{data.key}/duplicates.csv"))
    assert duplicates.to_dict("records") == [{"image_id": "copy of 05.png", "same_as": "05.png"}]
    pack = open_pack(store, data.key)
    image_ids = load_table(store, data.key)["image_id"].tolist()
    shown = square(decode((photos / "07.png").read_bytes()), 16)
    assert np.array_equal(pack.rows(np.array([image_ids.index("07.png")]))[0], shown)

    assert data.unreadable == 1
    with pytest.raises(
        UserError, match=r"4 of 25 images cannot be used.*rejected-so-far\.csv"
    ) as caught:
        run(photos, store, remove_duplicates=True, max_rejected=0.1)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("ray_session")
def test_an_interrupted_count_repeats_no_finished_block(
    counted: Counted, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.counting.shards.SMALLEST", 5)
    store = Store(str(tmp_path / "store"))

    def stop(_: str, done: int, __: int | None) -> None:
        if done >= 10:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(photos, store, progress=stop)
    shown: list[int] = []
    data = run(photos, store, progress=lambda _, done, __: shown.append(done))

    assert shown[0] >= 10
    # for any number of actors, order, interruption, length of blocks and store
    assert data.digest == counted[2].digest


@pytest.mark.usefixtures("ray_session")
def test_changed_source_counts_only_what_changed(
    counted: Counted, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store, before, _ = counted
    count, known = workers.count, list[EarlierCounts]()

    def spy(job: Any, blocks: Any, earlier: EarlierCounts, *more: Any) -> Any:
        known.append(earlier)
        return count(job, blocks, earlier, *more)

    monkeypatch.setattr(workers, "count", spy)
    os.utime(photos / "00.png", (1, 1))  # touched, not changed
    (photos / "01.png").rename(photos / "99.png")
    Image.new("RGB", (30, 30), "red").save(photos / "02.png")
    after = run(photos, store)

    tables = [load_table(store, data.key).set_index("image_id") for data in (before, after)]
    assert after.key != before.key
    new = set(tables[1]["sha256"]) - set(tables[0]["sha256"])
    assert len(new) == 1
    assert known[0].get(bytes.fromhex(new.pop())) == -1
    for sha256, found in zip(tables[0]["sha256"], tables[0]["feature_count"], strict=True):
        assert known[0].get(bytes.fromhex(sha256)) == found
    assert tables[1].loc["99.png", "feature_count"] == tables[0].loc["01.png", "feature_count"]


@pytest.mark.usefixtures("ray_session")
def test_a_full_disk_of_a_worker_is_an_error_of_the_storage(photos: Path, tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[Full.__module__])
    store = Full(str(tmp_path / "store"))
    with pytest.raises(OSError, match="No space left on device"):
        run(photos, store)


class Full(Store):
    """A store whose disk is full of images."""

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Full, (self.root,)

    def put(self, key: str, data: bytes) -> None:
        if "/pack/" in key:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), key)
        super().put(key, data)


class Killing(FolderSource):
    """A folder one of whose images ends the process that reads it, as a full memory would."""

    def read(self, location: bytes) -> bytes:
        if location.endswith(b"07.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        return Path(os.fsdecode(location)).read_bytes()


@pytest.mark.guarantee(
    "Images",
    "An image that kills its process ends the count with one line after four deaths; counts "
    "are kept",
)
def test_an_image_that_kills_its_process_ends_the_count(
    ray_session: None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "RETRIES", 1)
    cloudpickle.register_pickle_by_value(sys.modules[Killing.__module__])
    killing = Killing(source="folder", path=str(photos))
    with pytest.raises(UserError, match="died 2 times over the same images"):
        run(photos, Store(str(tmp_path / "store")), source=killing)
