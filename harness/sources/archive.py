"""Images in zip and tar files, such as StyleGAN's data sets and the shards of WebDataset.

Nothing is unpacked to disk: an image is read at its place in the archive. Ray Data's reader of
WebDataset gives samples no place, and stops at a damaged one.
"""

import json
import os
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import IO, Literal, NamedTuple

from pydantic import Field

from featgan.errors import UserError, first_line
from harness.sources import containers
from harness.sources.base import Found, Row, describe
from harness.sources.folder import MAGIC, MOST_BYTES, kind_of, oversize, readable

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")


class ArchiveSource(containers.ContainerSource):
    """Images in zip and tar files (`.zip`, `.tar`, `.tar.gz`, `.tgz`)."""

    source: Literal["archive"]
    labels: Literal["folder", "dataset.json", "cls", "json"] | None = None
    """An image's label: `folder`, the name of its folder in the archive, or of an archive without
    folders; `dataset.json`, its entry in this file of StyleGAN's `dataset_tool`; `cls` or `json`,
    from the file of this ending next to it."""
    label_key: str = Field("label", min_length=1)
    """Key of the label in files `.json`."""

    def find(self, image_size: int) -> Found:
        """Find all images; an `image_id` is the path in the archive, after that of the archive."""
        skipped = Counter[str]()
        files = containers.find_files(self.path, ENDINGS)
        return Found(self.draw(self._rows(files, skipped)), skipped=skipped)

    def read(self, location: bytes) -> bytes:
        """Return the bytes of an image in an archive."""
        return read(location)

    def _rows(self, files: list[containers.ContainerFile], skipped: Counter[str]) -> Iterator[Row]:
        labelled = False
        for file in files:
            prefix = f"{file.name}/" if len(files) > 1 else ""
            last, seen, listed = "", set[str](), dict[str, object]()
            try:
                for _, sample in groupby(_members(file, self._bytes_wanted), _sample_of):
                    members = list(sample)
                    images = {member.place for member in members if _is_image(member)}
                    last = members[0].name
                    label = self._label(file, members)
                    for member in members:
                        last = member.name
                        if member.place in images:
                            if last in seen:
                                raise ValueError("it holds two images of this name")
                            seen.add(last)
                            own = listed.get(last, label)
                            location = file.place + b"/" + member.place.encode()
                            text = None if own is None else str(own)
                            labelled |= own is not None
                            yield Row(prefix + last, location, text, file.stamp, member.problem)
                        elif last == self.labels:
                            if seen:
                                raise ValueError("it comes after images; move it to the front")
                            listed.update(json.loads(member.content)["labels"] or [])
                        elif not (images and self._is_label(last)):
                            skipped[kind_of(last)[0]] += 1
            except UserError:
                raise
            except Exception as error:  # files of labels may hold anything
                raise UserError(f"data: {file.name}: {last}: {first_line(error)}") from error
            if not seen:
                raise UserError(f"data: no images in {file.name}; skipped: {describe(skipped)}")
        if self.labels and not labelled:
            key = f" and label_key: {self.label_key}" if self.labels == "json" else ""
            raise UserError(
                f"data: no image in {self.path} has a label by `labels: {self.labels}{key}`; "
                f"skipped: {describe(skipped)}"
            )

    def _label(self, file: containers.ContainerFile, sample: list["_Member"]) -> object:
        """Return the label of members whose names begin alike."""
        if self.labels == "folder":
            folder = posixpath.dirname(sample[0].name)
            return posixpath.basename(folder) or posixpath.basename(file.name).partition(".")[0]
        labels = [member for member in sample if self._is_label(member.name)]
        if len(labels) > 1:
            first, second, *_ = (member.name for member in labels)
            raise ValueError(f"{first} and {second} are of one sample: names end at a dot")
        if not labels:
            return None
        text = labels[0].content.decode().strip()
        return text if self.labels == "cls" else json.loads(text).get(self.label_key)

    def _is_label(self, name: str) -> bool:
        return self.labels in ("cls", "json") and name.endswith(f".{self.labels}")

    def _bytes_wanted(self, name: str) -> int:
        """Return how many bytes of a member are a label, or decide whether it is an image."""
        if name == self.labels or self._is_label(name):
            return MOST_BYTES
        return 32 if kind_of(name)[1] is None else 0


