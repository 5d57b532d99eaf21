"""One run as a Ray Tune trial: prepare, train, finish.

The run's own folder is the truth. A trial continues from the checkpoint it finds there,
wherever it is started; Tune's checkpoints are not used.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from ray import tune

from featgan.batches import shuffled_if_random
from featgan.errors import UserError
from featgan.scores import feature_file
from featgan.scores.score import Score, load_classifier
from featgan.trainer import StagedTrainer
from harness.cluster import machine, preflight
from harness.plan.run import Run
from harness.plan.settings import Resources, Sweep
from harness.records.data_set import load_labels, load_values, open_pack, read_data_set
from harness.records.run_record import FINAL, RunRecord
from harness.records.sweep_records import GroupsRecord
from harness.runs.run_folder import RunFolder
from harness.storage.store import Store

REPORT_SECONDS = 1.0
"""Least time between two reports of a run to Tune, whose one driver serves all runs."""


def trainable(
    config: dict[str, Any],
    runs: dict[str, Run],
    store: Store,
    sweep: Sweep,
    versions: dict[str, str],
) -> None:
    """Tune's function trainable: run one trial on a node that is fit for it."""
    run, gpu, reported = runs[config["run"]], bool(sweep.resources.gpus_per_run), -math.inf
    files = run.cell.method.score.files
    preflight.check_this_node(store, run.groups_key, versions, files, gpu)

    def report(record: RunRecord) -> None:
        nonlocal reported
        due = sweep.pilot or time.monotonic() - reported >= REPORT_SECONDS
        if record.status == "running" and not due:
            return
        reported = time.monotonic()
        ended = record.status in FINAL
        tune.report(
            {
                "epochs": record.epochs_spent,
                "share": 1.0 if ended else min(record.epochs_spent / run.planned_epochs, 0.999),
                "best_score": -math.inf if record.best_score is None else record.best_score,
                "protocol": record.score_protocol,
                "outcome": outcome(record) if ended else "",
            }
        )

    if run_trial(run, store, sweep, report) is None:
        tune.report({"epochs": 0, "share": 0.0, "best_score": -math.inf})


def outcome(record: RunRecord) -> str:
    """Return in a few words how a run ended."""
    score = "no score" if record.final_score is None else f"score {record.final_score:.3f}"
    found = f"{score}, {record.epochs_to_peak} epochs to peak"
    return found if record.status == "finished" else f"{record.status}, {found}"


def run_trial(
    run: Run, store: Store, sweep: Sweep, report: Callable[[RunRecord], None]
) -> RunRecord | None:
    """Train a run to its end, or until the sweep is asked to stop; return its last record.

    `sweep` says how runs are executed, which does not affect their results: the resources of a run,
    its GPUs among them, and when files are written. `report` receives the record after every
    evaluation and at the end. Returns None where the sweep was asked to stop before the run began.
    """
    if store.exists(run.stop_key):  # Tune starts waiting runs while others are stopping
        return None
    started = time.perf_counter()
    try:
        trainer = make_trainer(run, store, sweep.resources)
        folder = RunFolder(run, store, sweep, trainer, started)
        for evaluation in trainer.run():
            report(folder.observe(evaluation))
            if folder.stop_requested():
                record = folder.interrupt()
                break
        else:
            record = folder.finish()
    except torch.OutOfMemoryError as error:
        batch_size = run.cell.method.training.batch_size
        runs_per_gpu = max(1, int(1 / (sweep.resources.gpus_per_run or 1)))
        raise UserError(
            f"the GPU's memory is full: lower training.batch_size ({batch_size}), or let fewer "
            f"runs share a GPU than {runs_per_gpu} (raise resources.gpus_per_run)"
        ) from error
    report(record)
    return record


def make_trainer(run: Run, store: Store, resources: Resources) -> StagedTrainer:
    """Return a run's trainer with its images, groups and classifier.

    Raises UserError where the data set is not the one that the run was planned with, or a file
    is damaged.
    """
    torch.set_num_threads(resources.cpus_per_run)
    cell, method = run.cell, run.cell.method
    device = machine.device(bool(resources.gpus_per_run))
    data = read_data_set(store, run.data_key)
    if run.data_digest and data.digest != run.data_digest:
        raise UserError(
            f"{store.join(run.data_key)}: its images are not those that this run was planned "
            "with, since some that were unreadable can be read now: run the sweep again"
        )
    try:
        groups = GroupsRecord.model_validate_json(store.get(run.groups_key)).split
    except ValidationError as error:
        raise UserError(
            f"{store.join(run.groups_key)}: {error.errors()[0]['msg']}; remove it, and the sweep "
            "recreates it"
        ) from error
    values = load_values(store, run.data_key, run.values_key)
    kept = np.ones(len(values), bool)
    if run.selected_key:
        kept = load_values(store, run.data_key, run.selected_key) > 0
    numbers = np.zeros(len(values), np.int8)
    numbers[kept] = shuffled_if_random(groups.assign(values[kept]), cell.mode, cell.seed)
    trained = store.local(run.classifier_key) if run.classifier_key else None
    classifier = load_classifier(method.score, device, trained)
    real = feature_file.read(str(store.local(run.real_key)), classifier) if run.real_key else None
    return StagedTrainer(
        open_pack(store, run.data_key),
        numbers,
        cell.stages,
        Score(classifier, method.score, real),
        gan=method.gan,
        training=method.training,
        seed=cell.seed,
        device=device,
        staging=method.stages,
        pacing=method.pacing,
        image_values=values,
        labels=load_labels(store, data) if method.gan.conditional else None,
    )
