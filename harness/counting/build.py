"""The feature process of one data set: source -> feature table and image pack, in the store.

A count that was interrupted continues after its last finished part, and an image that was
counted before, for whatever data set, is not counted again.
`python harness/features.py FILE` does this for a sweep file, and shows counts and groups.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featgan.errors import UserError
from featgan.features import network
from featgan.features.counter import count_type
from featgan.features.settings import PAPER_LAYER, FeatureSettings
from featgan.images.decode import DECODING, RESIZE
from featgan.images.pack import ImagePack
from harness.counting.cache import MAKERS, Known, known_counts
from harness.counting.feature_table import NONE, duplicates_of, feature_table
from harness.counting.shards import Parts
from harness.records.data_set import DataSet, load_rejected, put_record, read_data_set
from harness.sources import SourceSettings
from harness.sources.listing import Listing
from harness.storage import memory
from harness.storage.lock import SweepLock
from harness.storage.sealed import seal
from harness.storage.store import Store

Progress = Callable[[str, int, int | None], None]
"""Called with the data set, images done and images in all."""


@dataclass(frozen=True)
class _Wanted:
    """A data set that is to be counted and packed, and its folder in the store."""

    name: str
    source: SourceSettings
    features: FeatureSettings
    image_size: int
    listing: Listing
    store: Store
    key: str
    max_rejected: float

    @property
    def allowed(self) -> int:
        """How many of the images may be unusable; 29% of a hundred are 29, whatever floats say."""
        return int(self.max_rejected * self.listing.found + 1e-6)


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

    `actors` is the number of counting processes (None: two a GPU, or one a core). Raises
    `UserError` where images or weights cannot be had, or more than `max_rejected` are unusable.
    """
    count_type(features)  # an unknown network or layer is told before anything is read
    listing = source.listing(image_size)
    kind = _kind(features)
    key = f"features/{name}-{_hash(listing.digest(), kind, image_size, source.remove_duplicates)}"
    wanted = _Wanted(name, source, features, image_size, listing, store, key, max_rejected)
    if not _is_complete(wanted) or Parts.are_left(store, key):
        with SweepLock(store, key, notice=lambda text: progress(text, 0, None)):
            if not _is_complete(wanted):  # another sweep may just have done it
                _make(wanted, kind, actors, gpu, progress)
            Parts.delete(store, key)  # by now the images are packed
    data = read_data_set(store, key)
    rejected = load_rejected(store, data)
    if _are_too_many(wanted, rejected):
        raise _unusable(wanted, rejected, listing.found, f"{key}/rejected.csv")
    if len(rejected):
        path = store.join(f"{key}/rejected.csv")
        progress(f"{name}: {len(rejected)} of {listing.found} images rejected: {path}", 0, None)
    return data


def _is_complete(wanted: _Wanted) -> bool:
    """Whether the data set is counted, and none of its images can be used that could not be."""
    store, key = wanted.store, wanted.key
    if not store.exists(f"{key}/dataset.json"):
        return False
    data = read_data_set(store, key)
    return not data.unreadable or _are_still_bad(wanted, load_rejected(store, data))


def _are_still_bad(wanted: _Wanted, rejected: pd.DataFrame) -> bool:
    """Whether none of these images can be used now."""
    from harness.counting.workers import (
        Decoder,  # loads Ray, which reads its environment when imported
    )

    images = wanted.listing.images
    again = images["location"][images["image_id"].isin(rejected["image_id"])]
    decoder = Decoder(wanted.source, wanted.features.input_size, wanted.image_size, Known())
    return all(decoder.problem(location) for location in again)


def _make(
    wanted: _Wanted, kind: dict[str, Any], actors: int | None, gpu: bool, progress: Progress
) -> None:
    """Count what is missing and pack it; the parts that an earlier count has left are taken up.

    A data set that is there already stays as it is until the new one can take its place.
    """
    store, key, listing = wanted.store, wanted.key, wanted.listing
    known, made_with = known_counts(store, kind, _maker(gpu))  # its own, too
    made = kind | {MAKERS: made_with}
    store.put(f"{key}/counting.json", seal(made))
    parts = Parts(store, key, len(listing.images), wanted.image_size)
    limit = wanted.allowed - len(listing.problems)
    if limit >= 0:
        _count(wanted, parts, known, actors, gpu, limit, progress)
    rejected = _rejected(listing, parts)
    if _are_too_many(wanted, rejected):
        looked_at = int(parts.counted.sum()) + len(listing.problems)
        until_now = Parts.rejected(key)
        store.put(until_now, _csv(rejected))
        raise _unusable(wanted, rejected, looked_at, until_now)
    _put_data_set(wanted, parts, made, rejected)


