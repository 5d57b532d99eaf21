"""The feature process of one data set: source -> feature table and image pack, in the store.

A count that was interrupted continues after its last finished part, and an image that was
counted before, for whatever data set, is not counted again.
`python harness/features.py FILE` does this for a sweep file, and shows counts and groups.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.metadata
import io
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featgan import backbones
from featgan.errors import UserError
from featgan.features import FeatureSettings, count_type
from featgan.groups import FeatureGroups
from featgan.images import DECODING, RESIZE, ImagePack
from harness import cluster, needs
from harness.boundaries import boundary_table
from harness.command import add_scale, alone, exit_code, heed_signals
from harness.config import Sweep, load
from harness.feature_table import NONE, duplicates_of, feature_table
from harness.known import MAKERS, Known, known_counts
from harness.lock import SweepLock
from harness.parts import Parts
from harness.redaction import one_line
from harness.screen import Screen
from harness.sealed import seal, unseal
from harness.sources import Listing, SourceSettings
from harness.store import Store

FORMAT = 1
"""Of `dataset.json` and `protocol.json`, which also tell the folder they belong to."""

Progress = Callable[[str, int, int | None], None]
"""Called with the data set, images done and images in all."""


@dataclass(frozen=True)
class DataSet:
    """A data set that is counted and packed."""

    name: str
    key: str
    """Its folder in the store: `features/<name>-<hash of listing and protocol>`."""
    digest: str
    """Hash of what its images and counts are: part of the signature of each run."""
    images: int
    rejected: int
    duplicates: int
    classes: tuple[str, ...]
    """Labels that occur, sorted."""
    matched: int | None = None
    """Images that the source's filter left, before any limit."""
    table_sha256: str = ""
    """Of `features.parquet`."""
    rejected_sha256: str = ""
    """Of `rejected.csv`."""
    unreadable: int = 0
    """Of the rejected: those that could not be read, which the next sweep tries again."""


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
    path = store.join(f"{key}/rejected.csv")
    if _is_complete(store, key):
        Parts.delete(store, key)  # left where a count died on its very last step
    else:
        with SweepLock(store, key, notice=lambda text: progress(text, 0, None)):
            if not _is_complete(store, key):  # another sweep may just have done it
                known, made_with = known_counts(store, kind, _maker(gpu))  # its own, too
                store.delete(f"{key}/dataset.json")
                made = kind | {MAKERS: made_with}
                store.put(f"{key}/counting.json", seal(made))
                parts = Parts(store, key, len(listing.images), image_size)
                limit = max_rejected * listing.found - len(listing.problems)
                if limit >= 0:
                    how = (source, features, image_size, known, actors, gpu)
                    _fill(parts, name, listing, how, limit, progress)
                rejected = _put_rejected(store, key, listing, parts)
                looked_at = int(parts.counted.sum()) + len(listing.problems)
                _check_rejected(name, rejected, listing, max_rejected, path, looked_at)
                _put_data_set(name, source, listing, parts, rejected, features, made, store, key)
    data = read_data_set(store, key)
    rejected = load_rejected(store, data)
    _check_rejected(name, rejected, listing, max_rejected, path, listing.found)
    if len(rejected):
        progress(f"{name}: {len(rejected)} of {listing.found} images rejected: {path}", 0, None)
    return data


def _fill(
    parts: Parts,
    name: str,
    listing: Listing,
    how: tuple[SourceSettings, FeatureSettings, int, Known, int | None, bool],
    limit: float,
    progress: Progress,
) -> None:
    """Count what is missing, until more than `limit` images turn out bad."""
    from harness import counting  # loads Ray, which reads its environment when it is imported

    missing = listing.images.assign(index=range(parts.total)).iloc[parts.missing()]
    progress(name, parts.total - len(missing), parts.total)
    if len(parts.problems) > limit:  # known from the parts that an earlier count has left
        return
    with closing(counting.count(missing, *how)) as batches:  # or actors outlive an interruption
        for batch in batches:
            parts.add(batch)
            progress(name, int(parts.counted.sum()), parts.total)
            if len(parts.problems) > limit:
                break


def _is_complete(store: Store, key: str) -> bool:
    """Whether the data set is counted; one with unreadable images is tried again."""
    file = f"{key}/dataset.json"
    return store.exists(file) and not _read_sealed(store, file).get("unreadable")


def read_data_set(store: Store, key: str) -> DataSet:
    """The record of the data set in this folder; UserError for one that is damaged or foreign."""
    record = _own(store, key, "dataset.json")
    return DataSet(**record | {"key": key, "classes": tuple(record["classes"])})


