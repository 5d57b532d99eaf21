"""From a source to a data set in the store: feature table and image pack.

An interrupted count continues after its finished blocks, and an image that was counted before,
for any data set, is not counted again.
"""

import csv
import hashlib
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from featgan.digests import short_hash
from featgan.errors import UserError
from featgan.features import network
from featgan.features.counter import count_type
from featgan.features.settings import NAMED_WEIGHTS, FeatureSettings
from featgan.images.decode import DECODING, FORMATS, RESIZE
from harness.cluster import connect, machine
from harness.cluster.connect import Progress
from harness.counting import shards, workers
from harness.counting.cache import load_counts, save_counts
from harness.records.data_set import DataSet, load_rejected, read_data_set
from harness.sources import SourceSettings
from harness.sources.base import describe
from harness.sources.listing import Listing
from harness.storage.lock import SweepLock
from harness.storage.store import Store


@dataclass(frozen=True)
class DataSetBuilder:
    """Counts and packs one data set through Ray, which is initialised."""

    name: str
    source: SourceSettings
    features: FeatureSettings
    image_size: int
    store: Store
    _: KW_ONLY
    actors: int | None
    """Number of counting processes; None: two a GPU, or one a core."""
    gpu: bool
    max_rejected: float
    """Largest share of the images that may be unusable."""
    progress: Progress

    @cached_property
    def listing(self) -> Listing:
        """All images of the source."""
        listing, corrupt = Listing.of(self.source.find(self.image_size)), self.source.corrupt
        return listing.corrupted(corrupt) if corrupt else listing

    @cached_property
    def kind(self) -> dict[str, Any]:
        """All that decides the count of an image's bytes."""
        features = self.features
        return {
            "network": features.network,
            "layer": features.layer,
            # of a file its hash alone: moving it changes no count
            "weights": features.weights if features.weights in NAMED_WEIGHTS else "file",
            "weights_sha256": network.identity(features),
            "input_size": features.input_size,
            "preprocessing": features.trained_with,
            "resize": RESIZE,
            "decoding": DECODING,
            "formats": " ".join(FORMATS),
            "precision": "fp32",
        }

    @cached_property
    def key(self) -> str:
        """The data set's folder in the store."""
        made_of = self.listing.digest(), self.kind, self.image_size, self.source.remove_duplicates
        return f"features/{self.name}-{short_hash(*made_of)}"

    def build(self) -> DataSet:
        """Return the data set; reuse what is there.

        A data set with images that could not be read is not finished: these are tried again.
        Raises `UserError` if images or weights cannot be read, or too many images are unusable.
        """
        if not self._is_finished():
            count_type(self.features)  # reports an unknown layer before an image is read
            with SweepLock(self.store, self.key, notice=self._say, waits=True):
                if not self._is_finished():  # another sweep may just have done it
                    self._count_and_pack()
        skipped = self.listing.skipped
        asked = {"skipped": skipped, "held_out": self.source.held_out}
        data = read_data_set(self.store, self.key).model_copy(update=asked)
        rejected, found = load_rejected(self.store, data), self.listing.found
        listed = self.store.join(f"{self.key}/rejected.csv")
        self._check(rejected, found, listed)
        if len(rejected):
            self._say(f"{len(rejected)} of {found} images rejected: {listed}")
        if skipped:
            self._say(f"files skipped: {describe(skipped)}")
        return data

    def _say(self, text: str) -> None:
        self.progress(f"{self.name}: {text}", 0, None)

    def _is_finished(self) -> bool:
        exists = self.store.exists(f"{self.key}/dataset.json")
        return exists and not read_data_set(self.store, self.key).unreadable

    def _count_and_pack(self) -> None:
        """Count the blocks that are missing, and write the data set.

        A data set that is there already stays as it is until the new one can take its place.
        """
        side, total = max(self.image_size, self.features.input_size), len(self.listing.images)
        blocks = shards.Blocks(self.store, self.key, total, shards.block_length(total, side))
        so_far = f"{self.key}/rejected-so-far.csv"
        self._count(blocks)
        ids = self.listing.images["image_id"]
        reasons = self.listing.problems | {ids[row]: why for row, why in blocks.problems.items()}
        rejected = pd.DataFrame(sorted(reasons.items()), columns=["image_id", "reason"])
        if self._are_too_many(len(rejected)):
            self.store.put(so_far, _csv(rejected))
        looked_at = blocks.counted + len(self.listing.problems)
        self._check(rejected, looked_at, self.store.join(so_far))
        if missing := blocks.missing():
            raise RuntimeError(f"{self.name}: {len(missing)} blocks were not counted")
        self._put(blocks, rejected)
        self.store.delete(so_far)

    def _check(self, rejected: pd.DataFrame, looked_at: int, path: str) -> None:
        """Raise UserError if too many of the images looked at are rejected, or all.

        `path` is that of their list.
        """
        if not self._are_too_many(len(rejected)):
            return
        listed, first = self.listing.found, rejected.iloc[0]
        which = f"{listed}" if looked_at == listed else f"the first {looked_at} of {listed}"
        raise UserError(
            f"data.{self.name}: {len(rejected)} of {which} images cannot be used, more than "
            f"max_rejected ({self.max_rejected:.2%} of all) allows; first {first.image_id!r}: "
            f"{first.reason}; those found are in {path}: fix or remove them, "
            "or raise max_rejected"
        )

    def _are_too_many(self, rejected: int) -> bool:
        """Compare with what is allowed; in floats 29% of 100 are 28.999999999999996."""
        found = self.listing.found
        return rejected > int(self.max_rejected * found + 1e-6) or rejected == found

    def _count(self, blocks: shards.Blocks) -> None:
        """Count the missing blocks, until too many images turn out bad."""

        def is_over() -> bool:
            return self._are_too_many(len(self.listing.problems) + len(blocks.problems))

        what = f"{self.name}: counting features, to group the images by them"
        self.progress(what, blocks.counted, blocks.total)
        missing = blocks.missing()
        if not missing or is_over():
            return
        earlier = load_counts(self.store, self.kind)
        table = _table_of(self.listing.images["location"], blocks.length)
        if len(missing) < len(table):
            table = table.take(missing)
        maker = {"device": "GPU" if self.gpu else "CPU"} | machine.versions()
        job = workers.Job(self.store, self.key, self.source, self.features, self.image_size, maker)
        connect.await_room({"CPU": 1, "GPU": self.gpu / workers.PER_GPU}, self.progress)
        try:
            # closed, or actors outlive an interruption
            with closing(workers.count(job, table, earlier, self.actors, self.gpu)) as finished:
                del table  # it lies in Ray's store now
                for block in finished:
                    blocks.add(block)
                    self.progress(what, blocks.counted, blocks.total)
                    if is_over():
                        break
        finally:  # of an interrupted count as well, whose source may change
            good = blocks.counts >= 0
            if good.any():
                counts = earlier.merged(blocks.sha256, blocks.counts, blocks.makers)
                save_counts(self.store, self.kind, counts)

    def _put(self, blocks: shards.Blocks, rejected: pd.DataFrame) -> None:
        """Write the tables and, last, `dataset.json`, which makes the data set a finished one."""
        store, key, images = self.store, self.key, self.listing.images
        kept = shards.in_order(images["label"], blocks)
        duplicates = shards.find_duplicates(images["image_id"], kept, blocks.sha256)
        if self.source.remove_duplicates:
            kept = np.delete(kept, duplicates.index)
        else:
            duplicates = duplicates.iloc[:0]
        table, content = shards.feature_table(images, blocks, kept, count_type(self.features))
        rejections = _csv(rejected)
        made = {"weights": self.features.weights, "versions": machine.versions()}
        data_set = DataSet(
            name=self.name,
            key=key,
            digest=short_hash(content, self.image_size, RESIZE, DECODING),
            images=len(kept),
            rejected=len(rejected),
            duplicates=len(duplicates),
            classes=tuple(sorted(images["label"].iloc[kept].dropna().unique())),
            matched=self.listing.matched,
            protocol=self.kind | made | {"made_with": blocks.makers},
            table_sha256=hashlib.sha256(table).hexdigest(),
            rejected_sha256=hashlib.sha256(rejections).hexdigest(),
            unreadable=blocks.unreadable,
            shards=blocks.shards,
        )
        if store.exists(f"{key}/dataset.json") and read_data_set(store, key) == data_set:
            return
        store.delete(f"{key}/dataset.json")
        store.put(f"{key}/rejected.csv", rejections)
        store.put(f"{key}/duplicates.csv", _csv(duplicates.sort_values("image_id")))
        store.put(f"{key}/features.parquet", table)
        store.put(f"{key}/dataset.json", data_set.to_json())
        listed = {f"{key}/pack/{shard.file}" for shard in blocks.shards}
        for file in {*store.list(f"{key}/pack")} - listed:  # of images that could not be read then
            store.delete(file)


def _table_of(locations: pd.Series, length: int) -> pa.Table:
    """Return a table with the number (`block`) and the image `locations` of each block."""
    starts = np.arange(0, len(locations), length)
    offsets = pa.array([*starts, len(locations)], pa.int64())
    places = pa.chunked_array(pa.array(locations)).combine_chunks()
    lists = pa.LargeListArray.from_arrays(offsets, places)
    return pa.table({"block": np.arange(len(starts)), "locations": lists})


def _csv(table: pd.DataFrame) -> bytes:
    """Return a CSV file with all text in quotes: names may hold carriage returns."""
    return table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC).encode()
