"""Image files in folders and buckets: finding them, whatever their names, and reading them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import Any, NamedTuple, NoReturn

import pyarrow.fs as pafs

from featgan.errors import UserError
from featgan.regular_file import open_regular
from harness.storage.redaction import one_line, refuse_keys


class Row(NamedTuple):
    """An image in a listing."""

    image_id: str
    location: bytes
    label: str | None
    stamp: str
    """Changes when the image does."""
    problem: str | None = None
    """Of what only looks like an image: why it cannot be one."""


JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
MOST_BYTES = 2**30
"""Of a file: plain pixels of the largest usable image take less, and a reader holds it whole."""
ENDINGS = (*JPEG, ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")


def list_images(paths: list[str], label: bool) -> Iterator[Row]:
    """All image files below these folders, and what only looks like one; in no lasting order.

    An `image_id` is the path below its folder; with several folders, their names come first.
    Raises UserError for a folder that is missing, or where nothing looks like an image.
    """
    paths = [absolute(path) for path in paths]
    prefixes, empty = _prefixes(paths), set(range(len(paths)))
    for number, found in chain(_find_local(paths), _find_remote(paths)):
        empty.discard(number)
        if found is not None:
            relative, location, stamp, problem = found
            folder = os.path.dirname(relative) or os.fsencode(paths[number].rstrip("/"))
            name = readable(os.path.basename(folder)) if label else None
            yield Row(prefixes[number] + readable(relative), location, name, stamp, problem)
    if empty:
        without = ", ".join(paths[number] for number in sorted(empty))
        raise UserError(f"data: no images in {without}; endings read: {' '.join(ENDINGS)}")


def check(uri: str) -> None:
    """Raise UserError for a bucket's address with keys; an image's own name may look like one."""
    if uri.partition("://")[0] in _NATIVE:
        refuse_keys("data", uri)


def absolute(path: str) -> str:
    """A folder of this machine by its whole path, without `file://`; another URI as it is."""
    path = path.removeprefix("file://")
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def read(location: bytes) -> bytes:
    """The bytes of a file, local or remote; OSError where they cannot be had."""
    if b"://" not in location:
        with open_regular(location) as file:
            return file.read()
    system, path = _system(location.decode())
    try:
        with system.open_input_stream(path) as stream:
            return bytes(stream.read())
    except OSError as error:
        if "ACCESS_DENIED" in str(error):  # pyarrow numbers Google's denials, but not Amazon's
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path) from error
        raise


MISSING: tuple[str, str | None] = ("", "file vanished")


def rows_of(folder: str, files: list[str]) -> list[Row]:
    """These files of a folder, without labels; of a missing one, too, the problem is told."""
    if "://" in folder:
        known = {place: (stamp, why) for _, place, stamp, why in _list_remote(folder)}
        places = [f"{folder}/{file}".encode() for file in files]
        stamps = [known.get(place, MISSING) for place in places]
    else:
        places = [os.fsencode(f"{folder}/{file}") for file in files]
        stamps = [_stamp(place) for place in places]
    told = zip(files, places, stamps, strict=True)
    return [Row(file, place, None, stamp, why) for file, place, (stamp, why) in told]


def readable(path: bytes) -> str:
    r"""A path as UTF-8 text: bytes that are not become `\xff`, and a backslash becomes two."""
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def why_unreadable(error: OSError, location: bytes) -> str:
    """Why a file could not be read, in a few words."""
    if error.errno == errno.ENOENT and os.path.islink(location):
        return "link to a file that does not exist"
    reasons = {errno.ENOENT: "file vanished", errno.EACCES: "no permission to read it"}
    told = one_line(error.strerror or str(error))
    return reasons.get(error.errno or 0, f"cannot be read: {told}")


def _prefixes(paths: list[str]) -> list[str]:
    """What tells the images of several folders apart: the folders' names, numbered if equal."""
    if len(paths) == 1:
        return [""]
    names = [os.path.basename(path.rstrip("/")) or "root" for path in paths]
    alike = len(set(names)) < len(names)
    return [f"{name}-{i}/" if alike else f"{name}/" for i, name in enumerate(names, 1)]


Found = tuple[bytes, bytes, str, str | None]
"""Path below the folder, location, stamp, and what is wrong with it."""


