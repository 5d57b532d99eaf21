"""A sweep over what images are grouped by, as its user runs it: real processes, a real Ray."""

import csv
import json

import numpy as np
import pandas as pd

from featgan.features import image_values
from harness.records.data_set import open_pack
from harness.storage.store import Store

SWEEP = """
results: {results}
data:
  digits: {{source: builtin, set: digits, count: 40}}
image_size: 32
features: {{weights: random, input_size: 32}}
groups: {{k: 2, method: quantile}}
gan: {{width: 2, latent: 4}}
training: {{stage_epochs: 1, evaluate_every: 1, batch_size: 8}}
score: {{classifier: trained, trained_on: [digits], count: 16, splits: 2}}
grid: {{mode: [ascending], seed: [0], groups.by: [feature_count, edge_density]}}
"""


def test_two_kinds_of_values_as_an_axis_of_the_grid(commands, tmp_path):
    (tmp_path / "by.yaml").write_text(SWEEP.format(results=tmp_path / "results"))
    folder = tmp_path / "results" / "by"
    (folder / "groups").mkdir(parents=True)
    (folder / "groups" / "digits-kmeans-k9.json").write_text("{}")  # of settings since changed
    code, out, err = commands.run("sweep", tmp_path / "by.yaml")
    assert code == 0, err
    assert "2 of 2 runs finished" in out

    (home,) = (tmp_path / "results" / "features").glob("digits-*")
    pack = open_pack(Store(str(tmp_path / "results")), f"features/{home.name}")
    edges = image_values.edge_density(pack.rows(np.arange(len(pack))))
    (kept,) = home.glob("scores/*.parquet")
    assert np.array_equal(pd.read_parquet(kept)["value"], edges)
    names = ["digits-edge_density-quantile-k2", "digits-quantile-k2"]
    assert sorted(path.stem for path in folder.glob("groups/*.json")) == names
    groups = json.loads((folder / "groups" / f"{names[0]}.json").read_text())
    low, high = groups["groups"]
    assert (groups["data"], groups["by"]) == ("digits", "edge_density")
    assert (low["lowest"], high["highest"]) == (edges.min(), edges.max())
    assert low["size"] == (edges <= low["highest"]).sum()
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/run.json"))]
    stages = {run["cell"]["groups.by"]: run["stages"] for run in runs}
    assert [s["images"] for s in stages["edge_density"]] == [low["size"], 40]
    assert len({run["signature"] for run in runs}) == 2

    with (folder / "tables" / f"groups-{names[0]}.csv").open() as file:
        rows = list(csv.reader(file))
    centroid = f"centroid, {groups['label']}"
    assert [row[0] for row in rows[1:]] == [centroid, "lowest", "highest", "images"]
    assert rows[1][1:3] == [str(low["centroid"]), str(high["centroid"])]
    with (folder / "tables" / f"groups-{names[1]}.csv").open() as file:
        assert next(row[0] for row in csv.reader(file) if row[0]) == "centroid, positive features"
    drawn = {path.name for path in (folder / "figures").glob("*.png")}
    assert {"feature-counts.png", "values-edge_density.png"} <= drawn
    assert "edge density (share of the pixels)" in (folder / "report.html").read_text()
