"""One run between store and record, without Ray's scheduling."""

import json
import platform
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import left_by, options, put_shared, read, small_run

from featgan import precision
from featgan.errors import UserError
from featgan.gans.generator_file import load_generator
from featgan.scores import feature_file
from featgan.scores.score import classify, drawn, load_classifier
from harness.plan.grid import Cell
from harness.plan.signature import signature
from harness.records.data_set import dump_values, load_table, open_pack
from harness.records.run_record import RunRecord
from harness.runs import run_folder
from harness.runs import trial as module
from harness.runs.run_folder import RunFolder
from harness.runs.trial import run_trial
from harness.storage.store import Store

EVERY_EVALUATION = options(checkpoint_minutes=0, sample_every=1)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """The files that runs share: features, groups, classifier."""
    root = tmp_path_factory.mktemp("store")
    put_shared(Store(str(root)))
    return root


@pytest.fixture
def store(shared, tmp_path):
    (tmp_path / "features").symlink_to(shared / "features")
    return Store(str(tmp_path))


@pytest.fixture
def run():
    return small_run()


def test_how_a_run_ended_is_said_in_a_few_words(make_run):
    record = make_run(
        {"data": "a", "mode": "x", "seed": 0}, [[1, 3], [2.5, 2]], [[1], [1, 2]], images=[8, 16]
    )
    assert module.outcome(record) == "score 2.500, 30 epochs to peak"
    lost = record.model_copy(update={"status": "diverged", "final_score": None})
    assert module.outcome(lost) == "diverged, no score, 30 epochs to peak"


@pytest.mark.parametrize("mode", ["ascending", "random"])
def test_only_selected_images_are_trained_on(store, run, mode):
    kept = np.arange(24) % 3 > 0
    key = "features/32/selected/random-0.parquet"
    ids = load_table(store, run.data_key)["image_id"]
    store.put(key, dump_values(key, ids, kept.astype(np.float64)))
    run = replace(run, cell=replace(run.cell, mode=mode), selected_key=key)
    trainer = module.make_trainer(run, store, EVERY_EVALUATION.resources)
    rows = [trainer.batches.rows(stage).tolist() for stage in trainer.progress.stages]
    assert rows[-1] == np.flatnonzero(kept).tolist()
    assert [len(of_stage) for of_stage in rows] == [5, 10, 16]  # of three groups of 8


def test_a_run_leaves_its_record_samples_curves_and_generator(store, run):
    reports = []
    record = run_trial(run, store, EVERY_EVALUATION, reports.append)
    assert record == read(store, run)
    assert record.status == "finished"
    assert record.run == f"a-ascending-seed0-{run.signature}"
    assert [e.epochs_spent for e in record.evaluations] == [1, 2, 3, 4, 5, 6]
    assert [(s.stage, s.groups, s.images, s.epochs) for s in record.stages] == [
        (1, (1,), 8, 2),
        (2, (1, 2), 16, 2),
        (3, (1, 2, 3), 24, 2),
    ]
    assert record.epochs_to_peak == sum(s.peak_epoch for s in record.stages)
    assert record.epochs_spent == 6
    assert record.final_score == record.stages[-1].peak_score
    assert record.best_score == max(e.score for e in record.evaluations)
    assert record.score_protocol.startswith("IS trained-cnn2-")
    names = {key.removeprefix(f"{run.folder}/") for key in store.list(run.folder)}
    assert {
        "run.json",
        "checkpoint.pt",
        "checkpoint.previous.pt",
        "generator.safetensors",
        "samples/stage1.png",
        "samples/stage2.png",
        "samples/stage3.png",
        "samples/last.png",
    } <= names
    assert any("tfevents" in name for name in names)
    assert load_generator(store.local(f"{run.folder}/generator.safetensors")).image_size == 32
    assert [len(r.evaluations) for r in reports] == [1, 2, 3, 4, 5, 6, 6]


def test_seconds_of_a_run_add_up(store, run):
    import time

    started = time.perf_counter()
    seconds = run_trial(run, store, EVERY_EVALUATION, lambda record: None).seconds
    spent = time.perf_counter() - started
    parts = (seconds.train, seconds.score, seconds.io, seconds.wait)
    assert min(parts) > 0
    assert 0.5 * spent < sum(parts) <= spent


class Died(BaseException):
    """The process ends here."""


def dying_after(evaluations):
    def report(record):
        if len(record.evaluations) == evaluations:
            raise Died

    return report


def test_a_run_killed_at_every_evaluation_ends_with_same_bytes(store, run, shared, tmp_path):
    straight = Store(str(tmp_path / "straight"))
    (tmp_path / "straight").mkdir()
    (tmp_path / "straight" / "features").symlink_to(shared / "features")
    run_trial(run, straight, EVERY_EVALUATION, lambda record: None)
    for n in range(1, 7):
        with pytest.raises(Died):
            run_trial(run, store, EVERY_EVALUATION, dying_after(n))
    record = run_trial(run, store, EVERY_EVALUATION, lambda record: None)
    assert record.continued == 6
    here = f"{platform.node()}: {record.device}, torch {torch.__version__}"
    assert record.machines == (here,) * 7
    assert left_by(store, run) == left_by(straight, run)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone", "another run's"])
