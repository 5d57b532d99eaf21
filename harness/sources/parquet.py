"""Images in a column of Parquet files, as on the Hugging Face hub.

Ray Data's reader gives rows no number that stays the same, so pyarrow reads: for the list of images
the column of labels alone, for a block of images the rows of that block.
"""

import json
from collections.abc import Iterator
from itertools import repeat
from typing import Any, Literal

from featgan.errors import UserError
from harness.sources import containers
from harness.sources.base import Found, Row, reported

ROWS = 32
"""Images of a file that are in memory at a time."""
LABELS = 10_000
"""Labels that are read at a time."""


class ParquetSource(containers.ContainerSource):
    """Parquet files with a column of images."""

    source: Literal["parquet"]
    image: str = "image"
    """Column of the images: the bytes of image files, or `{bytes, path}` as on the hub."""
    label: str | None = None
    """Column of the labels. Numbers get the names that the hub's metadata give their classes."""

    def find(self, image_size: int) -> Found:
        """Find the rows of all files; an `image_id` is the file's path and the row's number."""
        return Found(self.draw(self._rows(containers.find_files(self.path, (".parquet",)))))

    def _rows(self, files: list[containers.ContainerFile]) -> Iterator[Row]:
        named: dict[bool, str] = {}
        for file in files:
            with reported(f"{file.name} cannot be read"):
                for number, label in enumerate(self._labels(file, named)):
                    row = f"/{number:09d}"
                    yield Row(file.name + row, file.place + row.encode(), label, file.stamp)

    def _labels(
        self, file: containers.ContainerFile, named: dict[bool, str]
    ) -> Iterator[str | None]:
        """Yield the label of each row; UserError if a column is missing or holds something else.

        `named` collects over all files the first whose numbers have names, and the first whose have
        none.
        """
        import pyarrow as pa  # here, so that --help and a refused file do not wait for it
        import pyarrow.parquet as pq

        with containers.open_file(file.place) as opened, pq.ParquetFile(opened) as table:
            schema = table.schema_arrow
            for column in filter(None, (self.image, self.label)):
                if column not in schema.names:
                    held = ", ".join(schema.names)
                    raise UserError(f"data: {file.name} has no column {column}; it has {held}")
            if _bytes_in(schema, self.image) is None:
                held = schema.field(self.image).type
                raise UserError(f"data: {file.name}: column {self.image} holds {held}, no images")
            if self.label is None:
                yield from repeat(None, table.metadata.num_rows)
                return
            names = _class_names(schema, self.label)
            if table.metadata.num_rows and pa.types.is_integer(schema.field(self.label).type):
                named.setdefault(bool(names), file.name)
            if len(named) > 1:
                raise UserError(
                    f"data: column {self.label} holds classes with names in {named[True]}, without "
                    f"in {named[False]}; give all files the hub's metadata, or none"
                )
            kind = pa.int64() if names else pa.string()
            for batch in table.iter_batches(LABELS, columns=[self.label], use_threads=False):
                for value in batch.column(0).cast(kind).to_pylist():
                    if names and value is not None:
                        value = names[value] if value >= 0 else None
                    yield value

    def read(self, location: bytes) -> bytes:
        """Return the bytes of an image; empty where the row has none."""
        place, _, row = location.rpartition(b"/")
        return _opened(place).read(self.image, int(row))


def _bytes_in(schema: Any, column: str) -> str | None:
    """Return the path of the image files' bytes; None where the column has none."""
    import pyarrow as pa

    kind = schema.field(column).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return f"{column}.bytes"
    return column if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else None


def _class_names(schema: Any, column: str) -> list[str]:
    """Return the names that the hub gives the classes; of -1 there is none."""
    hub = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = hub.get("info", {}).get("features", {}).get(column, {})
    return feature.get("names", []) if feature.get("_type") == "ClassLabel" else []


class _Images:
    """The images of a file, read forwards: a group of rows may hold a million."""

    def __init__(self, place: bytes) -> None:
        import numpy as np
        import pyarrow.parquet as pq

        # in pages, not by pre_buffer's groups: one may not fit into memory
        file = containers.open_file(place)
        self._table: Any = pq.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
        metadata = self._table.metadata
        lengths = (metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
        self._starts = np.cumsum([0, *lengths])
        self._reading: tuple[str, int] | None = None
        self._first = self._end = 0
        self._batches: Iterator[Any] = iter(())
        self._values: Any = None

    def read(self, column: str, row: int) -> bytes:
        """Return the bytes of an image; empty where the row has none."""
        group = int(self._starts.searchsorted(row, side="right")) - 1
        if self._reading != (column, group) or row < self._first:
            path = _bytes_in(self._table.schema_arrow, column)
            self._batches = self._table.iter_batches(ROWS, [group], [path], use_threads=False)
            self._reading, self._end = (column, group), int(self._starts[group])
        while row >= self._end:
            reading, self._reading = self._reading, None  # after an error, from the start again
            self._values = next(self._batches).column(0)
            self._reading = reading
            self._first, self._end = self._end, self._end + len(self._values)
        value = self._values[row - self._first].as_py()
        return (value["bytes"] if isinstance(value, dict) else value) or b""


_opened = containers.kept_open(_Images)
