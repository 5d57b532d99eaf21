"""Image files in folders and buckets: found under any name, and read."""

import errno
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from mimetypes import MimeTypes
from pathlib import Path
from typing import Any, Literal, NoReturn

from featgan.errors import UserError, first_line
from harness.sources.base import Found, LimitedSource, Places, Row, describe, reported

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"),
)
OTHERS = MimeTypes()
"""Python's own table of endings: a file with another one of these is not opened."""
MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM....\0{4}|II\*\0|MM\0\*|P[1-6]\s"
    rb"|....ftyp(avi[fs]|hei[cfsx]|mif1|msf1)",
    re.DOTALL,
)
"""How images begin, in a file whose ending says nothing."""
SYSTEM = (
    *("__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found"),
    *("system volume information", "thumbs.db", "desktop.ini"),
)
"""Names, next to those with a dot, that systems leave in folders; in lower case."""
MOST_BYTES = 2**30
"""Largest file that is read: plain pixels of the largest usable image take less."""


class FolderSource(LimitedSource):
    """Image files in folders, at any depth."""

    source: Literal["folder"]
    path: Places
    """A folder, or several: local paths or URIs such as `s3://bucket/folder`."""
    labels: Literal["folder"] | None = None
    """`folder`: an image's label is the name of the folder it lies in."""

    def find(self, image_size: int) -> Found:
        """Find every file that is an image by its ending or, where that says nothing, content."""
        skipped = Counter[str]()
        rows = find_images(self.path, self.has_labels, skipped)
        return Found(self.draw(rows), skipped=skipped)

    def read(self, location: bytes) -> bytes:
        """Return the bytes of a local or remote file."""
        return read(location)

    def files(self) -> list[str]:
        """Return the local folders."""
        return local(self.path)


def as_list(path: str | list[str]) -> list[str]:
    """Return one path or several as a list."""
    return [path] if isinstance(path, str) else path


def find_images(path: str | list[str], label: bool, skipped: Counter[str]) -> Iterator[Row]:
    """Yield all image files below folders, and what only looks like one, in any order.

    An `image_id` is the path below its folder; with several folders, their names come first.
    Other files, and hidden ones of any kind, are counted in `skipped`. Raises UserError for a
    folder that is missing or holds nothing that looks like an image, and for labels of which all
    folders have the same.
    """
    paths = [absolute(each) for each in as_list(path)]
    prefixes, empty = _prefixes(paths), set(range(len(paths)))
    synsets = [synset_names(path) if label else {} for path in paths]
    labels, inner = set[str | None](), set[bytes]()
    remote = (_find_remote(i, path, skipped) for i, path in enumerate(paths) if "://" in path)
    places = set[bytes]()  # one folder of a bucket may lie in another
    for number, file in chain(_find_local(paths, skipped), *remote):
        empty.discard(number)
        if file is not None and file[1] not in places:
            relative, location, stamp, problem = file
            folder = os.path.dirname(relative) or os.fsencode(paths[number].rstrip("/"))
            name = readable(os.path.basename(folder)) if label else None
            name = synsets[number].get(name, name)
            labels.add(name)
            inner.add(os.path.dirname(relative))
            if "://" in paths[number]:
                places.add(location)
            yield Row(prefixes[number] + readable(relative), location, name, stamp, problem)
    if empty:
        without = ", ".join(paths[number] for number in sorted(empty))
        seen = describe(skipped)
        raise UserError(
            f"data: no images in {without}; skipped: {seen} (unpack archives, or write "
            "`source: archive`)"
        )
    if label and len(labels) == 1 and len(inner) > 1:
        raise UserError(
            f"data: all {len(inner)} folders in {', '.join(paths)} have the label {labels.pop()}; "
            "where the upper ones are the classes, write `source: torchvision` and "
            "`set: ImageFolder`"
        )


def synset_names(path: str) -> dict[str | None, str]:
    """Return synset and name of ImageNet's classes by synset, from a file in or above a folder.

    Kaggle's is `LOC_synset_mapping.txt`, torchvision's `meta.bin`; two synsets are called crane.
    """
    for place in [Path(path), *Path(path).parents][:5]:
        if (file := place / "LOC_synset_mapping.txt").is_file():
            lines = (line.split(" ", 1) for line in file.read_text().splitlines())
            return {synset: f"{synset} {names.split(',')[0]}" for synset, names in lines}
        if (file := place / "meta.bin").is_file():
            import torch  # takes a second, and is rarely needed

            index, _ = torch.load(file, weights_only=True)
            return {synset: f"{synset} {names[0]}" for synset, names in index.items()}
    return {}


def is_hidden(path: str) -> bool:
    """Return True if a part of a path below a folder is hidden, or a system's own."""
    return any(part.startswith(".") or part.lower() in SYSTEM for part in path.split("/"))


def kind_of(path: str) -> tuple[str, bool | None]:
    """Return the kind of a file below a folder, by its path, and whether it is that of an image.

    None: the ending says nothing. What follows one is not part of it: `.jpg?w=600`, `.jpg_large`.
    """
    if is_hidden(path):
        return "hidden", False
    found = re.match(r"\.[a-z][a-z0-9]*", os.path.splitext(path.lower())[1])
    ending = found[0] if found else "without ending"
    if ending in ENDINGS:
        return ending, True
    return ending, False if found and any(OTHERS.guess_type(f"x{ending}")) else None


def absolute(path: str) -> str:
    """Return the whole path of a local folder, without `file://`; another URI as it is."""
    path = path.removeprefix("file://")
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def check_folder(path: str) -> None:
    """Raise UserError where there is no such local folder."""
    if "://" not in path and not os.path.isdir(path):
        hint = " but a file; unpack it, or write `source: archive`" if os.path.exists(path) else ""
        raise UserError(f"data: there is no folder {path}{hint}")