def read_protocol(store: Store, key: str) -> dict[str, Any]:
    """How the images of this folder were counted; UserError for a file damaged or foreign."""
    return _own(store, key, "protocol.json")


def _own(store: Store, key: str, name: str) -> dict[str, Any]:
    """What a sealed file holds that tells this folder's key."""
    record = _read_sealed(store, f"{key}/{name}")
    if record.pop("format", None) != FORMAT:
        raise _damaged(store, key, f"{name} is another version's")
    if (told := record.pop("key", None)) != key:
        raise _damaged(store, key, f"{name} is that of {told}")
    return record


def load_table(store: Store, key: str) -> pd.DataFrame:
    """The feature table: image_id, sha256, feature_count, label, in the order of the pack."""
    data = store.get(f"{key}/features.parquet")
    try:
        return pd.read_parquet(io.BytesIO(data))
    except (OSError, ValueError) as error:
        raise _damaged(store, key, f"features.parquet cannot be read: {error}") from error


def check(store: Store, data: DataSet) -> None:
    """Raise UserError where the table or the images are not, to the byte, what was counted."""
    table = store.get(f"{data.key}/features.parquet")
    if hashlib.sha256(table).hexdigest() != data.table_sha256:
        raise _damaged(store, data.key, "features.parquet is not the table that was counted")
    try:
        folder = store.local(f"{data.key}/pack")
        ImagePack.check(folder)
        same = ImagePack.open(folder).image_ids.equals(load_table(store, data.key)["image_id"])
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(store, data.key, f"its images: {error}") from error
    if not same:
        raise _damaged(store, data.key, "its images are another data set's")


def _read_sealed(store: Store, key: str) -> dict[str, Any]:
    """A sealed JSON file of a data set; UserError where it is damaged."""
    try:
        return unseal(store.get(key))
    except ValueError as error:
        folder, _, name = key.rpartition("/")
        raise _damaged(store, folder, f"{name}: {error}") from error


def _damaged(store: Store, key: str, what: str) -> UserError:
    return UserError(
        f"{store.join(key)}: {one_line(what)}; remove this folder, and it is counted again"
    )


def load_rejected(store: Store, data: DataSet) -> pd.DataFrame:
    """The images that could not be used: image_id, reason."""
    file = store.get(f"{data.key}/rejected.csv")
    if hashlib.sha256(file).hexdigest() != data.rejected_sha256:
        raise _damaged(store, data.key, "rejected.csv is not the list that was made")
    text = io.StringIO(file.decode(), newline="")
    return pd.read_csv(text, dtype=str, keep_default_na=False)


def data_record(store: Store, data_set: DataSet, source: SourceSettings) -> dict[str, Any]:
    """How a sweep's data set was made, for its folder: everything a reader may ask."""
    rejected = load_rejected(store, data_set)
    return asdict(data_set) | {
        "source": source.model_dump(),
        "protocol": read_protocol(store, data_set.key),
        "rejections": rejected.head(100).to_dict("records"),
    }


