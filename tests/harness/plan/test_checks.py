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
from harness.sources import ParquetSource

FILE = """
results: {results}
data:
  a: {{source: folder, path: /data/a}}
  b: {{source: celeba, path: /data/b}}
image_size: 32
score: {{classifier: inception, weights: /data/inception.pth}}
groups: {groups}
"""
HUB = {"a": ParquetSource(source="parquet", path="hf://datasets/someone/pictures")}
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
    monkeypatch.setattr(connect, "connect", lambda **_: pytest.fail("Ray was started"))
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

    monkeypatch.setattr(connect, "connect", lambda **_: connect.Engine(None, 1, 0))
    monkeypatch.setattr(preflight, "check_cluster", ask)
    monkeypatch.setattr(checks, "check_environment", lambda *_: None)
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
    monkeypatch.setattr(connect, "connect", lambda **_: pytest.fail("Ray was started"))
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
        checks.check_results(found.model_copy(update={"results": results}))


@pytest.mark.parametrize("command", [sweep.run_sweep, features.count_and_group])
@pytest.mark.parametrize(
    ("settings", "package", "line"),
    [
        (
            {},
            "torch_fidelity",
            r"classifier:inception needs torch_fidelity, .* -e '\.\[inception\]' -c",
        ),
        (
            {"results": "s3://bucket/x"},
            "s3fs",
            r"s3:// needs s3fs, .* -e '\.\[s3\]' -c",
        ),
        ({"results": "gs://bucket/x"}, "gcsfs", r"gs:// needs gcsfs, which is missing: pip "),
        ({"data": HUB}, "huggingface_hub", r"hf:// needs huggingface_hub, .* -e '\.\[hf\]' -c"),
    ],
    ids=["classifier", "s3", "gs", "hf"],
)
def test_a_package_that_is_not_installed_is_named_before_anything(
    plan: Callable[[str], Sweep],
    command: Callable[[Sweep, Screen], int],
    settings: dict[str, Any],
    package: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = plan("{k: 2}").model_copy(update=settings)
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == package else name)
    monkeypatch.setattr(connect, "connect", lambda **_: pytest.fail("Ray was started"))
    with pytest.raises(UserError, match=line):
        command(found, Screen())


def test_keras_weights_need_h5py(
    plan: Callable[[str], Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = [Grid.model_validate({"features.weights": ["random", "/data/vgg16.h5"]})]
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "h5py" else name)
    checks.check_environment(plan("{k: 2}"), [])
    with pytest.raises(UserError, match=r"weights:/data/vgg16\.h5 needs h5py, .*'\.\[keras\]'"):
        checks.check_environment(plan("{k: 2}").model_copy(update={"grid": grid}), [])


def test_features_of_vision_transformers_need_timm(
    plan: Callable[[str], Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = [
        Grid.model_validate({"score.metrics": [["fid"]], "score.features": ["dinov2-vit-l-14"]})
    ]
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "timm" else name)
    checks.check_environment(plan("{k: 2}"), [])
    with pytest.raises(UserError, match=r"features:dinov2-vit-l-14 needs timm, .*'\.\[timm\]'"):
        checks.check_environment(plan("{k: 2}").model_copy(update={"grid": grid}), [])


def test_relative_results_of_a_submitted_job_are_refused(
    plan: Callable[[str], Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = plan("{k: 2}")
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0a1b"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    checks.check_results(found)
    with pytest.raises(UserError, match=r"results: results is relative, .*; give an absolute path"):
        checks.check_results(found.model_copy(update={"results": "results"}))