def test_a_damaged_checkpoint_costs_time_but_no_bytes(store, run, damage):
    run_trial(run, store, EVERY_EVALUATION, lambda record: None)
    expected = left_by(store, run)
    shutil.rmtree(store.join(run.folder))
    with pytest.raises(Died):
        run_trial(run, store, EVERY_EVALUATION, dying_after(4))
    key = f"{run.folder}/checkpoint.pt"
    data = store.get(key)
    if damage == "gone":
        store.delete(key)
    elif damage == "another run's":
        store.put(key, data.replace(run.signature.encode(), b"0" * 12))
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        store.put(key, {"cut": data[:middle], "flip": flipped, "empty": b""}[damage])
    whole = store.get(f"{run.folder}/checkpoint.previous.pt")
    with pytest.raises(Died):
        run_trial(run, store, EVERY_EVALUATION, dying_after(4))
    kept = store.get(f"{run.folder}/checkpoint.previous.pt")
    assert kept == whole, "a damaged one must not replace an undamaged one"
    record = run_trial(run, store, EVERY_EVALUATION, lambda record: None)
    assert record.continued == 2
    assert left_by(store, run) == expected


def test_without_any_whole_checkpoint_a_run_starts_again(store, run):
    with pytest.raises(Died):
        run_trial(run, store, EVERY_EVALUATION, dying_after(3))
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        store.put(f"{run.folder}/{name}", b"rubbish")
    record = run_trial(run, store, EVERY_EVALUATION, lambda record: None)
    assert record.continued == 0
    assert len(record.evaluations) == 6


def test_a_run_is_not_continued_in_another_precision(store, run, monkeypatch):
    """As `auto` would have it on a node of another kind: half of it in bf16, half in fp32."""
    with pytest.raises(Died):
        run_trial(run, store, EVERY_EVALUATION, dying_after(3))
    before = store.get(f"{run.folder}/checkpoint.pt")
    other = not precision.has_bf16(torch.device("cpu"))
    monkeypatch.setattr(precision, "has_bf16", lambda device: other)
    with pytest.raises(
        UserError, match=r"started with 'training .*, which changes its numbers: use a machine"
    ):
        run_trial(run, store, EVERY_EVALUATION, lambda record: None)
    assert store.get(f"{run.folder}/checkpoint.pt") == before
    monkeypatch.undo()
    assert run_trial(run, store, EVERY_EVALUATION, lambda record: None).status == "finished"


def test_a_run_is_not_continued_on_other_threads(store, run):
    """Sums over more threads end in other bits, and no undisturbed run has both."""
    with pytest.raises(Died):
        run_trial(run, store, EVERY_EVALUATION, dying_after(3))
    threads = torch.get_num_threads()
    with pytest.raises(
        UserError, match=r"(fp32|bf16) cpu threads=1; .*(fp32|bf16) cpu threads=2; .*cpus_per_run"
    ):
        run_trial(run, store, options(checkpoint_minutes=0, cpus_per_run=2), lambda record: None)
    torch.set_num_threads(threads)
    assert run_trial(run, store, EVERY_EVALUATION, lambda record: None).status == "finished"


def test_a_run_uses_as_many_threads_as_its_options_say(store, run):
    before, seen = torch.get_num_threads(), set()
    torch.set_num_threads(1)  # what OMP_NUM_THREADS=1 does, which Ray sets
    try:
        run_trial(
            run,
            store,
            options(cpus_per_run=3, checkpoint_minutes=60),
            lambda record: seen.add(torch.get_num_threads()),
        )
    finally:
        torch.set_num_threads(before)
    assert seen == {3}


def test_a_run_takes_the_gpu_it_was_given_and_no_other(store, run, monkeypatch):
    asked = []

    def device(gpu):
        asked.append(gpu)
        return torch.device("cpu")

    monkeypatch.setattr(module.machine, "device", device)
    run_trial(run, store, EVERY_EVALUATION, lambda record: None)
    run_trial(run, store, options(gpus_per_run=1.0), lambda record: None)
    assert asked == [False, True]


def test_checkpoints_are_written_by_time(store, run):
    rarely = options(checkpoint_minutes=60)
    with pytest.raises(Died):
        run_trial(run, store, rarely, dying_after(5))
    assert not store.exists(f"{run.folder}/checkpoint.pt")


def test_the_record_of_a_pilots_run_is_never_behind(store, run):
    def behind(how):
        found = []

        def report(record):
            written = RunRecord.model_validate_json(store.get(f"{run.folder}/run.json"))
            found.append(len(record.evaluations) - len(written.evaluations))

        run_trial(run, store, how, report)
        return max(found)

    assert behind(options(checkpoint_minutes=60, pilot=True)) == 0
    store.delete(f"{run.folder}/checkpoint.pt")
    store.delete(f"{run.folder}/run.json")
    assert behind(options(checkpoint_minutes=60)) > 0


