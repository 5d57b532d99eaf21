"""Files of a sweep on local disk, on a shared mount, or in `s3://` and `gs://` through fsspec.

A key is a relative path with slashes. A file appears complete or not at all. Names that begin
with a dot are the store's own temporary files and are never listed. The store knows nothing about
the content of the files.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from featgan.digests import short_hash
from featgan.errors import UserError, first_line
from harness.storage.retry import retry_while_unreachable

AT_ONCE = 64
"""Files fetched together: records of long runs take half a megabyte each."""


class Store:
    """Files below one root, atomic and durable; picklable, and the same on every host.

    `root` is a local path, a path on a shared mount, or a URI such as `s3://bucket/folder`.
    Raises UserError where the root's kind is unknown or its package is not installed.
    """

    def __init__(self, root: str) -> None:
        kind, separator, _ = root.partition("://")
        self.is_local = not separator or kind in ("file", "local")
        if self.is_local:
            root = os.path.abspath(os.path.expanduser(root.partition("://")[2] or root))
        self.root = root = root.rstrip("/") or "/"
        import fsspec  # here, so that --help and a refused file do not wait for it

        if root.endswith(":") and "/" not in root:
            raise UserError(f"results: {root}// names no bucket; write {root}//bucket/folder")
        try:
            # Listings must show what other hosts wrote a moment ago.
            self._fs, self._base = fsspec.core.url_to_fs(root, use_listings_cache=False)
        except (ImportError, ValueError) as error:  # a package is missing, or nothing has this name
            raise UserError(
                f"results: {root}: {first_line(error)}; use a path, s3:// or gs://"
            ) from error

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.root,)

    def join(self, key: str) -> str:
        """Return the full path or URI of `key`, for people to read."""
        return f"{self.root.rstrip('/')}/{_check_key(key)}" if key else self.root

    @retry_while_unreachable
    def put(self, key: str, data: bytes | mmap.mmap) -> None:
        """Write a file: readers see the old bytes or the new ones, and a crash loses neither."""
        self._write(key, data, "overwrite")

    @retry_while_unreachable
    def create(self, key: str, data: bytes) -> bool:
        """Write a file unless it exists; of all that try, on any host, one gets True."""
        try:
            self._write(key, data, "create")
        except FileExistsError:
            # A request whose answer was lost is sent again, and then finds its own file. Another's
            # may be gone by now, like the lock of a sweep that has just ended.
            ((_, found),) = self.get_all([key])
            return found == data
        return True

    def once(self, key: str, make: Callable[[], bytes]) -> str:
        """Write what `make` returns unless the file exists; return `key`.

        The key must hold a hash of all that the content depends on: two hosts that make it at
        the same time then write the same.
        """
        if not self.exists(key):
            self.put(key, make())
        return key

    @retry_while_unreachable
    def get(self, key: str) -> bytes:
        """Return the content of a file; raise FileNotFoundError where there is none."""
        return bytes(self._fs.cat_file(self._path(key)))

    def get_all(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Yield each key with its content, None where there is no file; in batches."""
        rest = iter(keys)
        while batch := list(islice(rest, AT_ONCE)):
            yield from zip(batch, self._get_batch(batch), strict=True)

    @retry_while_unreachable
    def _get_batch(self, keys: list[str]) -> list[bytes | None]:
        paths = [self._path(key) for key in keys]
        found = self._fs.cat_ranges(paths, None, None, on_error="return")
        for content in found:
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise content
        return [content if isinstance(content, bytes) else None for content in found]

    @retry_while_unreachable
    def exists(self, key: str) -> bool:
        """Return True for a file."""
        # fsspec's `isfile` returns False for an unreachable storage
        try:
            return bool(self._fs.info(self._path(key))["type"] == "file")
        except (FileNotFoundError, NotADirectoryError):
            return False

    @retry_while_unreachable
    def list(self, prefix: str = "") -> list[str]:
        """Return the keys of all files below the folder `prefix`, at any depth, sorted."""
        start = len(self._base.rstrip("/")) + 1
        errors = {"on_error": _unless_gone} if self.is_local else {}
        found = self._fs.find(self._path(prefix) if prefix else self._base, **errors)
        return sorted(key for path in found if "/." not in f"/{(key := path[start:])}")

    def remove_temporary_files(self, prefix: str) -> None:
        """Remove what killed writers have left in the subfolders of `prefix` on a local disk.

        For the holder of the lock on `prefix`: nobody else writes there.
        """
        if self.is_local:
            for path in Path(self._path(prefix)).glob("*/**/.*.part"):
                path.unlink(missing_ok=True)

    @retry_while_unreachable
    def delete(self, key: str) -> None:
        """Remove a file, if it exists."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    @retry_while_unreachable
    def move(self, key: str, to: str) -> None:
        """Rename a file and replace any file of the new name.

        Raises FileNotFoundError where neither exists.
        """
        try:
            if self.is_local:
                os.replace(self._path(key), self._path(to))
            else:
                self._fs.mv(self._path(key), self._path(to))
        except FileNotFoundError:
            # A request whose answer was lost is sent again, and then finds the file moved.
            if not self.exists(to):
                raise

    @retry_while_unreachable
    def local(self, key: str) -> Path:
        """Return the file on this machine: itself, or a copy downloaded once per version.

        Copies lie under `$XDG_CACHE_HOME/featgan` (default `~/.cache/featgan`) and may be
        deleted whenever no sweep runs. Raises FileNotFoundError for what is not there.
        """
        path = self._path(key)
        if self.is_local:
            if not os.path.exists(path):
                raise FileNotFoundError(f"{path} does not exist")
            return Path(path)
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featgan"
        copy = home / short_hash(self.join(key), self._fs.ukey(path)) / key.rpartition("/")[2]
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Many runs start on one machine at once: the first downloads, the others wait for it.
        with open(copy.parent / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not copy.exists():
                with _atomic_write(copy) as temporary:
                    self._fs.get_file(path, str(temporary))
        return copy

    def _write(self, key: str, data: bytes | mmap.mmap, mode: str) -> None:
        path = self._path(key)
        if not self.is_local:
            self._fs.pipe_file(path, bytes(data), mode=mode)
            return
        # unlike a rename, a link fails where the file exists; on NFS too
        place = os.link if mode == "create" else os.replace
        with _atomic_write(Path(path), place) as temporary:
            temporary.write_bytes(data)

    def _path(self, key: str) -> str:
        return f"{self._base.rstrip('/')}/{_check_key(key)}"


def _check_key(key: str) -> str:
    """Return `key`; raise ValueError where it could leave the root or hide a file."""
    if any(not part or part.startswith(".") for part in key.split("/")):
        raise ValueError(f"{key!r} is no key: give a relative path without empty or dotted parts")
    return key


def _unless_gone(error: OSError) -> None:
    """Raise for an unreadable folder, which must not look empty; one just deleted may."""
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def _atomic_write(path: Path, place: Callable[[Path, Path], None] = os.replace) -> Iterator[Path]:
    """Yield a temporary file's name; at the end `place` it at `path`, unless there is an error."""
    # in the same folder, so that a rename stays on one file system
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        place(temporary, path)
        _sync(path.parent)
    except OSError as error:
        if error.errno:  # none in an error of a bucket's client
            error.filename = str(path)  # missing for a full disk
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file or folder has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
