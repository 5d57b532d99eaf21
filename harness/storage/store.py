"""Where a sweep keeps its files: local disk, a shared mount, or `s3://`, `gs://` through fsspec.

A key is a relative path with slashes. A file appears complete or not at all, and so does a
tree: its marker comes last. Names that begin with a dot are the store's own (temporary files,
markers) and are never listed. Nothing here knows what the files mean.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec

from featgan.errors import UserError
from harness.storage.retry import outlasting

MARKER = ".complete"
AT_ONCE = 64
"""Files fetched together: records of long runs take half a megabyte each."""
STALE_SECONDS = 24 * 3600
"""Age at which a temporary file is nobody's; hosts' clocks differ by far less."""

PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
}

S3_PATIENCE = {
    "config_kwargs": {
        "retries": {"max_attempts": 8, "mode": "standard"},
        "connect_timeout": 10,
        "read_timeout": 60,
    }
}
"""A run must outlive a bad minute of the storage; hours of it are a failure with a reason."""


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
        self.root = root.rstrip("/") or "/"
        self._fs, self._base = _connect(self.root)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.root,)

    def __repr__(self) -> str:
        return f"Store({self.root!r})"

    def join(self, key: str) -> str:
        """The full path or URI of `key`, for people to read."""
        return f"{self.root.rstrip('/')}/{_checked(key)}" if key else self.root

    @outlasting
    def put(self, key: str, data: bytes) -> None:
        """Write a file: readers see the old bytes or the new ones, and a crash loses neither."""
        path = self._path(key)
        if not self.is_local:
            self._fs.pipe_file(path, data)
            return
        with _appearing(Path(path)) as temporary:
            temporary.write_bytes(data)
            _sync(temporary)

    @outlasting
    def create(self, key: str, data: bytes) -> bool:
        """Write a file unless it is there; of all who try, on any host, one gets True."""
        path = self._path(key)
        try:
            if not self.is_local:
                self._fs.pipe_file(path, data, mode="create")
                return True
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            temporary = _beside(Path(path))
            try:
                temporary.write_bytes(data)
                _sync(temporary)
                os.link(temporary, path)  # unlike a rename, fails where the file exists; NFS too
            finally:
                temporary.unlink(missing_ok=True)
        except FileExistsError:
            # A put whose answer was lost is sent again, and then meets itself.
            return self.get(key) == data
        return True

    def once(self, key: str, make: Callable[[], bytes]) -> str:
        """Write what `make` returns unless the file exists; return `key`.

        The key must hold a hash of all that the content depends on: two hosts that make it at
        the same time then write the same.
        """
        if not self.exists(key):
            self.put(key, make())
        return key

    @outlasting
    def get(self, key: str) -> bytes:
        """Read a file; FileNotFoundError where there is none."""
        return bytes(self._fs.cat_file(self._path(key)))

    def get_all(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Each key with its file, None where there is none; of a bucket many come at once."""
        rest = iter(keys)
        while some := list(islice(rest, AT_ONCE)):
            yield from zip(some, self._get_some(some), strict=True)

    @outlasting
    def _get_some(self, keys: list[str]) -> list[bytes | None]:
        paths = [self._path(key) for key in keys]
        found: list[bytes | None] = self._fs.cat_ranges(paths, None, None, on_error="return")
        for number, content in enumerate(found):
            if isinstance(content, FileNotFoundError):
                found[number] = None
            elif isinstance(content, Exception):
                raise content
        return found

    @outlasting
    def exists(self, key: str) -> bool:
        """True for a file, and for a tree that `put_tree` completed."""
        path = self._path(key)
        return self._is_file(path) or self._is_file(f"{path}/{MARKER}")

    @outlasting
    def list(self, prefix: str = "") -> list[str]:
        """Keys of all files below the folder `prefix`, at any depth, sorted.

        Clears away temporary files that a crash left here more than a day ago.
        """
        start = len(self._base.rstrip("/")) + 1
        errors = {"on_error": _unless_gone} if self.is_local else {}
        found = self._fs.find(self._path(prefix) if prefix else self._base, **errors)
        keys = [path[start:] for path in found]
        if self.is_local:
            self._clear_stale(key for key in keys if _temporary_part(key))
        return sorted(key for key in keys if not _is_own(key))

    @outlasting
    def delete(self, key: str) -> None:
        """Remove a file or a folder; what is missing already is fine."""
        path = self._path(key)
        if self.is_local:
            _remove(Path(path))
            return
        # The marker goes first: a tree half deleted must not look complete.
        for remote in (f"{path}/{MARKER}", path):
            try:
                self._fs.rm(remote, recursive=remote == path)
            except FileNotFoundError:
                continue

    @outlasting
    def move(self, key: str, to: str) -> None:
        """Give a file another name, over any file of that name.

        FileNotFoundError where neither is there.
        """
        try:
            if self.is_local:
                os.replace(self._path(key), self._path(to))
            else:
                self._fs.mv(self._path(key), self._path(to))
        except FileNotFoundError:
            # A move whose answer was lost is sent again, and then finds its work done.
            if not self.exists(to):
                raise

    @outlasting
    def put_tree(self, folder: Path, key: str) -> None:
        """Copy a whole folder to `key`; it `exists` once complete, never before."""
        names = sorted(
            name
            for path in folder.rglob("*")
            if path.is_file() and not _is_own(name := path.relative_to(folder).as_posix())
        )
        files = [folder / name for name in names]
        sizes = {name: path.stat().st_size for name, path in zip(names, files, strict=True)}
        # The token tells two versions of a tree apart even where all sizes agree.
        marker = json.dumps({"token": uuid.uuid4().hex, "files": sizes}).encode()
        target = self._path(key)
        if not self.is_local:
            self.delete(key)
            if files:
                self._fs.put([str(path) for path in files], [f"{target}/{name}" for name in names])
            self._fs.pipe_file(f"{target}/{MARKER}", marker)
            return
        with _appearing(Path(target)) as temporary:
            temporary.mkdir()
            for name, path in zip(names, files, strict=True):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, temporary / name)
                _sync(temporary / name)
            (temporary / MARKER).write_bytes(marker)
            _sync(temporary / MARKER)
            _remove(Path(target))

    @outlasting
    def local(self, key: str) -> Path:
        """The file or tree on this machine: itself, or a copy downloaded once per version.

        Copies lie under `$XDG_CACHE_HOME/featgan` (default `~/.cache/featgan`) and may be
        deleted whenever no sweep runs. Raises FileNotFoundError for what is not there.
        """
        path = self._path(key)
        if self.is_local:
            if not os.path.exists(path):
                raise FileNotFoundError(f"{path} does not exist")
            return Path(path)
        is_tree = self._is_file(f"{path}/{MARKER}")
        version = _version(self._fs, f"{path}/{MARKER}" if is_tree else path)
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featgan"
        copy = home / hashlib.sha256(f"{self.join(key)} {version}".encode()).hexdigest()[:32]
        copy = copy / key.rpartition("/")[2]
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Many runs start on one machine at once: the first downloads, the others wait for it.
        with open(copy.parent / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not copy.exists():
                with _appearing(copy) as temporary:
                    _download(self._fs, path, temporary, is_tree)
        return copy

    def _path(self, key: str) -> str:
        return f"{self._base.rstrip('/')}/{_checked(key)}"

    def _is_file(self, path: str) -> bool:
        """Unlike fsspec's `isfile`, for which a storage that is away holds nothing."""
        try:
            return bool(self._fs.info(path)["type"] == "file")
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _clear_stale(self, keys: Iterable[str]) -> None:
        """Delete temporary files and trees that have not changed for a day."""
        for top in sorted({_temporary_part(key) for key in keys}):
            path = Path(self._base, top)
            with suppress(FileNotFoundError):  # its owner was faster
                newest = max(p.stat().st_mtime for p in (path, *path.rglob("*")))
                if time.time() - newest > STALE_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _connect(root: str) -> tuple[Any, str]:
    """The file system of a root and the root's path in it."""
    kind = root.partition("://")[0] if "://" in root else "file"
    if root.endswith(":") and "/" not in root:
        raise UserError(f"results: {root}// names no bucket; write {root}//bucket/folder")
    options = S3_PATIENCE if kind in ("s3", "s3a") else {}
    try:
        # Listings must show what other hosts wrote a moment ago.
        fs, base = fsspec.core.url_to_fs(root, use_listings_cache=False, **options)
    except ImportError as error:
        package = PACKAGES.get(kind)
        advice = f"pip install {package}" if package else f"install what fsspec needs for {kind}://"
        raise UserError(
            f"results: {root} needs a package that is not installed: {advice}"
        ) from error
    except ValueError as error:
        raise UserError(
            f"results: {root}: no storage is called {kind}://; use a path, s3:// or gs://"
        ) from error
    return fs, base


def _checked(key: str) -> str:
    """`key` itself; ValueError where it could leave the root or hide a file."""
    if any(not part or part.startswith(".") for part in key.split("/")):
        raise ValueError(f"{key!r} is no key: a relative path without empty or dotted parts")
    return key


def _is_own(key: str) -> bool:
    return any(part.startswith(".") for part in key.split("/"))


def _temporary_part(key: str) -> str:
    """The path down to the temporary file or tree that a key lies in; empty for any other key."""
    parts = key.split("/")
    for depth, part in enumerate(parts, start=1):
        if part.startswith(".") and part.endswith(".part"):
            return "/".join(parts[:depth])
    return ""


def _unless_gone(error: OSError) -> None:
    """An unreadable folder must not look empty; one deleted a moment ago may."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _beside(path: Path) -> Path:
    """A temporary name in the same folder, so that a rename stays on one file system."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """Yield a temporary name; what was written there becomes `path`, or goes on an error."""
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        if error.errno is None:  # a client's own
            raise
        # A full disk says so without a name.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    """Delete a file, or a folder in one step as others see it."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    doomed = _beside(path)
    with suppress(FileNotFoundError):  # another has just done it
        os.replace(path, doomed)
        shutil.rmtree(doomed)


def _sync(path: Path) -> None:
    """Wait until a file or folder has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _version(fs: Any, path: str) -> str:
    """What tells two versions of a remote file apart: its ETag, else all that is known of it."""
    info = fs.info(path)
    return str(info.get("ETag") or info.get("etag") or fs.ukey(path))


def _download(fs: Any, path: str, target: Path, is_tree: bool) -> None:
    """Fetch a file or a complete tree; OSError where a size is not what the marker says."""
    if not is_tree:
        fs.get_file(path, str(target))
        return
    sizes: dict[str, int] = json.loads(fs.cat_file(f"{path}/{MARKER}"))["files"]
    for name in map(_checked, sizes):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
    if sizes:
        fs.get([f"{path}/{name}" for name in sizes], [str(target / name) for name in sizes])
    for name, size in sizes.items():
        if (target / name).stat().st_size != size:
            raise OSError(errno.EBADMSG, "changed while it was downloaded", f"{path}/{name}")
