"""A run whose process is killed, whenever and however often, ends with the same bytes.

Real processes and a real SIGKILL. This file is also what the processes run: they are forked
from a server that has imported the libraries once, under the name `__child__`.
"""

import math
import multiprocessing
import os
import random
import runpy
import signal

import pytest
import torch
from small_run import left_by as files_left_by
from small_run import options, put_shared, read, small_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import harness.storage.store
from featgan import checkpoint
from harness.runs.run_folder import RunFolder
from harness.runs.trial import run_trial
from harness.storage.store import Store

pytestmark = pytest.mark.guarantee(
    "Faults",
    "SIGKILL of any process at any moment: the same command ends with the undisturbed tables "
    "and generators",
)

EVERY_EVALUATION = options(checkpoint_minutes=0)
LATEST, BEFORE = "checkpoint.pt", "checkpoint.previous.pt"
EVALUATIONS = 6
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["harness.runs.trial"])

MATRIX = [
    pytest.param(size, mode, precision, id=f"{size}px-{mode}-{precision}")
    for size in (32, 64)
    for mode in ("ascending", "conventional")
    for precision in ("fp32", "bf16")
]


# In the child process.


def train(root, run, dies, reports):
    """Train a run and send the number of evaluations; `dies` is where to kill this process."""
    if dies is not None:
        kind, when = dies
        DEATHS[kind](when)
    run_trial(
        run, Store(root), EVERY_EVALUATION, lambda record: reports.send(len(record.evaluations))
    )


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_writing(nth):
    """Die with half of the n-th checkpoint in the temporary file."""
    original, seen = harness.storage.store._sync, []

    def sync(path):
        if LATEST in path.name:
            seen.append(path)
            if len(seen) == nth:
                os.truncate(path, path.stat().st_size // 2)
                die()
        original(path)

    harness.storage.store._sync = sync


def die_between_names(nth):
    """Die with the n-th checkpoint's predecessor renamed, and nothing yet in its place."""
    original, seen = Store.move, []

    def move(store, key, to):
        original(store, key, to)
        seen.append(key)
        if len(seen) == nth:
            die()

    Store.move = move


def die_behind(evaluations):
    """Die after the second of two evaluations, with the first one's checkpoint as the latest."""
    saved, last = evaluations
    original = RunFolder.observe

    def observe(folder, evaluation):
        number = len(folder.trainer.evaluations)
        folder._saved = -math.inf if number == saved else math.inf
        record = original(folder, evaluation)
        if number == last:
            die()
        return record

    RunFolder.observe = observe


DEATHS = {"writing": die_while_writing, "between": die_between_names, "behind": die_behind}


# In the tests.


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a store with what runs share, for both image sizes: features, groups, classifier."""
    store = Store(str(tmp_path_factory.mktemp("data")))
    put_shared(store, sizes=(32, 64))
    return store


@pytest.fixture(scope="module")
def expected(data):
    """Return what the undisturbed default run leaves."""
    run = small_run("straight")
    assert finish(data, run) == 0
    return left_by(data, run)


def begin(store, run, dies=None):
    """Start a process; return it and the end of a pipe that receives its evaluations."""
    reports, sender = PROCESSES.Pipe(duplex=False)
    arguments = {"arguments": (store.root, run, dies, sender)}
    process = PROCESSES.Process(
        target=runpy.run_path, args=(__file__, arguments, "__child__"), daemon=True
    )
    process.start()
    sender.close()
    return process, reports


def finish(store, run, dies=None):
    """Train the run in another process until it ends; return the exit code."""
    process, reports = begin(store, run, dies)
    with reports:
        try:
            while True:
                reports.recv()
        except EOFError:
            process.join()
    return process.exitcode


def kill_after(store, run, evaluations, seconds):
    """Train the run, and kill it some seconds after a number of further evaluations."""
    process, reports = begin(store, run)
    with reports:
        try:
            for _ in range(evaluations):
                reports.recv()
            process.join(seconds)
            process.kill()
        except EOFError:
            pass
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode


def left_by(store, run):
    """Return all that a run leaves without its timings: record, samples, generator, checkpoint."""
    state = checkpoint.load(store.get(f"{run.folder}/{LATEST}"))["trainer"]
    del state["seconds"]
    for evaluation in state["evaluations"]:
        del evaluation["images_per_second"]
    return [*files_left_by(store, run), state]


def same(a, b):
    """Return whether two nested states are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        as_bytes = [tensor.contiguous().flatten().view(torch.uint8) for tensor in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*as_bytes)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def check_random_kills(store, size, mode, precision, seeds):
    """Kill a run at random moments until it finishes, once for each of `seeds`."""
    straight = small_run("undisturbed", size=size, mode=mode, precision=precision)
    assert finish(store, straight) == 0
    seconds = read(store, straight).seconds
    pace = (seconds.train + seconds.score + seconds.io) / EVALUATIONS
    expected = left_by(store, straight)
    for seed in seeds:
        run = small_run(f"killed{seed}", size=size, mode=mode, precision=precision)
        when = random.Random(seed)
        while kill_after(store, run, when.randint(1, 3), when.random() * pace):
            pass
        assert read(store, run).continued > 0
        assert same(left_by(store, run), expected), f"killed at the moments of seed {seed}"


@pytest.mark.parametrize(("size", "mode", "precision"), [MATRIX[0], MATRIX[-1]])
def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(data, size, mode, precision):
    check_random_kills(data, size, mode, precision, seeds=[0])


@pytest.mark.slow
@pytest.mark.parametrize(("size", "mode", "precision"), MATRIX)
def test_every_kind_of_run_killed_at_ten_moments(data, size, mode, precision):
    check_random_kills(data, size, mode, precision, seeds=range(1, 11))


@pytest.mark.parametrize("kind", ["between", "writing"])
def test_a_kill_while_the_checkpoint_is_written_costs_no_bytes(data, expected, kind):
    run = small_run(kind)
    assert finish(data, run, dies=(kind, 2)) == -signal.SIGKILL
    assert finish(data, run) == 0
    assert read(data, run).continued == 1
    assert same(left_by(data, run), expected)


def curves(store, run):
    """Return the epochs of all points of the score's curve, and of all sample grids."""
    events = EventAccumulator(str(store.local(run.folder))).Reload()
    points = events.Scalars("evaluation/score"), events.Images("samples")
    return [[event.step for event in kind] for kind in points]


def test_a_checkpoint_that_is_a_stage_behind_costs_no_bytes(data, expected):
    """The usual case: record, samples and curves are ahead of the checkpoint."""
    run = small_run("behind")
    for saved, last, stages in ((1, 5, 2), (3, 6, 3)):
        assert finish(data, run, dies=("behind", (saved, last))) == -signal.SIGKILL
        state = checkpoint.load(data.get(f"{run.folder}/{LATEST}"))["trainer"]
        assert len(state["evaluations"]) == saved
        assert len(read(data, run).evaluations) > saved
        assert len(data.list(f"{run.folder}/samples")) == stages
    assert finish(data, run) == 0
    assert read(data, run).continued == 2
    assert same(left_by(data, run), expected)
    assert curves(data, run) == [[1, 2, 3, 4, 5, 6], [2, 4, 6]]


def test_a_damaged_checkpoint_never_replaces_the_intact_one(data, expected):
    """Damage it, continue from the one before, and kill as soon as that is saved again."""
    run = small_run("damaged")
    assert finish(data, run, dies=("between", 3)) == -signal.SIGKILL
    whole = data.get(f"{run.folder}/{BEFORE}")
    middle = slice(len(whole) // 2, len(whole) // 2 + 64)  # within tensors: it still unpickles
    altered = whole.replace(whole[middle], bytes(255 - byte for byte in whole[middle]))
    data.put(f"{run.folder}/{LATEST}", altered)
    assert finish(data, run, dies=("writing", 1)) == -signal.SIGKILL
    assert data.get(f"{run.folder}/{BEFORE}") == whole
    assert finish(data, run) == 0
    assert read(data, run).continued == 1
    assert same(left_by(data, run), expected)


def test_another_runs_checkpoint_is_refused(data, expected):
    other, run = small_run("other", seed=1), small_run("swapped")
    assert finish(data, other) == 0
    assert not same(left_by(data, other)[3], expected[3])
    for name in (LATEST, BEFORE):
        data.put(f"{run.folder}/{name}", data.get(f"{other.folder}/{name}"))
    assert finish(data, run) == 0
    assert read(data, run).continued == 0
    assert same(left_by(data, run), expected)


if __name__ == "__child__":
    train(*arguments)  # noqa: F821 - run_path put it there
