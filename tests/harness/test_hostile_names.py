"""Names from files, as an attacker would choose them, stay text and stay in their folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packed import put_counted

from harness.records.data_set import open_pack
from harness.records.run_record import RunRecord
from harness.report import build
from harness.storage.store import Store

pytestmark = pytest.mark.guarantee(
    "Names",
    "Any name in a file is text in tables and reports; nothing is written outside the sweep's "
    "folder",
)

NAMES = [
    "../../outside",
    "/tmp/outside",
    "<script>alert(1)</script>",
    "a\nb\r\tc",
    "\"'><img src=x onerror=alert(1)>",
    "$\\frac{1$ | `x` \\input{/etc/passwd}",
    "‮gpj.evil \x1b[2J",
    "..",
    "x" * 200,
]


class Elements(HTMLParser):
    """All elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def with_names(folder: Path, name: str) -> None:
    """Put a name into every field: data set, mode, axis, label, image, reason."""
    for path in folder.glob("runs/*/run.json"):
        record = json.loads(path.read_text())
        record["cell"] |= {"data": name, "mode": name, "features.weights": name}
        record["settings"]["features"] = {"weights": name}
        if record["cell"]["seed"] == 1:
            record |= {"status": "failed", "reason": name}
        path.write_text(json.dumps(record))
    for path in folder.glob("data/*.json"):
        data = json.loads(path.read_text())
        data |= {"name": name, "classes": [name], "source": {"path": name}}
        data["rejections"] = [{"image_id": name, "reason": name}]
        path.write_text(json.dumps(data))
    plan = json.loads((folder / "sweep.json").read_text())
    plan |= {"name": name, "notes": [name], "cells": [*plan["cells"][:1], NEVER | {"data": name}]}
    (folder / "sweep.json").write_text(json.dumps(plan))


NEVER: dict[str, Any] = {"mode": "descending", "seed": 9}


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_is_text_in_every_table_and_leaves_no_folder(
    tmp_path: Path, sweep_folder: Callable[..., Path], name: str
) -> None:
    folder = sweep_folder(data_sets=("apples",), modes=("descending",), seeds=2, length=2)
    with_names(folder, name)
    before = files(tmp_path)
    build.make(folder)
    made = files(tmp_path) - before
    homes = (folder / "tables", folder / "figures", folder / "groups", folder / "report.html")
    assert all(any(path.is_relative_to(home) for home in homes) for path in made)
    assert all("\n" not in path.name and len(path.name) < 250 for path in made)
    assert not Path("/tmp/outside").exists()
    page = Elements((folder / "report.html").read_text())
    assert not page.elements & {"script", "iframe", "object", "svg", "link", "form"}
    assert not {attribute for attribute in page.attributes if attribute.startswith("on")}
    assert "".join(name.split()) in "".join(page.text.split()), "shown as text"
    assert "<script" not in (folder / "tables" / "tables.md").read_text()
    assert "\\input{" not in (folder / "tables" / "tables.tex").read_text()


@pytest.mark.guarantee(
    "Files that are read back",
    "A record of another run, generator or data set is left out and named",
)
def test_a_record_that_names_another_folder_is_left_out(
    sweep_folder: Callable[..., Path],
) -> None:
    folder = sweep_folder(data_sets=("apples",), modes=("descending",), seeds=2, length=2)
    path = next(folder.glob("runs/*/run.json"))
    record = RunRecord.model_validate_json(path.read_bytes())
    path.write_bytes(record.model_copy(update={"run": "../../outside"}).to_json())
    build.make(folder)
    text = (folder / "tables" / "tables.md").read_text()
    assert "left out: the record of another run" in text
    assert not (folder.parent / "outside").exists()


@pytest.mark.guarantee("Names", "A key or a file of a bucket cannot leave its root")
@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside", ".hidden"])
def test_a_pack_in_a_bucket_cannot_write_outside_of_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = Store("memory://hostile")
    data = put_counted(store, "features/a-0", np.zeros((1, 3, 8, 8), np.uint8), [1])
    shards = (replace(data.shards[0], file=name),)
    hostile = data.model_copy(update={"shards": shards})
    store.put(f"{data.key}/dataset.json", hostile.to_json())
    with pytest.raises(ValueError, match="is no key"):
        open_pack(store, "features/a-0")
    assert not Path("/tmp/outside").exists()
    assert not list(tmp_path.rglob("outside"))
