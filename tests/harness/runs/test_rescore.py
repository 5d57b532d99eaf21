"""Measuring trained generators again, on a tiny sweep with real networks."""

import hashlib
import json
import sys

import numpy as np
import pytest

from featgan import sample
from featgan.errors import UserError
from featgan.gans.generator_file import generator_bytes
from featgan.gans.registry import build
from featgan.gans.settings import GanSettings
from harness import results
from harness.records.sweep_results import SweepResults
from harness.runs import rescore


class Brightness:
    """Stands for VGG16, whose random weights alone take seconds: counts bright pixels."""

    def __init__(self, settings, device):
        self.size = settings.input_size

    def count(self, images):
        assert images.shape[1:] == (3, self.size, self.size)
        return (images > 127).sum(axis=(1, 2, 3)).astype(np.int16)


@pytest.fixture
def folder(finished_sweep, monkeypatch):
    """One finished run of apples, with all its neighbours."""
    monkeypatch.setattr(rescore, "FeatureCounter", Brightness)
    rescore._counter.cache_clear()
    yield finished_sweep(4)
    rescore._counter.cache_clear()


def test_scores_qualities_and_counts_are_measured_once(folder, monkeypatch, capsys):
    monkeypatch.setitem(rescore.FEATURE_IMAGES, "cpu", 10)
    rescore.rescore(folder, count=50)
    outcome = SweepResults(folder)
    (again,) = outcome.rescored.values()
    assert again.protocol == outcome.runs[0].score_protocol.replace("n=20", "n=50")
    assert again.same_protocol == outcome.runs[0].score_protocol
    assert len(again.fresh_scores) == 2  # two evaluations' worth of 50 images, 10 left over
    assert all(1 <= score <= 2 for score in [again.score, *again.fresh_scores])
    assert again.fresh_scores[0] != again.fresh_scores[1]
    assert len(again.last_fresh_scores) == 2
    assert not {*again.last_fresh_scores} & {*again.fresh_scores}  # another generator's
    run = outcome.frame.iloc[0]
    assert run["fresh"] == pytest.approx(np.mean(again.fresh_scores))
    assert run["fresh_last_sd"] == pytest.approx(np.std(again.last_fresh_scores, ddof=1))
    assert again.feature_counts.images == 10
    assert 0 < again.feature_counts.mean < 3 * 40 * 40
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    assert capsys.readouterr().out.startswith("1 of 1: apples-ascending-seed4: 1.")
    for count in (50, None):
        rescore.rescore(folder, count=count)
    assert {path: path.read_bytes() for path in folder.rglob("*.json")} == before
    assert capsys.readouterr().out == ""


def test_measured_numbers_reach_the_tables(folder, monkeypatch, capsys):
    monkeypatch.setitem(rescore.FEATURE_IMAGES, "cpu", 4)
    assert results.main([str(folder), "--rescore", "--count", "20"]) == 0
    text = (folder / "tables" / "tables.md").read_text()
    assert "bias of evaluations" in text


def test_user_defined_networks_are_imported_when_named(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_rescored.py").write_text("from featgan.gans.dcgan import dcgan as mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    gan = GanSettings(network="own_rescored:mine", width=4, latent=8)
    (file,) = folder.rglob("run.json")
    content = generator_bytes(build(gan, 32, seed=0)[0], gan, 32)
    digest = hashlib.sha256(content).hexdigest()
    for name in ("generator", "last_generator"):
        file.with_name(f"{name}.safetensors").write_bytes(content)
    changes = {"generator_sha256": digest, "last_generator_sha256": digest}
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    del sys.modules["own_rescored"]
    rescored = [str(folder), "--rescore", "--count", "20"]
    assert results.main(rescored) == 2
    assert "--network own_rescored:mine" in capsys.readouterr().err
    assert "own_rescored" not in sys.modules
    monkeypatch.setitem(rescore.FEATURE_IMAGES, "cpu", 4)
    assert results.main([*rescored, "--network", "own_rescored:mine"]) == 0
    del sys.modules["own_rescored"]


def test_a_missing_generator_or_missing_images_are_a_users_error(folder):
    next(folder.glob("runs/*/generator.safetensors")).unlink()
    with pytest.raises(UserError, match="missing, or not the generator"):
        rescore.rescore(folder, count=20)
    features = folder.parent / "features"
    features.rename(features.with_name("moved"))
    with pytest.raises(UserError, match="needs the folder `features/` next to"):
        rescore.rescore(folder, count=20)


@pytest.mark.parametrize("name", ["features.parquet", "pack/00000.npy", "pack", "dataset.json"])
def test_damaged_images_are_reported_before_anything_is_measured(folder, name, capsys, monkeypatch):
    monkeypatch.setattr(rescore, "inception_score", lambda *_: pytest.fail("went on"))
    path = folder.parent / "features" / "apples-0a1b" / name
    rescored = [str(folder), "--rescore", "--count", "20"]
    damages = [lambda: path.rename(path.with_name("moved"))]
    if path.is_file():
        damages.insert(0, lambda: path.write_bytes(path.read_bytes()[:-9]))
    for damage in damages:
        damage()
        assert results.main(rescored) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert str(folder.parent / "features" / "apples-0a1b") in error


@pytest.mark.parametrize(("count", "fresh"), [(4, 0), (19, 0), (40, 2)])
def test_fewer_images_than_in_an_evaluation_give_no_fresh_score(folder, count, fresh, monkeypatch):
    monkeypatch.setitem(rescore.FEATURE_IMAGES, "cpu", 4)
    rescore.rescore(folder, count=count)
    (again,) = SweepResults(folder).rescored.values()
    assert len(again.fresh_scores) == fresh


@pytest.mark.parametrize(
    ("count", "line"), [("3", "at least 4"), ("1000000000000", "takes 1 to 1,000,000 images")]
)
def test_a_count_too_small_or_absurd_is_reported(folder, count, line, capsys):
    assert results.main([str(folder), "--rescore", "--count", count]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"featgan: --count {count}: ")
    assert error.endswith(f"{line}\n")


def test_generators_make_their_images_without_tf32(folder, monkeypatch):
    monkeypatch.setitem(rescore.FEATURE_IMAGES, "cpu", 4)
    seen, convert = set(), sample.to_uint8
    cudnn = rescore.torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    monkeypatch.setattr(
        sample, "to_uint8", lambda images: (seen.add(cudnn.allow_tf32), convert(images))[1]
    )
    rescore.rescore(folder, count=20)
    assert seen == {False}
    assert cudnn.allow_tf32
