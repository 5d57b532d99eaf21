"""Files that each hold many images: how they are named, found and kept open."""

import os
import re
from collections.abc import Callable
from functools import lru_cache
from typing import IO, Any, NamedTuple

from featgan.errors import UserError
from harness.sources import folder as folders
from harness.sources.base import LimitedSource, Places, reported


class ContainerFile(NamedTuple):
    """A file that holds images."""

    name: str
    """Its path below the folder that all files of the source have in common."""
    place: bytes
    """Absolute path or URI."""
    stamp: str
    """Changes whenever the file changes."""


class ContainerSource(LimitedSource):
    """Files that each hold many images."""

    path: Places
    """A file, a folder, a glob such as `train-*` or a brace list such as `{000..127}`, or several;
    local paths, or URIs such as `s3://bucket/train-*` and `hf://datasets/name/data`."""

    def files(self) -> list[str]:
        """Return the local files and folders; of a glob the folder above it."""
        paths = [each for path in folders.as_list(self.path) for each in expand_braces(path)]
        return folders.local([_above_glob(path) for path in paths])


def find_files(paths: str | list[str], endings: tuple[str, ...]) -> list[ContainerFile]:
    """Return the files of a source by their path; of folders, at any depth, those with `endings`.

    Raises UserError for a path at which there is none.
    """
    found = dict[str, str]()
    for path in (
        part for each in folders.as_list(paths) for part in expand_braces(folders.absolute(each))
    ):
        scheme = path[: path.find("://") + 3] if "://" in path else ""
        system, top = folders.connect(path)
        with reported(f"{path} cannot be listed"):
            if system.isdir(top):
                names = system.find(top, detail=True)
                infos = {
                    name: info
                    for name, info in names.items()
                    if name.lower().endswith(endings)
                    and not folders.is_hidden(name[len(top) :].strip("/"))
                }
            elif system.exists(top):
                infos = {top: system.info(top)}
            else:
                infos = system.glob(top, detail=True)
        # a link, as in the hub's cache, is of no type to fsspec
        files = {
            name: info
            for name, info in infos.items()
            if info["type"] == "file" or (not scheme and os.path.isfile(name))
        }
        if not files:
            raise UserError(f"data: {path} is no file, nor are there {' or '.join(endings)} files")
        for name, info in files.items():
            place = scheme + name.lstrip("/") if scheme else name
            found[place] = (
                folders.remote_stamp(info) if scheme else folders.state_of(os.fsencode(name))[0]
            )
    # of letters: commonpath would take the // out of a URI
    common = os.path.commonprefix([*found]).rfind("/") + 1  # noqa: RUF071
    return [
        ContainerFile(folders.readable(os.fsencode(place[common:])), os.fsencode(place), stamp)
        for place, stamp in sorted(found.items())
    ]


def expand_braces(path: str) -> list[str]:
    """Return the paths of a brace list, as a shell does: `{08..11}` and `{a,b}`."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", path)
    if match is None:
        return [path]
    first, last, names = match.groups()
    if names is None:
        names = ",".join(f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1))
    before, after = path[: match.start()], path[match.end() :]
    return [each for name in names.split(",") for each in expand_braces(before + name + after)]


def _above_glob(path: str) -> str:
    """Return the folder above a glob; a path that exists, or is no glob, as it is."""
    before, *rest = re.split(r"[*?\[]", path)
    return os.path.dirname(before) if rest and not os.path.exists(path) else path


def open_file(place: bytes) -> IO[bytes]:
    """Open a local or remote file for reading, a compressed tar file for its content."""
    system, path = folders.connect(os.fsdecode(place))
    packed = "gzip" if path.lower().endswith((".tar.gz", ".tgz")) else None
    file: IO[bytes] = system.open(path, "rb", compression=packed)
    return file


def kept_open(opener: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a function that opens a file and keeps it until another, or a newer, is wanted.

    The images of a file are read one after another, also from one block to the next.
    """
    kept = lru_cache(1)(lambda place, stamp: opener(place))
    return lambda place: kept(place, folders.state_of(place)[0])
