"""From a source to a data set in the store: feature table and image pack.

An interrupted count continues after its finished blocks, and an image that was counted before,
for any data set, is not counted again.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from featgan.digests import short_hash
from featgan.errors import UserError
from featgan.features import network
from featgan.features.counter import count_type
from featgan.features.settings import PAPER_LAYER, FeatureSettings
from featgan.images.decode import DECODING, RESIZE
from harness.counting import workers
from harness.counting.cache import load_counts, save_counts
from harness.counting.feature_table import NO_DUPLICATES, feature_table, find_duplicates
from harness.counting.shards import Blocks, block_length
from harness.records.data_set import (
    DataSet,
    load_rejected,
    put_data_set,
    put_record,
    read_data_set,
)
from harness.sources import SourceSettings
from harness.sources.listing import Listing
from harness.storage.lock import SweepLock
from harness.storage.store import Store

Progress = Callable[[str, int, int | None], None]
"""Called with the data set, images done and images in all."""


def prepare(
    name: str,
    source: SourceSettings,
    features: FeatureSettings,
    image_size: int,
    store: Store,
    *,
    actors: int | None,
    gpu: bool,
    max_rejected: float,
    progress: Progress,
) -> DataSet:
    """Count and pack a data set through Ray, which is initialised; reuse what is there.

    `actors` is the number of counting processes (None: two a GPU, or one a core). A data set
    with images that could not be read is not finished: these are tried again. Raises `UserError`
    if images or weights cannot be read, or more than `max_rejected` of the images are unusable.
    """
    count_type(features)  # reports an unknown network or layer before anything is read
    listing, kind = source.listing(image_size), _kind(features)
    made_of = short_hash(listing.digest(), kind, image_size, source.remove_duplicates)
    key = f"features/{name}-{made_of}"
    job = workers.Job(store, key, source, features, image_size, _maker(gpu))
    count = _Count(name, job, listing, kind, max_rejected, progress)
    if not _is_finished(store, key):
        with SweepLock(store, key, notice=lambda text: progress(text, 0, None)):
            if not _is_finished(store, key):  # another sweep may just have done it
                count.carry_out(actors, gpu)
    data = read_data_set(store, key)
    rejected = load_rejected(store, data)
    count.check(rejected, listing.found, f"{key}/rejected.csv")
    if len(rejected):
        path = store.join(f"{key}/rejected.csv")
        progress(f"{name}: {len(rejected)} of {listing.found} images rejected: {path}", 0, None)
    return data


def _is_finished(store: Store, key: str) -> bool:
    return store.exists(f"{key}/dataset.json") and not read_data_set(store, key).unreadable


@dataclass(frozen=True)
class _Count:
    """The count of one data set."""

    name: str
    job: workers.Job
    listing: Listing
    kind: dict[str, Any]
    """All that decides the count of an image's bytes."""
    max_rejected: float
    progress: Progress

    def carry_out(self, actors: int | None, gpu: bool) -> None:
        """Count the blocks that are missing, and write the data set.

        A data set that is there already stays as it is until the new one can take its place.
        """
        store, key, total = self.job.store, self.job.key, len(self.listing.images)
        side = max(self.job.image_size, self.job.features.input_size)
        blocks = Blocks(store, key, total, block_length(total, side))
        so_far = f"{key}/rejected-so-far.csv"
        if self._allowed >= len(self.listing.problems):
            self._count(blocks, actors, gpu)
        rejected = self._rejected(blocks)
        looked_at = int(blocks.counted.sum()) + len(self.listing.problems)
        if self._are_too_many(rejected):
            store.put(so_far, _csv(rejected))
        self.check(rejected, looked_at, so_far)
        if missing := blocks.missing():
            raise RuntimeError(f"{self.name}: {len(missing)} blocks were not counted")
        self._put(blocks, rejected)
        store.delete(so_far)

    def check(self, rejected: pd.DataFrame, looked_at: int, key: str) -> None:
        """Raise UserError if too many of the images looked at are rejected, or all.

        `key` is that of their list.
        """
        if not self._are_too_many(rejected):
            return
        listed, first = self.listing.found, rejected.iloc[0]
        which = f"{listed}" if looked_at == listed else f"the first {looked_at} of {listed}"
        raise UserError(
            f"data.{self.name}: {len(rejected)} of {which} images cannot be used, more than "
            f"max_rejected ({self.max_rejected:.2%} of all) allows; first {first.image_id!r}: "
            f"{first.reason}; those found are in {self.job.store.join(key)}: fix or remove them, "
            "or raise max_rejected"
        )

    @property
    def _allowed(self) -> int:
        """Most images that may be rejected; in floats 29% of 100 are 28.999999999999996."""
        return int(self.max_rejected * self.listing.found + 1e-6)

    def _are_too_many(self, rejected: pd.DataFrame) -> bool:
        return len(rejected) > self._allowed or len(rejected) == self.listing.found

    def _count(self, blocks: Blocks, actors: int | None, gpu: bool) -> None:
        """Count the missing blocks, until too many images turn out bad."""
        store, limit = self.job.store, self._allowed - len(self.listing.problems)
        self.progress(self.name, int(blocks.counted.sum()), blocks.total)
        missing = blocks.missing()
        if not missing or len(blocks.problems) > limit:
            return
        earlier = load_counts(store, self.kind)
        table = _table_of(self.listing.images["location"], blocks, missing)
        try:
            # closed, or actors outlive an interruption
            with closing(workers.count(self.job, table, earlier, actors, gpu)) as finished:
                del table  # it lies in Ray's store now
                for block in finished:
                    blocks.add(block)
                    self.progress(self.name, int(blocks.counted.sum()), blocks.total)
                    if len(blocks.problems) > limit:
                        break
        finally:  # of an interrupted count as well, whose source may change
            good = blocks.counts >= 0
            if good.any():
                counts = earlier.merged(blocks.sha256[good], blocks.counts[good], blocks.makers)
                save_counts(store, self.kind, counts)

    def _rejected(self, blocks: Blocks) -> pd.DataFrame:
        """Return the images without a count: image_id, reason; sorted by image_id."""
        ids = self.listing.images["image_id"]
        reasons = self.listing.problems | {ids[row]: why for row, why in blocks.problems.items()}
        return pd.DataFrame(sorted(reasons.items()), columns=["image_id", "reason"])

    def _put(self, blocks: Blocks, rejected: pd.DataFrame) -> None:
        """Write the tables and, last, `dataset.json`, which makes the data set a finished one."""
        job, images, good = self.job, self.listing.images, blocks.counts >= 0
        store, key, keep = job.store, job.key, good.copy()
        duplicates = NO_DUPLICATES
        if job.source.remove_duplicates:
            duplicates = find_duplicates(images, blocks.sha256, good)
            keep[duplicates.index] = False
        kept = np.flatnonzero(keep)
        table, content = feature_table(images, blocks, kept, count_type(job.features))
        rejections = _csv(rejected)
        data_set = DataSet(
            name=self.name,
            key=key,
            digest=short_hash(content, job.image_size, RESIZE, DECODING),
            images=len(kept),
            rejected=len(rejected),
            duplicates=len(duplicates),
            classes=tuple(sorted(images["label"].iloc[kept].dropna().unique())),
            matched=self.listing.matched,
            table_sha256=hashlib.sha256(table).hexdigest(),
            rejected_sha256=hashlib.sha256(rejections).hexdigest(),
            unreadable=blocks.unreadable,
            shards=blocks.shards,
            left_out=tuple((np.cumsum(good) - 1)[duplicates.index].tolist()),
        )
        if store.exists(f"{key}/dataset.json") and read_data_set(store, key) == data_set:
            return
        store.delete(f"{key}/dataset.json")
        store.put(f"{key}/rejected.csv", rejections)
        store.put(f"{key}/duplicates.csv", _csv(duplicates))
        store.put(f"{key}/features.parquet", table)
        versions = {name: text for name, text in job.maker.items() if name != "device"}
        made = {"weights": job.features.weights, "versions": versions, "made_with": blocks.makers}
        put_record(store, key, "protocol.json", self.kind | made)
        put_data_set(store, data_set)
        listed = {f"{key}/pack/{shard.file}" for shard in blocks.shards}
        for file in store.list(f"{key}/pack"):
            if file not in listed:  # of images that could not be read then
                store.delete(file)


