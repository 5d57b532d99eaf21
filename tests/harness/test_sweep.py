"""The command as its user runs it: real processes, a real Ray, a real kill."""

import os
import re
import shlex
import shutil
import signal
import sys
import uuid

import pytest
from outcome import records
from polling import await_
from processes import LOOPBACK, MARK, Commands, listening, marked

from harness.storage import lock
from harness.storage.lock import Holder
from harness.storage.store import Store
from harness.sweep import main

TINY = """
results: {results}
data:
  apples: {{source: builtin, set: apples, count: 45}}
  digits: {{source: builtin, set: digits, count: 45}}
image_size: 32
features: {{weights: random, input_size: 32}}
gan: {{width: 2, latent: 4}}
training: {{stage_epochs: {epochs}, evaluate_every: 2, batch_size: 8, learning_rate: 0.01}}
score: {{classifier: trained, trained_on: [apples, digits], count: 16, splits: 2}}
grid: {{mode: [descending, conventional], seed: {seeds}}}
resources: {{checkpoint_minutes: 0}}
"""


@pytest.fixture
def sweep_file(tmp_path):
    def write(seeds=(0,), epochs=4, extra=""):
        return written(tmp_path, seeds, epochs, extra)

    return write


def written(folder, seeds=(0,), epochs=4, extra=""):
    path = folder / "tiny.yaml"
    results = folder / "results"
    path.write_text(TINY.format(results=results, seeds=list(seeds), epochs=epochs) + extra)
    return path


@pytest.fixture
def prepared(undisturbed, tmp_path):
    """A results folder that holds what the runs share."""
    results = tmp_path / "results"
    for made in ("features", "tiny/classifier"):
        shutil.copytree(undisturbed / made, results / made)
    return results


@pytest.fixture(scope="module")
def undisturbed(own_ray, tmp_path_factory):
    """The results of a sweep that nothing disturbed."""
    home = tmp_path_factory.mktemp("undisturbed")
    code, out, err = Commands().run("sweep", written(home, epochs=20))
    assert code == 0, err
    assert "4 of 4 runs finished" in out
    assert "Traceback" not in err
    assert "rror" not in err
    return home / "results"


def await_evaluations(process, folder):
    def begun():
        return any(record["evaluations"] for record in records(folder).values())

    await_(begun, "an evaluation", process=process)


def scores(folder):
    return {
        name: [(e["stage"], e["epoch"], e["score"]) for e in record["evaluations"]]
        for name, record in records(folder).items()
    }