def _kind(features: FeatureSettings) -> dict[str, Any]:
    """What decides a count, beside the image."""
    named = {"network": features.network, "layer": features.layer}
    papers = tuple(named.values()) == backbones.PAPERS
    # the paper's layer is not spelled out: counts made before there were others stay known
    return ({} if papers else named) | {
        # of a file its hash alone: moving it changes no count
        "weights": features.weights if features.weights in ("imagenet", "random") else "file",
        "weights_sha256": backbones.identity(features),
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


def _put_rejected(store: Store, key: str, listing: Listing, parts: Parts) -> pd.DataFrame:
    """Write `rejected.csv`: image_id, reason; sorted by image_id."""
    image_ids = listing.images["image_id"]
    reasons = listing.problems | {image_ids[row]: why for row, why in parts.problems.items()}
    rejected = pd.DataFrame(sorted(reasons.items()), columns=["image_id", "reason"])
    store.put(f"{key}/rejected.csv", _csv(rejected))
    return rejected


def _check_rejected(
    name: str, rejected: pd.DataFrame, listing: Listing, limit: float, path: str, looked_at: int
) -> None:
    """Raise `UserError` where too many of the images are unusable, or all."""
    listed = listing.found
    if len(rejected) <= limit * listed and len(rejected) < listed:
        return
    first = rejected.iloc[0]
    which = f"{listed}" if looked_at == listed else f"the first {looked_at} of {listed}"
    raise UserError(
        f"data.{name}: {len(rejected)} of {which} images cannot be used, more than max_rejected "
        f"({limit:.2%} of all) allows; first {first.image_id!r}: {first.reason}; those found are "
        f"in {path}: mend or remove them, or raise max_rejected"
    )


def _put_data_set(
    name: str,
    source: SourceSettings,
    listing: Listing,
    parts: Parts,
    rejected: pd.DataFrame,
    features: FeatureSettings,
    made: dict[str, Any],
    store: Store,
    key: str,
) -> None:
    """From finished parts to table and pack; `dataset.json` is last, and says that all is there."""
    if not parts.counted.all():
        raise RuntimeError(
            f"{name}: {len(parts.missing())} images were neither counted nor rejected"
        )
    images, keep = listing.images, parts.counts >= 0
    duplicates = duplicates_of(images, parts, keep) if source.remove_duplicates else NONE
    keep[duplicates.index] = False
    with tempfile.TemporaryDirectory() as folder:
        kept = (pixels[keep[rows]] for rows, pixels in parts)
        image_ids = images["image_id"][keep].reset_index(drop=True)
        ImagePack.write(Path(folder), image_ids, kept)
        store.put_tree(Path(folder), f"{key}/pack")
    table, content = feature_table(images, parts, np.flatnonzero(keep), count_type(features))
    store.put(f"{key}/features.parquet", table)
    store.put(f"{key}/duplicates.csv", _csv(duplicates))
    versions = {name: text for name, text in _maker(False).items() if name != "device"}
    protocol = made | {"weights": features.weights, "versions": versions}
    store.put(f"{key}/protocol.json", seal({"format": FORMAT, "key": key} | protocol))
    data_set = DataSet(
        name=name,
        key=key,
        digest=_hash(content, parts.image_size, RESIZE, DECODING),
        images=int(keep.sum()),
        rejected=len(parts.problems) + len(listing.problems),
        duplicates=len(duplicates),
        classes=tuple(sorted(images["label"][keep].dropna().unique())),
        matched=listing.matched,
        table_sha256=hashlib.sha256(table).hexdigest(),
        rejected_sha256=hashlib.sha256(_csv(rejected)).hexdigest(),
        unreadable=len(parts.unreadable),
    )
    store.put(f"{key}/dataset.json", seal({"format": FORMAT} | asdict(data_set)))
    Parts.delete(store, key)


def _csv(table: pd.DataFrame) -> bytes:
    """All text in quotes: names may hold carriage returns, which only those keep in a row."""
    return table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC).encode()


def _hash(*content: Any) -> str:
    """The first digits of the SHA-256 of something that JSON can spell."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: count and group a sweep's data sets; figure 9, tables 2 and 3 of the paper."""
    parser = argparse.ArgumentParser(prog="harness/features.py", description=main.__doc__)
    parser.add_argument("file", help="a sweep file, such as sweeps/quickstart.yaml")
    add_scale(parser)
    options = parser.parse_args(arguments)
    return exit_code(lambda: _carry_out(load(options.file, options.scale)))


def _carry_out(sweep: Sweep) -> int:
    """Count, group and show."""
    store, screen = Store(sweep.results), Screen()
    cluster.environment()  # Ray reads it when it is imported
    from harness.preflight import preflight
    from harness.preparation import prepare_groups

    needs.look_up_functions(sweep)
    needs.refuse_results_among_images(sweep)
    with alone(store, sweep.name, screen):
        try:
            engine = cluster.connect()
            preflight(store, files=needs.image_files(sweep), notice=screen.say)
            prepare_groups(sweep, store, engine.gpus > 0, screen.features)
        finally:
            screen.end()
            cluster.shutdown()
        print(_report(store, sweep.name), flush=True)
    return 0


def _report(store: Store, sweep: str) -> str:
    """Draw figure 9; tables 2 and 3, and how many images lie near a boundary, as text."""
    from harness import figures
    from harness.mirror import mirrored
    from harness.outcome import Outcome
    from harness.paper_tables import group_tables

    with mirrored(store, sweep) as folder:
        outcome = Outcome.read(folder)
        figures.draw(outcome, folder / "figures")
        tables = group_tables(outcome)
        for record in outcome.count_groups:
            groups = FeatureGroups.from_json(record.model_dump_json())
            tables.append(boundary_table(f"{record.data}: {record.title}", groups))
        text = "\n".join(table.text() for table in tables)
    return f"{text}\nfigure 9: {store.join(f'{sweep}/figures/feature-counts.png')}"


if __name__ == "__main__":
    heed_signals()
    sys.exit(main())
