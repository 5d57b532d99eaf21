"""Files of a sweep that contradict each other: one of them was copied here from another sweep.

Only a contradiction counts: records of old lack some of these fields, and of a sweep that is
half done some files are not there yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.records.run_record import RunRecord
from harness.records.sweep_records import DataRecord, GroupsRecord, RealRecord, RealScore

Data = Mapping[str, DataRecord]
"""Data records by the name of their file: of a data set, or of a variant of it."""


def other_than_the_runs(record: DataRecord, data: Data, runs: Sequence[RunRecord]) -> str | None:
    """What is wrong with a data record none of whose data set's runs saw its images."""
    theirs = {run.data_digest for run in runs if run.cell["data"] == record.name} - {""}
    ours = {each.digest for each in data.values() if each.name == record.name} - {""}
    if not theirs or not ours or theirs & ours:
        return None
    return f"its images are {record.digest}, those of the runs {', '.join(sorted(theirs))}"


def other_than_counted(groups: GroupsRecord, data: Data) -> str | None:
    """What is wrong with groups that hold more or fewer images than their data set."""
    record, images = data.get(groups.data), sum(group.size for group in groups.groups)
    if record is None or images == record.images:
        return None
    return f"holds {images} images, and data/{groups.data}.json {record.images}"


def other_than_measured(found: RealScore | RealRecord, data: Data) -> str | None:
    """What is wrong with a measurement of real images that are not the data set's."""
    known = {each.digest for name, each in data.items() if found.name in (name, each.name)} - {""}
    if not found.digest or not known or found.digest in known:
        return None
    return f"measured of other images than those of data/{found.name}"
