"""A table of all images of a source, about 120 bytes an image, in a file that is memory-mapped."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby, islice

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from featgan.errors import UserError
from harness.sources.base import Found, Row
from harness.sources.corrupt import Corruption

SLICE = 10_000
"""Rows handled at a time: as Python objects a row takes ten times the memory."""

SCHEMA = pa.schema(
    [
        ("image_id", pa.large_string()),
        ("location", pa.large_binary()),
        ("label", pa.large_string()),
        ("stamp", pa.uint64()),
        ("origin", pa.large_string()),
    ]
)


@dataclass(frozen=True)
class Listing:
    """The images of a source, before any of them is opened."""

    images: pd.DataFrame
    """`image_id`, `location`, `label` (or None), hash of the `stamp`; for a union also `origin`.
    Sorted by `location`, the order in which files are read best; in a union within each source."""
    problems: dict[str, str] = field(default_factory=dict)
    """Reason by `image_id`, for what looks like an image but cannot be one."""
    matched: int | None = None
    """Images that passed the source's filter, before any limit; None without a filter."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Files that are not taken for images, by kind."""

    @property
    def found(self) -> int:
        """The number of images, including those with a problem."""
        return len(self.images) + len(self.problems)

    @classmethod
    def of(cls, found: Found) -> Listing:
        """Read all rows of a source."""
        tables, problems = [SCHEMA.empty_table()], dict[str, str]()
        for _, rows in groupby(found.rows, key=lambda row: row.origin):
            part = _mapped(SCHEMA, _slices(rows, problems))
            places = part["location"]
            if pc.any(pc.less(places[1:], places[:-1])).as_py():  # to sort takes a copy
                part = _mapped(SCHEMA, [part.take(pc.sort_indices(places))])
            tables.append(part)
        images = pa.concat_tables(tables)
        if images["origin"].null_count == len(images):
            images = images.drop_columns("origin")
        columns = (images.select([name]).combine_chunks() for name in images.column_names)
        mapped = [_mapped(column.schema, [column]) for column in columns]  # of one piece each
        images = pa.table({table.column_names[0]: table[0] for table in mapped})
        # pandas has compact columns for text, but not yet for bytes
        kinds = {pa.large_binary(): pd.ArrowDtype(pa.large_binary())}
        frame = images.to_pandas(types_mapper=kinds.get)
        return cls(frame, problems, found.matched, dict(+found.skipped))

    def corrupted(self, how: Corruption) -> Listing:
        """Return the listing with shares of its images corrupted; `how.reader` reads them.

        A copy takes all but its `image_id` from its original. Wrong labels are in a column
        `noisy_label`. Raises UserError where there are too few images or labels.
        """
        clean = self.images
        for name, share in how.mixed.items():
            random, is_other = np.random.default_rng((how.seed, 4)), clean["origin"] == name
            own, other = (random.permutation(np.flatnonzero(of)) for of in (~is_other, is_other))
            count = round(share * len(own))
            if count > len(other):
                raise UserError(f"corrupt.mixed: {name} has {len(other):,} images, not {count:,}")
            rows = np.sort(np.concatenate((own[count:], other[:count])))
            clean = clean.iloc[rows].reset_index(drop=True)

        def drawn(number: int, share: float) -> np.ndarray:
            order = np.random.default_rng((how.seed, number)).permutation(len(clean))
            return order[: round(share * len(order))]

        copies = drawn(0, how.duplicate)[: len(clean) - 1]  # of at least one original
        originals = np.arange(len(clean))
        rest = np.setdiff1d(originals, copies)
        originals[copies] = np.random.default_rng((how.seed, 1)).choice(rest, len(copies))
        ids = clean["image_id"]
        kinds = np.full(len(ids), "", object)
        kinds[drawn(2, how.blur)] += "blur"
        kinds[drawn(3, how.jpeg)] += "jpeg"
        images = clean.iloc[originals].set_axis(ids.index)
        pairs = zip(kinds, images["location"], strict=True)
        places = [kind.encode() + b":" + at for kind, at in pairs]
        if how.labels:
            codes, labels = pd.factorize(images["label"], sort=True)
            if len(labels) < 2:
                raise UserError("corrupt.labels: there are fewer than two labels")
            wrong, random = drawn(5, how.labels), np.random.default_rng((how.seed, 6))
            codes[wrong] += random.integers(1, len(labels), len(wrong))
            noisy = pd.Series(labels[codes % len(labels)], ids.index)
            images = images.assign(noisy_label=noisy.where(images["label"].notna()))
        of = images["image_id"] + f" {how.blur_radius} {how.jpeg_quality} " + kinds
        location = pd.Series(places, ids.index, images["location"].dtype)
        stamp = images["stamp"].astype(str) + " from " + of
        images = images.assign(image_id=ids, location=location, stamp=stamp)
        in_order = images.iloc[np.argsort(originals, kind="stable")]  # as files are read best
        return replace(self, images=in_order.reset_index(drop=True))

    def digest(self) -> str:
        """Return a hash that changes when an image is added, removed, renamed or rewritten."""
        hashed = hashlib.sha256(repr(sorted(self.problems.items())).encode())
        for start in range(0, len(self.images), SLICE):  # all at once would be held three times
            rows = self.images.iloc[start : start + SLICE].drop(columns="location")
            values = pd.util.hash_pandas_object(rows.fillna("").astype(str), index=False)
            hashed.update(values.to_numpy().tobytes())
        return hashed.hexdigest()


def _mapped(schema: pa.Schema, tables: Iterable[pa.Table]) -> pa.Table:
    """Return the tables as one, mapped from a temporary file that has no name any more."""
    with tempfile.NamedTemporaryFile() as file:
        with pa.ipc.new_file(file, schema) as writer:
            for table in tables:
                writer.write_table(table)
        file.flush()
        return pa.ipc.open_file(pa.memory_map(file.name)).read_all()


def _slices(rows: Iterable[Row], problems: dict[str, str]) -> Iterator[pa.Table]:
    """Yield the good rows as tables of at most SLICE rows; add the others to `problems`."""
    rows = iter(rows)
    while some := list(islice(rows, SLICE)):
        problems |= {row.image_id: row.problem for row in some if row.problem is not None}
        good = pd.DataFrame([row for row in some if row.problem is None], columns=Row._fields)
        good["stamp"] = pd.util.hash_array(good["stamp"].to_numpy(object), categorize=False)
        yield pa.Table.from_pandas(good, SCHEMA, preserve_index=False)
