"""CelebA by its attributes.

Reads `list_attr_celeba.txt` itself and needs only this file and the images: torchvision's class
needs four more files and refuses copies whose line ends are not CRLF.
"""

import difflib
import io
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from featgan.errors import UserError, first_line
from harness.sources.base import Found, Place, Read, Row, Source
from harness.sources.folder import absolute, find_images, local, read

if TYPE_CHECKING:
    import pandas as pd

ATTRIBUTES = "list_attr_celeba.txt"
IMAGES = "img_align_celeba"


class CelebASource(Source):
    """CelebA as it is published: `img_align_celeba/` next to `list_attr_celeba.txt`."""

    source: Literal["celeba"]
    path: Place
    """The folder that holds both."""
    attributes: dict[str, bool] = Field(default_factory=dict)
    """Which images: `{Male: true, Smiling: true}` keeps those with both, `false` those without."""
    limit: int | None = Field(default=None, ge=1)
    """Most images, drawn by `seed`."""
    seed: int = Field(default=0, ge=0)
    """Draws the images that `limit` keeps."""

    def find(self, image_size: int) -> Found:
        """Find the images whose attributes match."""
        path = absolute(self.path).rstrip("/")
        table = _read_attributes(f"{path}/{ATTRIBUTES}")
        for name, wanted in self.attributes.items():
            if name not in table:
                near = [*difflib.get_close_matches(name, map(str, table), 1), *table]
                raise UserError(f"data: CelebA has no attribute {name}; did you mean {near[0]}?")
            table = table[(table[name] == 1) == wanted]
        names = table.index.to_numpy()
        if not len(names):
            raise UserError(f"data: no image in {path} has the attributes {self.attributes}")
        rows = {row.image_id: row for row in find_images([f"{path}/{IMAGES}"], label=False)}
        most = min(self.limit or len(names), len(names))
        chosen = np.random.default_rng(self.seed).choice(len(names), most, replace=False)
        missing = f"not in {IMAGES}/"
        found = (
            rows.get(name) or Row(name, b"", None, "", missing) for name in names[np.sort(chosen)]
        )
        return Found(found, len(names))

    def reader(self) -> Read:
        """Return the function that reads a local or remote file."""
        return read

    def files(self) -> list[str]:
        """Return the folder, unless it is in a bucket."""
        return local(self.path)


def _read_attributes(file: str) -> "pd.DataFrame":
    """Return 1 or -1 for each file name (index) and attribute (columns)."""
    import pandas as pd  # takes half a second, and a refused sweep file does not need it

    try:
        data = read(file.encode())
    except UserError:
        raise
    # a bucket's client has errors of its own
    except Exception as error:
        why = first_line(getattr(error, "strerror", None) or error)
        raise UserError(
            f"data: {file} cannot be read ({why}); CelebA's folder holds {IMAGES}/ and {ATTRIBUTES}"
        ) from error
    try:
        expected = int(data.decode("utf-8-sig").partition("\n")[0])
        table = pd.read_csv(io.BytesIO(data), sep=r"\s+", skiprows=1)
        if not table.isin([1, -1]).all(axis=None):
            raise ValueError("a value is neither 1 nor -1")
        if len(table) != expected:
            raise ValueError(f"{len(table)} images of {expected}")
    except ValueError as error:
        raise UserError(f"data: {file} is damaged: {first_line(error)}") from error
    return table