def local(path: str | list[str]) -> list[str]:
    """Return the absolute path of one or several, without those that are URIs."""
    return [each for each in map(absolute, as_list(path)) if "://" not in each]


def read(location: bytes) -> bytes:
    """Return the bytes of a local or remote file; OSError if they cannot be read."""
    if b"://" not in location:
        file = Path(os.fsdecode(location)).expanduser()
        if file.exists() and not file.is_file():  # a pipe would block, a device may never end
            raise OSError(errno.EINVAL, "not a regular file", str(file))
        return file.read_bytes()
    system, path = connect(location.decode())
    return bytes(system.cat_file(path))


def readable(path: bytes) -> str:
    r"""Return a path as UTF-8 text: other bytes become `\xff`, and a backslash becomes two."""
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def why_unreadable(error: Exception, location: bytes) -> str:
    """Return in a few words why a file could not be read."""
    if isinstance(error, FileNotFoundError):
        return "link to a file that does not exist" if os.path.islink(location) else "file vanished"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return f"cannot be read: {first_line(getattr(error, 'strerror', None) or error)}"


def _prefixes(paths: list[str]) -> list[str]:
    """Return what keeps the images of several folders apart: the folders' names."""
    if len(paths) == 1:
        return [""]
    names = [os.path.basename(path.rstrip("/")) or "root" for path in paths]
    alike = len(set(names)) < len(names)
    return [f"{name}-{i}/" if alike else f"{name}/" for i, name in enumerate(names, 1)]


_File = tuple[bytes, bytes, str, str | None]
"""Path below the folder, location, stamp, and why it cannot be an image."""


def _find_local(paths: list[str], skipped: Counter[str]) -> Iterator[tuple[int, _File | None]]:
    """Walk the local folders; yield index in `paths` and file, whose name may be any bytes.

    The file is None where another of the folders has the images. A folder is read once: linked
    ones wait until all others are read, so that an image keeps its own path.
    """
    tops = {number: os.fsencode(path) for number, path in enumerate(paths) if "://" not in path}
    visited, waiting = dict[bytes, int](), [*tops.items()]
    for number, start in waiting:
        check_folder(os.fsdecode(start))
        for root, inner, files in os.walk(start, onerror=_fail):
            real = os.path.realpath(root)
            if real in visited:
                inner.clear()
                if visited[real] != number:
                    yield number, None
                continue
            visited[real] = number
            inner.sort()
            for name in [*inner, *files]:
                path = os.path.join(root, name)
                kind, is_image = kind_of(os.fsdecode(name))
                if name in inner and kind == "hidden":
                    inner.remove(name)
                elif name in inner and os.path.islink(path):
                    waiting.append((number, path))
                if is_image or (is_image is None and MAGIC.match(_head(path))):
                    yield number, (os.path.relpath(path, tops[number]), path, *state_of(path))
                elif name not in inner:
                    skipped[kind] += 1


def _head(path: bytes) -> bytes:
    """Return the first bytes of a file; none of what is no file or cannot be read."""
    with suppress(OSError):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return file.read(32)
    return b""


def _fail(error: OSError) -> NoReturn:
    raise UserError(f"data: the folder {error.filename!r} cannot be listed: {error.strerror}")


def state_of(path: bytes) -> tuple[str, str | None]:
    """Return the stamp of a local file, its size and time, and why it cannot be an image."""
    try:
        status = os.stat(path)
    except OSError as error:
        return "", why_unreadable(error, path)
    if stat.S_ISDIR(status.st_mode):
        return "", "a folder"
    if not stat.S_ISREG(status.st_mode):
        return "", "neither a file nor a folder"
    return f"{status.st_size} {status.st_mtime_ns}", oversize(status.st_size)


def oversize(size: int) -> str | None:
    """Return why a file is too large to be read, or None."""
    return f"over {MOST_BYTES >> 20} MiB" if size > MOST_BYTES else None


def _find_remote(number: int, uri: str, skipped: Counter[str]) -> Iterator[tuple[int, _File]]:
    """List a folder of a bucket; any change of what the storage knows of a file is a new stamp."""
    scheme = uri.partition("://")[0]
    system, top = connect(uri)
    length = len(top.strip("/")) + 1
    with reported(f"{uri} cannot be listed"):
        files = system.find(top, detail=True)
        if not files and not system.isdir(top):
            raise FileNotFoundError("there is no such folder")
        kinds = {path: kind_of(path.lstrip("/")[length:]) for path in files}
        unknown = [path for path, (_, is_image) in kinds.items() if is_image is None]
        found = system.cat_ranges(unknown, 0, 32, on_error="return")
    heads = dict(zip(unknown, found, strict=True))
    for path, info in files.items():
        kind, is_image = kinds[path]
        head = heads.get(path)
        if is_image or (isinstance(head, bytes) and MAGIC.match(head)):
            place = path.lstrip("/")
            problem = oversize(info.get("size") or 0)
            location = f"{scheme}://{place}".encode()
            yield number, (place[length:].encode(), location, remote_stamp(info), problem)
        else:
            skipped[kind] += 1


def remote_stamp(info: dict[str, Any]) -> str:
    """Return the stamp of a file in a bucket: a hash of all that its listing says."""
    return hashlib.sha256(repr(sorted(info.items())).encode()).hexdigest()[:12]


def connect(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI or a local path, which fsspec keeps, and the path in it."""
    import fsspec  # here, so that --help and a refused file do not wait for it

    scheme, _, path = uri.partition("://") if "://" in uri else ("file", "", uri)
    with reported(f"{scheme}:// cannot be read"):  # a package or more than an address is missing
        return fsspec.filesystem(scheme, use_listings_cache=False), path