def _table_of(locations: pd.Series, blocks: Blocks, missing: list[int]) -> pa.Table:
    """Return a table with the number (`block`) and the image `locations` of each block."""
    rows = [blocks.rows(number) for number in missing]
    places = pa.array(locations.iloc[np.concatenate([np.r_[one] for one in rows])])
    offsets = np.cumsum([0, *(one.stop - one.start for one in rows)])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), places)
    return pa.table({"block": missing, "locations": lists})


def _kind(features: FeatureSettings) -> dict[str, Any]:
    """Return all that decides the count of an image's bytes."""
    named = {"network": features.network, "layer": features.layer}
    papers = tuple(named.values()) == PAPER_LAYER
    return ({} if papers else named) | {
        # of a file its hash alone: moving it changes no count
        "weights": features.weights if features.weights in ("imagenet", "random") else "file",
        "weights_sha256": network.identity(features),
        "input_size": features.input_size,
        "preprocessing": features.trained_with,
        "resize": RESIZE,
        "decoding": DECODING,
        "precision": "fp32",
    }


def _maker(gpu: bool) -> dict[str, str]:
    """Return what may move a count by one or two: the kind of processor, and the libraries."""
    packages = ("torch", "torchvision", "pillow", "numpy")
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"device": "GPU" if gpu else "CPU"} | versions


def _csv(table: pd.DataFrame) -> bytes:
    """Return a CSV file with all text in quotes: names may hold carriage returns."""
    return table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC).encode()
