"""CelebA by its attributes, in the folders in which it is published.

Needs only the list of attributes and the aligned images: torchvision's class needs four more
files, and one layout.
"""

import io
import os
from collections import Counter
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from featgan.errors import UserError, did_you_mean, first_line
from harness.sources.base import Found, LimitedSource, Place, Row, reported
from harness.sources.folder import absolute, check_folder, connect, find_images, local, read

if TYPE_CHECKING:
    import pandas as pd

ATTRIBUTES = "list_attr_celeba"
IMAGES = "img_align_celeba"


class CelebASource(LimitedSource):
    """CelebA: `list_attr_celeba.txt` or `.csv`, and the images in a folder `img_align_celeba`."""

    source: Literal["celeba"]
    path: Place
    """The folder that holds both, also in `Anno/` and `Img/`, or in `celeba/`."""
    attributes: dict[str, bool] = Field(default_factory=dict)
    """Which images: `{Male: true, Smiling: true}` keeps those with both, `false` those without."""

    def find(self, image_size: int) -> Found:
        """Find the images whose attributes match; those of a partial copy that are there."""
        path = absolute(self.path).rstrip("/")
        check_folder(path)
        table = _read_attributes(path)
        rows = _aligned_images(path)
        there = table.index.isin(rows)
        skipped = Counter({"listed without an image": len(table) - int(there.sum())})
        table = table[there]
        for name, wanted in self.attributes.items():
            if name not in table:
                names = [*map(str, table)]
                hint = did_you_mean(name, names) or f"; it has {', '.join(names)}"
                raise UserError(f"data: CelebA has no attribute {name}{hint}")
            table = table[(table[name] == 1) == wanted]
        if not len(table):
            raise UserError(f"data: no image in {path} has the attributes {self.attributes}")
        return Found(self.draw(rows[name] for name in table.index), len(table), skipped)

    @property
    def has_labels(self) -> bool:
        """Return False: attributes are no classes."""
        return False

    def read(self, location: bytes) -> bytes:
        """Return the bytes of a local or remote file."""
        return read(location)

    def files(self) -> list[str]:
        """Return the folder, unless it is in a bucket."""
        return local(self.path)


def _read_attributes(path: str) -> "pd.DataFrame":
    """Return 1 or -1 for each image, by its name without ending, and attribute (columns)."""
    import pandas as pd  # takes half a second, and a refused sweep file does not need it

    inner = ("", "/Anno", "/celeba", "/celeba/Anno")
    files = [f"{path}{place}/{ATTRIBUTES}{end}" for place in inner for end in (".txt", ".csv")]
    system, _ = connect(path)
    with reported(f"{path} cannot be read"):
        file = next(filter(system.exists, files), "")
        data = read(file.encode()) if file else b""
        held = ", ".join(sorted(os.path.basename(name) for name in system.ls(path, False))[:9])
    if not file:
        raise UserError(
            f"data: {path} holds no {ATTRIBUTES}.txt or .csv, nor do its folders Anno and celeba; "
            f"it holds {held or 'nothing'}"
        )
    try:
        text = data.decode("utf-8-sig")
        if text.lstrip().startswith("<"):  # one line with a comma would pass as an empty table
            raise ValueError("a web page, which a refused download leaves; download it again")
        first = text.partition("\n")[0]
        if "," in first:  # Kaggle's
            table = pd.read_csv(io.StringIO(text), index_col=0)
        else:
            table = pd.read_csv(io.StringIO(text), sep=r"\s+", skiprows=1)
            if len(table) != int(first):
                raise ValueError(f"{len(table)} images of {int(first)}")
        if not table.isin([1, -1]).all(axis=None):
            raise ValueError("a value is neither 1 nor -1")
    except ValueError as error:
        raise UserError(f"data: {file} is damaged: {first_line(error)}") from error
    return table.rename(index=lambda name: os.path.splitext(str(name))[0])


def _aligned_images(path: str) -> dict[str, Row]:
    """Return the aligned images, by name without ending; JPEG before PNG where both are there."""
    rows, folders = dict[str, Row](), set[str]()
    found = find_images(path, label=False, skipped=Counter())
    for row in sorted(found, key=lambda row: row.image_id, reverse=True):
        folder, name = os.path.split(row.image_id)
        folders.add(folder or path)
        if IMAGES in folder:
            stem = os.path.splitext(name)[0]
            if stem in rows and rows[stem].image_id == name:  # a resized copy, say
                raise UserError(f"data: {path} has two {name}, one in {folder}; move a copy away")
            rows[stem] = row._replace(image_id=name)
    if not rows:
        held = ", ".join(sorted(folders)[:9])
        raise UserError(f"data: {path} has images in {held}; put the aligned ones into {IMAGES}/")
    return rows