def _count(
    wanted: _Wanted,
    parts: Parts,
    known: Known,
    actors: int | None,
    gpu: bool,
    limit: int,
    progress: Progress,
) -> None:
    """Count what is missing, until more than `limit` images turn out bad."""
    from harness.counting import workers

    progress(wanted.name, int(parts.counted.sum()), parts.total)
    if len(parts.problems) > limit:  # known from the parts that an earlier count has left
        return
    missing, locations = parts.missing(), wanted.listing.images[["location"]]
    with closing(  # or actors outlive an interruption
        workers.count(
            locations.iloc[missing].assign(index=missing),
            wanted.source,
            wanted.features,
            wanted.image_size,
            known,
            actors,
            gpu,
        )
    ) as batches:
        for batch in batches:
            parts.add(batch)
            progress(wanted.name, int(parts.counted.sum()), parts.total)
            if len(parts.problems) > limit:
                break


def _rejected(listing: Listing, parts: Parts) -> pd.DataFrame:
    """The images without a count: image_id, reason; sorted by image_id."""
    image_ids = listing.images["image_id"]
    reasons = listing.problems | {image_ids[row]: why for row, why in parts.problems.items()}
    return pd.DataFrame(sorted(reasons.items()), columns=["image_id", "reason"])


def _are_too_many(wanted: _Wanted, rejected: pd.DataFrame) -> bool:
    """Whether more of the images are unusable than may be, or all."""
    return len(rejected) > wanted.allowed or len(rejected) == wanted.listing.found


def _unusable(wanted: _Wanted, rejected: pd.DataFrame, looked_at: int, key: str) -> UserError:
    """Too many unusable images among those that were looked at; `key` is that of their list."""
    listed, first = wanted.listing.found, rejected.iloc[0]
    which = f"{listed}" if looked_at == listed else f"the first {looked_at} of {listed}"
    return UserError(
        f"data.{wanted.name}: {len(rejected)} of {which} images cannot be used, more than "
        f"max_rejected ({wanted.max_rejected:.2%} of all) allows; first {first.image_id!r}: "
        f"{first.reason}; those found are in {wanted.store.join(key)}: mend or remove them, or "
        "raise max_rejected"
    )


def _put_data_set(
    wanted: _Wanted, parts: Parts, made: dict[str, Any], rejected: pd.DataFrame
) -> None:
    """From finished parts to table and pack; `dataset.json` is last, and says that all is there."""
    if not parts.counted.all():
        raise RuntimeError(
            f"{wanted.name}: {len(parts.missing())} images were neither counted nor rejected"
        )
    store, key, listing = wanted.store, wanted.key, wanted.listing
    images, keep = listing.images, parts.counts >= 0
    duplicates = duplicates_of(images, parts, keep) if wanted.source.remove_duplicates else NONE
    keep[duplicates.index] = False
    rejections = _csv(rejected)
    store.delete(f"{key}/dataset.json")
    store.put(f"{key}/rejected.csv", rejections)
    memory.release()  # what the count has left
    with tempfile.TemporaryDirectory() as folder:
        kept = (pixels[keep[rows]] for rows, pixels in parts)
        image_ids = images["image_id"][keep].reset_index(drop=True)
        ImagePack.write(Path(folder), image_ids, kept)
        store.put_tree(Path(folder), f"{key}/pack")
    memory.release()
    counts = count_type(wanted.features)
    table, content = feature_table(images, parts, np.flatnonzero(keep), counts)
    store.put(f"{key}/features.parquet", table)
    store.put(f"{key}/duplicates.csv", _csv(duplicates))
    versions = {name: text for name, text in _maker(False).items() if name != "device"}
    protocol = made | {"weights": wanted.features.weights, "versions": versions}
    put_record(store, key, "protocol.json", protocol)
    data_set = DataSet(
        name=wanted.name,
        key=key,
        digest=_hash(content, parts.image_size, RESIZE, DECODING),
        images=int(keep.sum()),
        rejected=len(rejected),
        duplicates=len(duplicates),
        classes=tuple(sorted(images["label"][keep].dropna().unique())),
        matched=listing.matched,
        table_sha256=hashlib.sha256(table).hexdigest(),
        rejected_sha256=hashlib.sha256(rejections).hexdigest(),
        unreadable=len(parts.unreadable),
    )
    put_record(store, key, "dataset.json", asdict(data_set))


def _kind(features: FeatureSettings) -> dict[str, Any]:
    """What decides a count, beside the image."""
    named = {"network": features.network, "layer": features.layer}
    papers = tuple(named.values()) == PAPER_LAYER
    # the paper's layer is not spelled out: counts made before there were others stay known
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
    """What may move a count by one or two: the kind of processor, and the libraries."""
    packages = ("torch", "torchvision", "pillow", "numpy")
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"device": "GPU" if gpu else "CPU"} | versions


def _csv(table: pd.DataFrame) -> bytes:
    """All text in quotes: names may hold carriage returns, which only those keep in a row."""
    return table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC).encode()


def _hash(*content: Any) -> str:
    """The first digits of the SHA-256 of something that JSON can spell."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
