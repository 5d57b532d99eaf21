"""Both commands check functions and files before anything is counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featgan.errors import UserError
from harness import features, sweep
from harness.cluster import connect, preflight
from harness.display import Screen
from harness.plan import checks
from harness.plan.load import load
from harness.plan.settings import Grid, Sweep

FILE = """
results: {results}
data:
  a: {{source: folder, path: /data/a}}
  b: {{source: celeba, path: /data/b}}
image_size: 32
score: {{classifier: inception, weights: /data/inception.pth}}
groups: {groups}
"""
MAINS = [sweep.main, features.main]


@pytest.fixture
def plan(tmp_path: Path) -> Callable[[str], Sweep]:
    def write(groups: str) -> Sweep:
        file = tmp_path / "s.yaml"
        file.write_text(FILE.format(results=tmp_path / "results", groups=groups))
        return load(file)

    return write


def test_required_files_are_images_and_classifier_weights(plan: Callable[[str], Sweep]) -> None:
    found = plan("{by: table, table: /driver/values.csv, column: x}")  # only the driver reads it
    images = ["/data/a", "/data/b"]
    assert checks.image_files(found) == images
    assert checks.required_files(found) == [*images, "/data/inception.pth"]
    grid = found.model_copy(
        update={"grid": [Grid.model_validate({"score.weights": ["/data/1.pth", "/data/2.pth"]})]}
    )
    assert checks.required_files(grid) == [*images, "/data/1.pth", "/data/2.pth"]


@pytest.mark.parametrize("main", MAINS, ids=["sweep", "features"])
def test_a_missing_function_is_reported_before_ray_starts(
    plan: Callable[[str], Sweep],
    main: Callable[[list[str]], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(connect, "connect", lambda: pytest.fail("Ray was started"))
    with pytest.raises(UserError, match="there is no module 'nowhere_at_all'"):
        plan('{by: "nowhere_at_all:redness"}')
    assert main([str(tmp_path / "s.yaml")]) == 2
    assert "nowhere_at_all:redness: there is no module" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [sweep.run_sweep, features.count_and_group], ids=["sweep", "features"]
)
def test_preflight_gets_the_required_files(
    plan: Callable[[str], Sweep],
    command: Callable[[Sweep, Screen], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def ask(*_: Any, files: list[str], **__: Any) -> None:
        asked.extend(files)
        raise UserError("seen")

    monkeypatch.setattr(connect, "connect", lambda: connect.Engine(None, 1, 0))
    monkeypatch.setattr(preflight, "check_cluster", ask)
    with pytest.raises(UserError, match="seen"):
        command(plan("{k: 2}"), Screen())
    assert asked[:2] == ["/data/a", "/data/b"]


@pytest.mark.parametrize("command", ["sweep", "features"])
@pytest.mark.parametrize(
    ("results", "images"),
    [("photos/results", "photos"), ("photos", "photos"), ("link/results", "photos")],
)
def test_results_among_the_images_are_refused(
    tmp_path: Path,
    results: str,
    images: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(connect, "connect", lambda: pytest.fail("Ray was started"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    data = f"{{source: union, sources: {{x: {{source: folder, path: {images}}}}}}}"
    Path("s.yaml").write_text(f"results: {results}\ndata: {{a: {data}}}\n")
    main = {
        "sweep": lambda: sweep.main(["s.yaml", "--dry-run"]),
        "features": lambda: features.main(["s.yaml"]),
    }
    assert main[command]() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"featgan: s\.yaml: results: .* lies in .*/photos, where data\.a looks", line)


def test_results_elsewhere_or_in_a_bucket_are_accepted(plan: Callable[[str], Sweep]) -> None:
    found = plan("{k: 2}")
    for results in ("/data/results", "/data/ab", "s3://data/a/results"):
        checks.refuse_results_among_images(found.model_copy(update={"results": results}))
