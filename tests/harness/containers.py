"""One set of small images in containers of several kinds."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Files = Mapping[str, bytes]
"""Names and bytes."""


def png(seed: int, side: int = 16) -> bytes:
    """Return a picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, files: Files) -> Path:
    """Write a tar file, compressed where its name says so."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    data = file.getvalue()
    path.write_bytes(gzip.compress(data) if path.name.endswith("gz") else data)
    return path


def write_zip(path: Path, files: Files, method: int = zipfile.ZIP_STORED) -> Path:
    """Write a zip file."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_parquet(
    path: Path,
    images: list[Any],
    labels: list[Any] | None = None,
    names: list[str] | None = None,
    group: int = 3,
) -> Path:
    """Write a Parquet file with the columns of the hub, `group` rows in a group."""
    columns = {"image": images} | ({"label": labels} if labels else {})
    features = {"label": {"names": names, "_type": "ClassLabel"}} if names else {}
    hub = json.dumps({"info": {"features": features}}).encode()
    table = pa.table(columns).replace_schema_metadata({b"huggingface": hub})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path
