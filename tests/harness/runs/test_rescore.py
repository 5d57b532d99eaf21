"""Measuring trained generators again, on a tiny sweep with real networks."""

import hashlib
import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from featgan import sample
from featgan.errors import UserError
from featgan.gans.classes import draw
from featgan.gans.generator_file import generator_bytes
from featgan.gans.registry import build
from featgan.gans.settings import GanSettings
from featgan.scores import feature_networks
from featgan.scores.classifiers import FeatureNetwork
from featgan.scores.metrics.fid import frechet_distance
from featgan.scores.metrics.statistics import FeatureStatistics
from featgan.scores.settings import ScoreSettings
from featgan.seeds import stream
from harness import results
from harness.records.data_set import DataSet, held_out, open_pack
from harness.records.sweep_records import DataRecord
from harness.records.sweep_results import SweepResults
from harness.runs import rescore
from harness.storage.store import Store


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


@pytest.fixture
def several(finished_sweep, monkeypatch):
    """Three finished runs, whose features by another network are those of coloured squares."""
    monkeypatch.setattr(rescore, "FeatureCounter", Brightness)
    monkeypatch.setitem(rescore.FEATURE_IMAGES, "cpu", 4)
    for cached in (rescore._counter, rescore._classifier, rescore._real_features):
        cached.cache_clear()

    def load(name, weights, device):
        return FeatureNetwork(f"{name}-{weights}", lambda images: images.float().mean((2, 3)))

    monkeypatch.setattr(feature_networks, "load_vit", load)
    yield finished_sweep(4, 5, 6)
    rescore._counter.cache_clear()


DINO = ["--rescore", "--count", "20", "--features", "dinov2-vit-l-14", "--metrics"]


def columns_of(folder, table="further-apples.csv"):
    return pd.read_csv(folder / "tables" / table)


def test_metrics_are_measured_later_once(several, capsys):
    lost = next(several.glob("runs/*seed5*/generator.safetensors"))
    lost.rename(lost.with_name("moved"))
    assert results.main([str(several), *DINO, "fid,authpct"]) == 0
    out = capsys.readouterr().out
    assert "apples-ascending-seed5: not measured, as its generator is gone\n" in out
    assert "2 of 2: apples-ascending-seed6" in out
    how = "{} dinov2-vit-l-14-None n=20 real=30 width=3 fp32".format
    table = columns_of(several)
    fid = f"fid: {how('FID')}"
    names = ["pattern", "runs", fid, f"authpct: {how('AUTHPCT')}"]
    assert [*table] == names
    assert table["runs"].tolist() == [2]
    assert "Not measured: apples-ascending-seed5." in (several / "tables/tables.md").read_text()

    outcome = SweepResults(several)
    images = open_pack(Store(str(several.parent)), "features/apples-0a1b").rows(np.arange(30))
    training = FeatureStatistics(torch.from_numpy(images).float().mean((2, 3)))
    found = []
    for run in outcome.runs:
        if run.cell["seed"] != 5:
            kept = sample.load_generator(several / "runs" / run.run / sample.GENERATOR)
            noise = draw(8, kept.classes, 256, stream(run.cell["seed"], "rescore"))
            made = torch.from_numpy(sample.generate(kept, noise)[:20]).float().mean((2, 3))
            found.append(frechet_distance(training, made))
    assert table[fid][0] == pytest.approx(np.mean(found), rel=1e-3)

    before = {path: path.read_bytes() for path in several.rglob("rescored.json")}
    assert results.main([str(several), *DINO, "fid,authpct"]) == 0
    assert {path: path.read_bytes() for path in several.rglob("rescored.json")} == before
    assert " of 2: " not in capsys.readouterr().out
    scores = [of.fresh_scores for of in SweepResults(several).rescored.values()]
    kid = [*DINO[:2], "40", *DINO[3:], "kid"]
    assert results.main([str(several), *kid]) == 0  # the others stay, in their columns
    assert [of.fresh_scores for of in SweepResults(several).rescored.values()] == scores
    more = columns_of(several)
    assert [*more][:2] == names[:2]
    assert {*more} > {*names}
    assert all(column.count(": ") == 1 for column in {*more} - {*names[:2]})


def test_later_metrics_do_not_need_the_last_generator(several, capsys):
    assert results.main([str(several), "--rescore", "--count", "20"]) == 0
    for path in several.rglob("last_generator.safetensors"):
        path.unlink()
    before = SweepResults(several).rescored
    assert results.main([str(several), *DINO, "fid"]) == 0
    for name, after in SweepResults(several).rescored.items():
        assert after.further
        assert before[name] == after.model_copy(update={"further": {}})


def test_weights_and_not_their_path_tell_requests_apart(several, tmp_path, capsys):
    file = tmp_path / "vit.safetensors"
    asked = [str(several), *DINO, "fid", "--features-weights"]
    for name, content, measured in (("a", b"1", 3), ("b", b"1", 0), ("b", b"2", 3)):
        file = tmp_path / name
        file.write_bytes(content)
        assert results.main([*asked, str(file)]) == 0
        assert capsys.readouterr().out.count(" of 3: ") == measured


def test_a_run_of_an_unknown_data_set_is_not_measured_again(several, capsys):
    (several / "data" / "apples.json").unlink()
    assert results.main([str(several), "--rescore"]) == 2
    assert "data: no record for " in capsys.readouterr().err


def test_later_metrics_have_the_held_out_images_beside(several):
    path = several / "data" / "apples.json"
    record = DataRecord.model_validate_json(path.read_bytes())
    path.write_bytes(record.model_copy(update={"source": {"held_out": 0.4}}).to_json())
    further = ScoreSettings(metrics=["fid"], features="dinov2-vit-l-14")
    rescore.rescore(several, count=20, further=further)
    store, data = Store(str(several.parent)), DataSet(**dict(record), held_out=0.4)
    apart = int(held_out(store, data).sum())
    assert 2 <= apart <= 20
    how = f"FID dinov2-vit-l-14-None n={{}} real={30 - apart} width=3 fp32".format
    names = [f"fid: {how(20)}", f"fid: {how(apart)}", f"fid of held-out images: {how(apart)}"]
    for again in SweepResults(several).rescored.values():
        (numbers,) = again.further.values()
        assert [*numbers] == names
        assert numbers[names[2]] < numbers[names[1]]  # noise looks like noise


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--rescore", "--metrics", "cmmd"], "--metrics: .*cmmd is defined for features: clip"),
        (["--rescore", "--metrics", "fidd"], r"--metrics: metrics\.0: 'fidd' is none of fid, "),
        (["--rescore", "--metrics", "fid", "--features", "vit"], "--metrics: features: "),
        (["--rescore", "--features", "vgg16"], "--features: needs --metrics"),
        (["another", "--metrics", "fid"], "a re-score takes one folder"),
    ],
)
def test_metrics_that_contradict_are_refused(tmp_path, options, line, capsys):
    assert results.main([str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert re.match(f"featgan: {line}", error)
    assert error.count("\n") == 1
