"""The runs of a sweep by their records: finished, unfinished, missing."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from featgan.errors import UserError
from harness.display import Counts
from harness.plan.run import Run
from harness.records.run_record import FINAL, RunRecord, Status, timestamp
from harness.storage.redaction import redacted
from harness.storage.sealed import is_of_other_format
from harness.storage.store import Store


@dataclass
class SweepProgress(Counts):
    """How far the runs of a sweep are, and those that are not done."""

    unfinished: list[Run] = field(default_factory=list)
    missing: list[Run] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    """The share, 0..1, of each unfinished run that is done, by name."""

    @property
    def pending(self) -> list[Run]:
        """Runs that are not done."""
        return self.unfinished + self.missing


def classify_runs(store: Store, runs: list[Run], pilot: bool) -> SweepProgress:
    """Classify runs by their records; a run that a pilot stopped counts as done for a pilot."""
    progress = SweepProgress(total=len(runs))
    for run, record in read_records(store, runs):
        if record is None:
            progress.missing.append(run)
            continue
        progress.add_score(record.best_score, run.cell.label, record.score_protocol)
        if record.status in FINAL or (pilot and record.status == "stopped"):
            progress.done += 1
        else:
            progress.unfinished.append(run)
            progress.shares[run.name] = min(record.epochs_spent / run.planned_epochs, 0.999)
    return progress


def record_failure(store: Store, run: Run, reason: str) -> None:
    """Append the reason to the run's `failures.txt`, and set it in its record if it has one."""
    reason = redacted(reason)
    key = f"{run.folder}/failures.txt"
    before = store.get(key) if store.exists(key) else b""
    store.put(key, before + f"{timestamp()} {reason}\n".encode())
    set_status(store, run, "failed", reason)


def set_status(store: Store, run: Run, status: Status, reason: str) -> None:
    """Set the status in the record, if there is one, of a run whose process has ended."""
    ((_, record),) = read_records(store, [run])
    if record is not None and record.status not in FINAL:
        changed = record.model_copy(update={"status": status, "reason": reason})
        store.put(f"{run.folder}/run.json", changed.to_json())


def read_records(store: Store, runs: list[Run]) -> Iterator[tuple[Run, RunRecord | None]]:
    """Yield each run with its record; None where it is missing, damaged, or another run's.

    Raises UserError for a record of another version of featgan, so that it is not overwritten.
    """
    files = store.get_all(f"{run.folder}/run.json" for run in runs)
    for run, (key, content) in zip(runs, files, strict=True):
        try:
            record = None if content is None else RunRecord.model_validate_json(content)
        except ValidationError as error:
            if is_of_other_format(error):
                raise UserError(
                    f"{store.join(key)}: another version of featgan wrote this run: continue it "
                    "with that version, or remove its folder"
                ) from None
            record = None
        yield run, record if record and record.run == run.name else None