def test_a_dry_run_says_how_many_seeds_a_difference_takes(sweep_file, tmp_path, capsys):
    file = sweep_file(extra="verdict: {difference: 0.1}\n")
    assert main([str(file), "--dry-run"]) == 0
    assert "run and re-score two seeds of what a claim compares" in capsys.readouterr().out
    file = sweep_file(extra=f"verdict: {{difference: 0.1, sd_from: {tmp_path}/earlier}}\n")
    assert main([str(file), "--dry-run"]) == 2
    assert f"{tmp_path}/earlier: no such folder" in capsys.readouterr().err
    for empty in (".", "..", "/", "~"):
        file = sweep_file(extra=f"verdict: {{difference: 0.1, sd_from: '{empty}'}}\n")
        assert main([str(file), "--dry-run"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_dry_run_prints_settings_grid_and_runs(sweep_file, tmp_path):
    code, out, err = Commands().run("sweep", sweep_file(seeds=(3, 5)), "--dry-run")
    assert (code, err) == (0, "")
    assert "- mode:\n  - descending\n  - conventional\n  seed:\n  - 3\n  - 5\n" in out
    assert "runs: 8" in out
    assert "stage_epochs: 4" in out
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("nowhere", "there is no file or folder {}/nowhere"),
        (
            "a.zip",
            "data: there is no folder {}/a.zip but a file; unpack it, or write `source: archive`",
        ),
        (
            "flat",
            "data: no images in {}/flat; skipped: nothing (unpack archives, or write "
            "`source: archive`)",
        ),
    ],
)
def test_a_dry_run_refuses_the_folders_that_a_sweep_refuses(path, line, tmp_path, capsys):
    (tmp_path / "a.zip").touch()
    (tmp_path / "flat").mkdir()
    file = tmp_path / "mine.yaml"
    file.write_text(f"data: {{a: {{source: folder, path: {tmp_path}/{path}}}}}\n")
    assert main([str(file), "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert out.endswith("runs: 9\n")
    assert err == f"featgan: {line.format(tmp_path)}\n"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("groops: {}", "tiny.yaml: groops: unknown key; did you mean 'groups'?"),
        pytest.param("groups: {k: 60}", "featgan: data.apples: ", marks=pytest.mark.slow),
        ("max_rejected: 2", "tiny.yaml: max_rejected: input should be less than or equal to 1"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(sweep_file, extra, message):
    code, out, err = Commands().run("sweep", sweep_file(extra=extra))
    assert code == 2
    assert out == ""
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.guarantee(
    "Faults",
    "SIGKILL of any process at any moment: the same command ends with the undisturbed tables "
    "and generators",
)
def test_a_killed_sweep_continues_and_repeats_nothing(commands, sweep_file, undisturbed, prepared):
    """Kill the command during runs; run it again, and compare bytes with an undisturbed sweep."""
    file = sweep_file(epochs=20)
    folder = prepared / "tiny"
    process = commands.start("sweep", file)

    def one_has_finished():
        return any(record["status"] == "finished" for record in records(folder).values())

    await_(one_has_finished, "a run has finished", process=process)
    process.kill()
    process.communicate()
    done = {n: r for n, r in records(folder).items() if r["status"] == "finished"}
    assert 0 < len(done) < 4

    code, _, err = commands.run("sweep", file)
    assert code == 0, err
    done_again = [int(number) for number in re.findall(r"\b(\d+) done, \d+ half done", err)]
    # another run may have finished too, before its process noticed that the driver is dead
    assert [number >= len(done) for number in done_again] == [True], err
    after = records(folder)
    assert {name: after[name] for name in done} == done  # untouched, timings and all
    assert scores(folder) == scores(undisturbed / "tiny")
    for path in sorted(folder.glob("runs/*/generator.safetensors")):
        twin = undisturbed / "tiny" / path.relative_to(folder)
        assert path.read_bytes() == twin.read_bytes()
    tables = sorted((undisturbed / "tiny" / "tables").glob("scores-*.csv"))
    assert len(tables) == 2
    for twin in tables:
        assert (folder / "tables" / twin.name).read_text() == twin.read_text()


@pytest.mark.guarantee(
    "Faults",
    "Ctrl-C, SIGTERM or a closed terminal (not under `nohup`) lets runs save themselves",
)
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow, id="ctrl-c"),
        pytest.param(signal.SIGTERM, id="term"),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow, id="closed terminal"),
    ],
)
def test_a_stopped_sweep_saves_its_runs(commands, sweep_file, prepared, number):
    file = sweep_file(epochs=200)
    folder = prepared / "tiny"
    mark = f"{os.getpid()}-{number}"
    process = commands.start("sweep", file, env={MARK: mark})
    await_evaluations(process, folder)
    addresses = listening(marked(mark))
    assert addresses, "Ray listens: the test must see it"
    assert addresses <= LOOPBACK
    if number == signal.SIGHUP:  # of all that the terminal has, and more than once
        for pid in marked(mark):
            os.kill(pid, number)
    process.send_signal(number)
    code, _, err = commands.finish(process)
    assert code == 1
    assert f"run the same command again to continue: {sys.executable} " in err
    assert "Traceback" not in err
    stopped = records(folder)
    assert {record["status"] for record in stopped.values()} == {"interrupted"}
    assert all((folder / "runs" / name / "checkpoint.pt").exists() for name in stopped)


def test_a_second_ctrl_c_stops_at_once(commands, sweep_file, prepared):
    process = commands.start("sweep", sweep_file(epochs=20000))
    await_evaluations(process, prepared / "tiny")
    process.send_signal(signal.SIGINT)
    while process.poll() is None and "stopping" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    code, _, err = commands.finish(process, 60)
    assert code == 1
    command = shlex.join(process.args)
    assert err.splitlines()[-1] == f"featgan: stopped at once; to continue: {command}"


@pytest.mark.slow  # in CI test_lock's, without runs
def test_a_driver_whose_sweep_was_taken_over_ends_its_runs(
    commands, sweep_file, prepared, monkeypatch
):
    """Suspend a driver, as a closed laptop does, until another driver takes its sweep over."""
    mark = uuid.uuid4().hex
    process = commands.start("sweep", sweep_file(epochs=20000), env={MARK: mark})
    folder = prepared / "tiny"
    await_evaluations(process, folder)
    process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "elsewhere")
    store = Store(str(prepared))
    with lock.SweepLock(store, "tiny", beat=0.1, patience=0.5, notice=lambda _: None):
        process.send_signal(signal.SIGCONT)
        code, _, err = commands.finish(process, 60)
        assert Holder.model_validate_json(store.get("tiny/lock.json")).pid == os.getpid()
    assert code == 2
    assert f"sweep tiny was taken over by process {os.getpid()} of" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not store.exists("tiny/stop")
    assert {record["status"] for record in records(folder).values()} == {"running"}
    await_(lambda: not marked(mark), "its runs and its Ray have ended", 120)
