from __future__ import annotations

from pathlib import Path

import pytest
from sourced import source

from harness.sources.containers import expand_braces, find_files


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.tar", ["a/b.tar"]),
        ("s-{08..11}.tar", ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]),
        ("{train,val}-{0..1}", ["train-0", "train-1", "val-0", "val-1"]),
        ("{only}", ["{only}"]),
    ],
)
def test_brace_lists_are_those_of_a_shell(path: str, expected: list[str]) -> None:
    assert expand_braces(path) == expected


def test_names_begin_below_the_common_folder(tmp_path: Path) -> None:
    for name in ("a/x-1.tar", "a/b/x-1.tar", "a/[1]/y.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(*paths: str) -> list[str]:
        return [
            file.name for file in find_files([f"{tmp_path}/{path}" for path in paths], (".tar",))
        ]

    assert names("a/x-1.tar") == ["x-1.tar"]
    assert names("a/x-1.tar", "a/b/x-1.tar") == ["b/x-1.tar", "x-1.tar"]
    assert names("a/*/*.tar", "a/x-?.tar") == ["[1]/y.tar", "b/x-1.tar", "x-1.tar"]
    assert names("a/[1]/y.tar", "a/[1]") == ["y.tar"]


def test_nodes_need_the_files_and_the_folders_of_globs(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    paths = [f"{tmp_path}/a-{{0..1}}.tar", f"{tmp_path}/b/*-[0-9].tar", "s3://bucket/*.tar"]
    expected = [f"{tmp_path}/a-0.tar", f"{tmp_path}/a-1.tar", f"{tmp_path}/b"]
    assert source("archive", path=paths).files() == expected
