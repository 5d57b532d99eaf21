"""Files of two sweeps with a data set of one name, swapped: what contradicts is left out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.records.run_record import RunRecord
from harness.records.sweep_records import DataRecord, RealRecord, RealScore
from harness.records.sweep_results import Outcome

FILES = {
    "data": "data/a.json",
    "groups": "groups/a-kmeans-k1.json",
    "ceilings": "ceilings/a-0.json",
    "real": "real/a.json",
}
QUALITIES = dict.fromkeys(("sharpness", "saturation", "colourfulness", "diversity"), 1.0)
QUALITIES |= {"images": 4, "near_duplicates": 0.0, "nearest_training": 1.0}


def write(folder: Path, make_run: Callable[..., RunRecord], digest: str, images: int) -> Path:
    """A sweep of one run on a data set `a`."""
    key, cell = f"features/a-{digest}", {"data": "a", "mode": "ascending", "seed": 0}
    about = {"data_key": key, "data_digest": digest}
    run = make_run(cell, [[2.0]], [[1]], images=[images]).model_copy(update=about)
    group = {"number": 1, "centroid": 5.0, "size": images, "lowest": 5, "highest": 5}
    groups = {"data": "a", "by": "feature_count", "label": "x", "method": "kmeans", "k": 1}
    groups |= {"format": 2, "groups": [group], "histogram": {5: images}}
    score = {"protocol": "p", "images": images, "score": 2.0, "score_std": 0.1}
    real = RealRecord(name="a", digest=digest, qualities=QUALITIES, feature_counts=None)
    files = {
        f"runs/{run.run}/run.json": run.to_json(),
        FILES["data"]: DataRecord(name="a", key=key, digest=digest, images=images).to_json(),
        FILES["groups"]: json.dumps(groups).encode(),
        FILES["ceilings"]: RealScore(name="a", digest=digest, **score).to_json(),
        FILES["real"]: real.to_json(),
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def sweeps(tmp_path: Path, make_run: Callable[..., RunRecord]) -> tuple[Path, Path]:
    mine, other = tmp_path / "mine", tmp_path / "other"
    return write(mine, make_run, "0a", 8), write(other, make_run, "0b", 9)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_another_sweep_is_left_out_and_named(
    sweeps: tuple[Path, Path], kind: str
) -> None:
    mine, other = sweeps
    whole = Outcome.read(mine)
    assert whole.problems == []
    shutil.copy(other / FILES[kind], mine / FILES[kind])
    found = Outcome.read(mine)
    (problem,) = found.problems
    assert problem.startswith(f"{mine / FILES[kind]}: left out: ")
    for name in FILES:
        assert bool(getattr(found, name)) == (name != kind)


def test_what_a_record_of_old_or_a_half_done_sweep_does_not_tell_is_no_problem(
    sweeps: tuple[Path, Path], make_run: Callable[..., RunRecord]
) -> None:
    mine, other = sweeps
    variant = DataRecord(name="a", key="features/a-0000cc", digest="0c", images=8)
    (mine / "data" / "a.0000cc.json").write_bytes(variant.to_json())  # not trained on yet
    for kind in ("groups", "ceilings", "real"):
        (other / FILES[kind]).unlink()
    (other / FILES["data"]).write_bytes(DataRecord(name="a", images=9).to_json())
    for folder in sweeps:
        assert Outcome.read(folder).problems == []
    (mine / FILES["data"]).unlink()
    (mine / "data" / "a.0000cc.json").unlink()
    assert Outcome.read(mine).problems == []


def test_the_same_images_under_another_key_are_the_runs(sweeps: tuple[Path, Path]) -> None:
    """Files that were written anew, or listed otherwise, are counted anew; the runs stay done."""
    mine, _ = sweeps
    record = json.loads((mine / FILES["data"]).read_bytes())
    del record["sha256"]
    (mine / FILES["data"]).write_text(json.dumps(record | {"key": "features/a-1"}))
    assert Outcome.read(mine).problems == []