def test_a_run_asked_to_stop_checkpoints_and_continues(store, run, monkeypatch):
    run_trial(run, store, EVERY_EVALUATION, lambda record: None)
    expected = left_by(store, run)
    shutil.rmtree(store.join(run.folder))
    monkeypatch.setattr(run_folder, "STOP_SECONDS", 0)
    rarely = options(checkpoint_minutes=60, sample_every=1)

    def ask(record):
        if len(record.evaluations) == 3:
            store.put(run.stop_key, b"")

    record = run_trial(run, store, rarely, ask)
    assert (record.status, len(record.evaluations)) == ("interrupted", 3)
    assert run_trial(run, store, rarely, ask) is None  # still asked to stop: nothing begins
    store.delete(run.stop_key)
    record = run_trial(run, store, rarely, lambda record: None)
    assert (record.status, record.continued) == ("finished", 1)
    assert left_by(store, run) == expected


@pytest.mark.usefixtures("seconds_between_event_files")
def test_curves_of_a_continued_run_have_no_gap_or_double_point(store, run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rarely = options(checkpoint_minutes=0, sample_every=2)
    for n in (2, 4):
        with pytest.raises(Died):
            run_trial(run, store, rarely, dying_after(n))
    record = run_trial(run, store, rarely, lambda record: None)
    events = EventAccumulator(str(store.local(run.folder))).Reload()
    points = [(e.step, e.value) for e in events.Scalars("evaluation/score")]
    assert points == [
        (e.epochs_spent, pytest.approx(e.score, rel=1e-6)) for e in record.evaluations
    ]


def test_a_run_on_a_bucket_leaves_the_same(run, store):
    run_trial(run, store, EVERY_EVALUATION, lambda record: None)
    bucket = Store("memory://trial-test")
    put_shared(bucket)
    with pytest.raises(Died):
        run_trial(run, bucket, EVERY_EVALUATION, dying_after(3))
    run_trial(run, bucket, EVERY_EVALUATION, lambda record: None)
    ours, theirs = left_by(bucket, run), left_by(store, run)
    assert ours == theirs
    assert any("tfevents" in key for key in bucket.list(run.folder))
    assert json.loads(bucket.get(f"{run.folder}/run.json"))["continued"] == 1


def test_a_diverged_run_keeps_its_peak_and_is_not_run_again(store, run, monkeypatch):
    from harness.runs.status import classify_runs

    original = RunFolder.observe

    def observe(folder, evaluation):
        record = original(folder, evaluation)
        if evaluation.epochs_spent == 3:
            next(folder.trainer.gan.generator.parameters()).data.fill_(float("nan"))
        return record

    monkeypatch.setattr(RunFolder, "observe", observe)
    record = run_trial(run, store, EVERY_EVALUATION, lambda record: None)
    assert record == read(store, run)
    assert record.status == "diverged"
    assert record.reason.startswith("stage 2, epoch 2: ")
    assert [e.epochs_spent for e in record.evaluations] == [1, 2, 3]
    assert record.final_score == record.evaluations[2].score
    generator = load_generator(store.local(f"{run.folder}/generator.safetensors"))
    assert all(value.isfinite().all() for value in generator.network.state_dict().values())
    assert classify_runs(store, [run], pilot=False).done == 1


def test_a_run_that_diverges_before_any_peak_leaves_no_generator(store, run, monkeypatch):
    def poisoned(*arguments):
        trainer = original(*arguments)
        next(trainer.gan.generator.parameters()).data.fill_(float("nan"))
        return trainer

    original = module.make_trainer
    monkeypatch.setattr(module, "make_trainer", poisoned)
    record = run_trial(run, store, EVERY_EVALUATION, lambda record: None)
    assert (record.status, record.final_score, record.generator_sha256) == ("diverged", None, None)
    assert not store.exists(f"{run.folder}/generator.safetensors")


def test_further_metrics_are_reported_with_their_protocol(store, run):
    score = run.cell.method.score.model_copy(update={"metrics": ["fid", "kid"]})
    method = run.cell.method.model_copy(update={"score": score})
    cell = Cell("a", "conventional", 0, method)
    classifier = load_classifier(score, torch.device("cpu"), store.local(run.classifier_key))
    pack = open_pack(store, run.data_key)
    features, _ = classify(classifier, drawn(pack.rows, np.arange(24)), 24, 50)
    store.put("real.safetensors", feature_file.dump(features, classifier, "real"))
    signed = signature(cell, "d", "c")
    run = replace(run, cell=cell, signature=signed, real_key="real.safetensors")
    record = run_trial(run, store, EVERY_EVALUATION, lambda record: None)
    assert all(evaluation.metrics["fid"] > 0 for evaluation in record.evaluations)
    assert "kid" in record.evaluations[0].metrics
    assert record.metrics_protocol.startswith("FID")
    assert "real=24" in record.metrics_protocol