def _find_local(paths: list[str]) -> Iterator[tuple[int, Found | None]]:
    """Walk the folders of this machine, links included; names are bytes, as not all are UTF-8.

    Tells the place among `paths`, and None where another of them has the images. No folder is
    read twice; linked ones wait until all others are read, so that an image that can be reached
    both ways keeps its real path.
    """
    tops = {number: os.fsencode(path) for number, path in enumerate(paths) if "://" not in path}
    for number, top in tops.items():
        if not os.path.isdir(top):
            raise UserError(f"data: there is no folder {paths[number]}")
    first, waiting = dict[tuple[int, int], int](), [*tops.items()]
    for number, start in waiting:
        for root, inner, files in os.walk(start, onerror=_fail):
            try:
                status = os.stat(root)
            except OSError as error:  # removed meanwhile
                _fail(error)
            here = status.st_dev, status.st_ino
            if here in first:
                inner.clear()
                if first[here] != number:
                    yield number, None
                continue
            first[here] = number
            inner.sort()
            for name in inner:
                path = os.path.join(root, name)
                if os.path.islink(path):
                    waiting.append((number, path))
                if name.lower().endswith(_ENDINGS):
                    yield number, (os.path.relpath(path, tops[number]), b"", "", "a folder")
            for name in files:
                if name.lower().endswith(_ENDINGS):
                    path = os.path.join(root, name)
                    yield number, (os.path.relpath(path, tops[number]), path, *_stamp(path))


def _fail(error: OSError) -> NoReturn:
    raise UserError(f"data: the folder {error.filename!r} cannot be listed: {error.strerror}")


def _find_remote(paths: list[str]) -> Iterator[tuple[int, Found | None]]:
    """List the folders of buckets, as `_find_local` does."""
    places = set[bytes]()
    remote = [number for number, path in enumerate(paths) if "://" in path]
    for number in remote:
        for found in _list_remote(paths[number]):
            if len(remote) == 1:
                yield number, found
            else:  # one may lie in another
                yield number, None if found[1] in places else found
                places.add(found[1])


_NATIVE = ("s3", "gs", "gcs")
"""What pyarrow has clients of its own for."""
_ENDINGS = tuple(ending.encode() for ending in ENDINGS)


def _stamp(path: bytes) -> tuple[str, str | None]:
    """Size and time of a file, and why it cannot be an image."""
    try:
        status = os.stat(path)
    except OSError as error:
        return "", why_unreadable(error, path)
    if stat.S_ISDIR(status.st_mode):
        return "", "a folder"
    if not stat.S_ISREG(status.st_mode):
        return "", "neither a file nor a folder"
    return f"{status.st_size} {status.st_mtime_ns}", _oversize(status.st_size)


def _oversize(size: int) -> str | None:
    return f"over {MOST_BYTES >> 20} MiB" if size > MOST_BYTES else None


def _list_remote(uri: str) -> Iterator[Found]:
    """List a folder of a bucket."""
    scheme = uri.partition("://")[0]
    check(uri)
    try:
        system, top = _system(uri)
        told = _told_by_fsspec if isinstance(system, pafs.PyFileSystem) else _told_by_arrow
        infos = [*told(system, top)]
    except UserError:
        raise
    # a bucket's client has errors of its own
    except Exception as error:
        raise UserError(f"data: {uri} cannot be listed: {one_line(str(error))}") from error
    for path, size, version in infos:
        if path.lower().endswith(ENDINGS):
            path = path.lstrip("/")
            relative = path[len(top.strip("/")) + 1 :].encode()
            place, stamp = f"{scheme}://{path}".encode(), f"{size} {version}"
            yield relative, place, stamp, _oversize(size)


Told = tuple[str, int, object]
"""Path, size, and what changes when the file does."""


def _told_by_arrow(system: Any, top: str) -> Iterator[Told]:
    for info in system.get_file_info(pafs.FileSelector(top, recursive=True)):
        if info.type == pafs.FileType.File:
            yield info.path, info.size or 0, info.mtime_ns


def _told_by_fsspec(system: Any, top: str) -> Iterator[Told]:
    """Asked itself: pyarrow would take no time from it but one that is called `mtime`."""
    fs = system.handler.fs
    if not fs.isdir(top):
        raise FileNotFoundError(f"there is no folder {top}")
    for path, info in fs.find(top, detail=True).items():
        yield path, info.get("size") or 0, next((info[v] for v in _VERSIONS if info.get(v)), None)


_VERSIONS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "modified", "created")
"""What storages call it."""


def _system(uri: str) -> tuple[Any, str]:
    """The file system of a URI and the path in it: pyarrow's own, else fsspec's."""
    scheme, _, path = uri.partition("://")
    return _connected(scheme, path.partition("/")[0]), path


@cache
def _connected(scheme: str, bucket: str) -> Any:
    if scheme in _NATIVE:
        try:  # pyarrow looks up the region of this very bucket
            return pafs.FileSystem.from_uri(f"{scheme}://{bucket}")[0]
        except OSError as error:
            raise UserError(f"data: {scheme}://{bucket} cannot be reached: {error}") from error
    import fsspec

    try:
        return pafs.PyFileSystem(pafs.FSSpecHandler(fsspec.filesystem(scheme)))
    except (ImportError, ValueError) as error:
        raise UserError(f"data: {scheme}:// cannot be read: {error}") from error
