"""Image files in folders and buckets: finding them, whatever their names, and reading them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pyarrow.fs as pafs

from featgan.errors import UserError
from featgan.regular_file import open_regular
from harness.redaction import one_line, refuse_keys


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
    paths = [plain(path) for path in paths]
    empty, seen, places = True, set[tuple[int, int]](), set[bytes]()
    for path, prefix in zip(paths, _prefixes(paths), strict=True):
        remote = "://" in path
        found = _find_remote(path) if remote else _find_local(path, seen)
        for relative, location, stamp, problem in found:
            if remote and len(paths) > 1:  # one may lie in another
                if location in places:
                    continue
                places.add(location)
            folder = os.path.dirname(relative) or os.fsencode(path.rstrip("/"))
            name = readable(os.path.basename(folder)) if label else None
            yield Row(prefix + readable(relative), location, name, stamp, problem)
            empty = False
    if empty:
        raise UserError(f"data: no images in {', '.join(paths)}; endings read: {' '.join(ENDINGS)}")


def check(uri: str) -> None:
    """Raise UserError for a bucket's address with keys; an image's own name may look like one."""
    if uri.partition("://")[0] in _NATIVE:
        refuse_keys("data", uri)


def plain(path: str) -> str:
    """A folder on this machine without `file://`."""
    return path.removeprefix("file://")


def read(location: bytes) -> bytes:
    """The bytes of a file, local or remote; OSError where they cannot be had."""
    if b"://" not in location:
        with open_regular(location) as file:
            return file.read()
    system, path = _system(location.decode())
    with system.open_input_stream(path) as stream:
        return bytes(stream.read())


MISSING: tuple[str, str | None] = ("", "file vanished")


def rows_of(folder: str, files: list[str]) -> list[Row]:
    """These files of a folder, without labels; of a missing one, too, the problem is told."""
    if "://" in folder:
        known = {place: (stamp, why) for _, place, stamp, why in _find_remote(folder)}
        places = [f"{folder}/{file}".encode() for file in files]
        stamps = [known.get(place, MISSING) for place in places]
    else:
        folder = os.path.abspath(os.path.expanduser(folder))
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
    return reasons.get(error.errno or 0, f"cannot be read: {error.strerror or error}")


def _prefixes(paths: list[str]) -> list[str]:
    """What tells the images of several folders apart: the folders' names, numbered if equal."""
    if len(paths) == 1:
        return [""]
    names = [os.path.basename(path.rstrip("/")) or "root" for path in paths]
    alike = len(set(names)) < len(names)
    return [f"{name}-{i}/" if alike else f"{name}/" for i, name in enumerate(names, 1)]


Found = tuple[bytes, bytes, str, str | None]
"""Path below the folder, location, stamp, and what is wrong with it."""


def _find_local(folder: str, seen: set[tuple[int, int]]) -> Iterator[Found]:
    """Walk a folder, links included; names are bytes, as not every name is UTF-8.

    A folder that was `seen` is not read again. Linked ones wait until all others are read, so
    that an image that can be reached both ways keeps its real path.
    """
    top = os.fsencode(os.path.abspath(os.path.expanduser(folder)))
    if not os.path.isdir(top):
        raise UserError(f"data: there is no folder {folder}")

    def fail(error: OSError) -> None:
        raise UserError(f"data: the folder {error.filename!r} cannot be listed: {error.strerror}")

    waiting = [top]
    for start in waiting:
        for root, inner, files in os.walk(start, onerror=fail):
            here = os.stat(root)
            if (here.st_dev, here.st_ino) in seen:
                inner.clear()
                continue
            seen.add((here.st_dev, here.st_ino))
            inner.sort()
            for name in inner:
                path = os.path.join(root, name)
                if os.path.islink(path):
                    waiting.append(path)
                if name.lower().endswith(_ENDINGS):
                    yield os.path.relpath(path, top), b"", "", "a folder"
            for name in files:
                if name.lower().endswith(_ENDINGS):
                    path = os.path.join(root, name)
                    yield os.path.relpath(path, top), path, *_stamp(path)


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


def _find_remote(uri: str) -> Iterator[Found]:
    """List a folder of a bucket."""
    scheme = uri.partition("://")[0]
    check(uri)
    try:
        system, top = _system(uri)
        infos = system.get_file_info(pafs.FileSelector(top, recursive=True))
    except UserError:
        raise
    # a bucket's client has errors of its own
    except Exception as error:
        raise UserError(f"data: {uri} cannot be listed: {one_line(str(error))}") from error
    for info in infos:
        if info.type == pafs.FileType.File and info.path.lower().endswith(ENDINGS):
            path = info.path.lstrip("/")
            relative = path[len(top.strip("/")) + 1 :].encode()
            place, stamp = f"{scheme}://{path}".encode(), f"{info.size} {info.mtime_ns}"
            yield relative, place, stamp, _oversize(info.size or 0)


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