class _Member(NamedTuple):
    """A file in an archive."""

    name: str
    """Its path in the archive, UTF-8."""
    place: str
    """Offset and packed size; in a zip file also the method of packing and the CRC-32."""
    problem: str | None
    content: bytes
    """As many of its bytes as were wanted."""


def _is_image(member: _Member) -> bool:
    _, is_image = kind_of(member.name)
    return bool(is_image or (is_image is None and MAGIC.match(member.content)))


def _sample_of(member: _Member) -> tuple[str, str]:
    """Return what files of one sample share: the folder, and the name up to its first dot."""
    folder, name = posixpath.split(member.name)
    return folder, name.partition(".")[0]


def _members(
    file: containers.ContainerFile, bytes_wanted: Callable[[str], int]
) -> Iterator[_Member]:
    """Yield the files in an archive, of zip files sorted by name: `dataset.json` comes first."""
    if not file.name.lower().endswith(ENDINGS):
        raise UserError(f"data: {file.name}: its ending is none of {', '.join(ENDINGS)}")
    members = _zip_members if file.name.lower().endswith(".zip") else _tar_members
    last = "its beginning"
    try:
        with containers.open_file(file.place) as opened:
            for member in members(opened, bytes_wanted):
                last = member.name
                yield member
    # damaged, in one of many ways; or a bucket's client has errors of its own
    except Exception as error:
        reason = f"is damaged at or after {last}: {first_line(error)}"
        raise UserError(f"data: {file.name} {reason}") from error


def _zip_members(file: IO[bytes], bytes_wanted: Callable[[str], int]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        for info in sorted(infos, key=lambda of: (of.filename != "dataset.json", of.filename)):
            name = posixpath.normpath(info.filename)
            wanted = bytes_wanted(name)
            place = f"{info.header_offset:015d}-{info.compress_size}"
            place += f"-{info.compress_type}-{info.CRC}"
            problem = oversize(info.file_size)
            if info.flag_bits & 1:
                problem = "encrypted"
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                problem = "packed in another way than stored or deflated"
            content = b""
            if wanted and not problem:
                with archive.open(info) as member:
                    content = member.read(wanted)
            yield _Member(name, place, problem, content)


def _tar_members(file: IO[bytes], bytes_wanted: Callable[[str], int]) -> Iterator[_Member]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep a million
            if info.isdir():
                continue
            name = readable(os.fsencode(posixpath.normpath(info.name)))
            plain, wanted = info.isreg() and not info.issparse(), bytes_wanted(name)
            member = archive.extractfile(info) if plain else None
            problem = oversize(info.size) if member else "a link, a device or a sparse file"
            content = member.read(wanted) if member and wanted else b""
            yield _Member(name, f"{info.offset_data:015d}-{info.size}", problem, content)
        file.seek(archive.offset)  # at a damaged or empty header tarfile stops without a word
        end = file.read(tarfile.BLOCKSIZE)
        rest = end
        while rest and not rest.strip(b"\0"):  # to the end, where gzip has its checksum
            rest = file.read(2**20)
        if rest or not end:
            raise ValueError("what follows is neither a file nor the end of the archive")


_opened = containers.kept_open(containers.open_file)


def read(location: bytes) -> bytes:
    """Return the bytes of an image in an archive; OSError if they are not those that were packed.

    A compressed tar file can only be read forwards: its images are asked for in its own order.
    """
    place, _, member = location.rpartition(b"/")
    offset, size, *packed = map(int, member.split(b"-"))
    file = _opened(place)
    file.seek(offset)
    if packed:  # in a zip file its header is here, before the bytes
        name, extra = struct.unpack("<26xHH", file.read(30))
        file.seek(offset + 30 + name + extra)
    data = file.read(size)
    if packed:
        if packed[0] == zipfile.ZIP_DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MOST_BYTES)
        if zlib.crc32(data) != packed[1]:
            raise OSError("the archive is damaged here (CRC-32)")
    elif len(data) < size:
        raise OSError("the archive ends within it")
    return data
