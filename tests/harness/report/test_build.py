"""From a sweep's folder to its tables and figures: whole, half-finished, without Ray."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from harness import results
from harness.records.sweep_results import SweepResults
from harness.report import build


def test_make_writes_tables_and_figures(sweep_folder):
    folder = sweep_folder(seeds=2, length=3)
    build.make(folder)
    text = (folder / "tables" / "tables.md").read_text()
    assert "12 of 12 runs finished." in text
    assert "- VGG16 has random weights." in text
    assert "### apples: epochs to peak and final score, best of n" in text
    names = {path.name for path in (folder / "tables").iterdir()}
    assert {"tables.md", "tables.tex", "scores-apples.csv", "groups-digits-kmeans-k3.csv"} <= names
    figures = {path.name for path in (folder / "figures").iterdir()}
    drawings = ["feature-counts"]
    drawings += [f"{kind}-{data}" for kind in ("seeds", "curves") for data in ("apples", "digits")]
    assert figures == {"samples-apples.png", "samples-digits.png"} | {
        f"{stem}.{kind}" for stem in drawings for kind in ("png", "svg")
    }


def test_a_sweep_whose_runs_all_failed_has_its_tables(sweep_folder):
    folder = sweep_folder(data_sets=("a",), seeds=1, length=2)
    for path in folder.glob("runs/*/run.json"):
        record = json.loads(path.read_text()) | {"status": "failed", "reason": "no disk"}
        path.write_text(json.dumps(record))
    text = build.summary(build.make(folder), folder)
    assert "0 of 3 runs finished." in text
    assert "means or best of n (failed: no disk): a-descending-seed0, a-ascending-seed0" in text
    assert not list((folder / "tables").glob("seeds-*.csv"))


@pytest.mark.filterwarnings("ignore:html5lib:DeprecationWarning")
def test_the_printed_command_shows_all_sample_grids(sweep_folder):
    from tensorboard.backend.event_processing.data_ingester import LocalDataIngester
    from tensorboard.default import get_plugins
    from tensorboard.program import TensorBoard

    folder = sweep_folder(data_sets=("a",), seeds=1, length=2)
    with SummaryWriter(str(folder / "runs/a")) as writer:
        for step in range(12):
            writer.add_image("samples", np.zeros((3, 8, 8), np.uint8), step)
    command = build.summary(SweepResults(folder), folder).splitlines()[-1]
    board = TensorBoard(get_plugins())
    board.configure(argv=["tensorboard", *shlex.split(command)[4:]])
    events = LocalDataIngester(board.flags).deprecated_multiplexer
    events.AddRunsFromDirectory(board.flags.logdir).Reload()
    assert [event.step for event in events.Tensors("runs/a", "samples")] == [*range(12)]


def test_old_tables_and_figures_are_removed_other_files_kept(sweep_folder):
    folder = sweep_folder(seeds=1, length=2)
    (folder / "tables").mkdir()
    (folder / "figures").mkdir()
    old = [folder / "tables" / "old.csv", folder / "figures" / "old.png"]
    kept = folder / "tables" / "notes.txt"
    for path in [*old, kept]:
        path.write_text("")
    build.make(folder)
    assert kept.exists()
    assert not any(path.exists() for path in old)


def test_a_half_finished_sweep_says_what_is_missing(sweep_folder, capsys):
    folder = sweep_folder(seeds=1, length=2)
    for path in folder.glob("runs/digits-*/run.json"):
        path.unlink()
    assert results.main([str(folder)]) == 0
    screen = capsys.readouterr().out
    assert "3 of 6 runs finished." in screen
    assert "Not begun: digits-descending-seed0, digits-ascending-seed0" in screen


def test_a_full_disk_is_one_line_and_no_wrong_tables(sweep_folder, small_disk, fill, capsys):
    folder = sweep_folder(seeds=1, length=2)
    there = shutil.copytree(folder, small_disk / folder.name)
    for room in (0, 4096, 64 * 1024):
        ballast = fill(small_disk, room)
        assert results.main([str(there)]) == 1
        error = capsys.readouterr().err
        assert "No space left on device" in error
        assert error.count("\n") == 1
        ballast.unlink()
    assert results.main([str(there)]) == 0
    build.make(folder)
    expected = {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
    assert {path.name: path.read_bytes() for path in (there / "tables").iterdir()} == expected
    assert (there / "report.html").read_bytes() == (folder / "report.html").read_bytes()


def test_generators_stuck_on_one_image_at_their_peak_are_named(sweep_folder):
    """The generator that is saved is that of the peak."""
    folder = sweep_folder(seeds=1, length=3)
    stuck, recovered = "digits-ascending-seed0", "digits-descending-seed0"
    for name, at_peak in ((stuck, True), (recovered, False)):
        (path,) = folder.glob(f"runs/{name}-*/run.json")
        record = json.loads(path.read_text())
        last = record["stages"][-1]
        for evaluation in record["evaluations"]:
            is_peak = (evaluation["stage"], evaluation["epoch"]) == (3, last["peak_epoch"])
            evaluation["spread"] = 0.4 if is_peak == at_peak else 30.0
        path.write_text(json.dumps(record))
    build.make(folder)
    lines = (folder / "tables" / "tables.md").read_text().splitlines()
    (collapsed,) = [
        line for line in lines if line.startswith("- Collapsed (over half of the images")
    ]
    assert stuck in collapsed
    assert recovered not in collapsed


def test_made_again_the_tables_and_figures_are_the_same_bytes(sweep_folder):
    folder = sweep_folder(seeds=1, length=2)

    def made():
        build.make(folder)
        files = [*(folder / "tables").iterdir(), *(folder / "figures").iterdir()]
        return {path.name: path.read_bytes() for path in files}

    assert made() == made()


def test_a_wrong_folder_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert results.main([str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_needs_no_ray(sweep_folder):
    code = "import sys; from harness import results; results.main(sys.argv[1:]); " + (
        "sys.exit('ray' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(sweep_folder(seeds=1, length=2))]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_damaged_files_are_named_and_end_no_tables(sweep_folder, capsys):
    folder = sweep_folder(seeds=1, length=2)
    for name, log in (("silent", b""), ("binary", b"first\n\xff\xfe\n")):
        (folder / "runs" / name).mkdir()
        (folder / "runs" / name / "failures.txt").write_bytes(log)
    (folder / "sweep.json").write_text('{"name": "s", "cells": [{}]}')
    record = json.loads(next(folder.glob("runs/*/run.json")).read_text())
    record.pop("sha256", None)  # as somebody who edits it by hand
    (folder / "runs" / "odd").mkdir()
    (folder / "runs" / "odd" / "run.json").write_text(json.dumps(record | {"cell": {}}))
    assert results.main([str(folder)]) == 0
    said = capsys.readouterr().out
    assert "silent failed before its training began: no reason given" in said
    assert "binary failed before its training began: \ufffd\ufffd" in said
    assert "sweep.json: cannot be read: cells.0: a cell has text for data and mode" in said
    assert "odd/run.json: cannot be read: cell: a cell has text for data and mode" in said


def test_a_place_for_tables_that_is_a_file_is_one_line(sweep_folder, capsys):
    folder = sweep_folder(seeds=1, length=2)
    (folder / "tables").write_text("")
    assert results.main([str(folder)]) == 2
    assert capsys.readouterr().err == f"featgan: {folder / 'tables'}: File exists; remove it\n"


def test_mistakes_of_the_command_are_one_line_without_secrets(tmp_path, capsys):
    assert results.main([str(tmp_path), "--rescore", "--count", "0"]) == 2
    assert results.main(["s3://KEY:SECRET@bucket/results"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == "featgan: --count 0: a re-score takes 1 to 1,000,000 images"
    assert len(errors) == 2
    assert "SECRET" not in errors[1]


def test_runs_that_changed_their_kind_of_machine_are_named(sweep_folder):
    folder = sweep_folder(data_sets=("a",), seeds=2, length=2)
    runs = {run.cell["seed"]: run for run in SweepResults(folder).runs if "asc" in run.run}
    kinds = ["n1: cpu (x), torch 2.14", "n2: cpu (x), torch 2.14", "n2: cpu (x), torch 2.15"]
    for seed, machines in ((0, kinds[:2]), (1, kinds)):
        (folder / "runs" / runs[seed].run / "run.json").unlink()
        record = runs[seed].model_copy(update={"machines": tuple(machines)})
        (folder / "runs" / runs[seed].run / "run.json").write_bytes(record.to_json())
    lines = build.state(SweepResults(folder))
    found = [line for line in lines if line.startswith("Continued on another device or PyTorch")]
    assert len(found) == 1
    assert found[0].endswith(": a-ascending-seed1.")


def test_a_finished_run_without_a_final_score_costs_only_itself(sweep_folder):
    folder = sweep_folder(data_sets=("apples",), seeds=1, length=2)
    (path,) = folder.glob("runs/apples-ascending-*/run.json")
    record = json.loads(path.read_text()) | {"final_score": None}
    path.write_text(json.dumps(record))
    build.make(folder)
    assert "\n| ascending | \u2013 |" in (folder / "tables" / "tables.md").read_text()
    assert results.main([str(folder), str(folder)]) == 0


def test_standard_output_may_lack_letters_or_be_closed(sweep_folder):
    command = [
        sys.executable,
        "-m",
        "harness.results",
        str(sweep_folder(seeds=1, length=2)),
    ]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=ascii_only)
    assert (done.returncode, done.stderr) == (0, b"")
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"")


def test_the_answers_come_first_everywhere(sweep_folder, capsys):
    folder = sweep_folder(data_sets=("apples",), seeds=2, length=2)
    assert results.main([str(folder)]) == 0
    said = "Descending training needs fewer epochs to its peak than conventional on apples: "
    screen, tables = capsys.readouterr().out, (folder / "tables" / "tables.md").read_text()
    page = (folder / "report.html").read_text()
    for text, table in (
        (screen, "apples: feature groups"),
        (tables, "### apples: feature groups"),
        (page, "<figcaption>apples: feature groups"),
    ):
        assert 0 < text.index(said) < text.index(table)
    assert page.index("apples: score of every seed") < page.index("<figcaption>apples: feature gr")
