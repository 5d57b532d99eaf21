"""`report.html`: one file with everything about a sweep, for a browser without a network.

The tables come from the other modules and the pictures from `figures/`; here they are put in
order, shrunk and inlined. All markup is in the template, which escapes everything else.
"""

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from featgan.staging.progress import StageRecord
from harness.plan.settings import Method
from harness.records.run_record import RunRecord
from harness.records.sweep_results import SweepResults, dotted
from harness.report.figures import sample_path
from harness.report.paper_tables import readable
from harness.report.table import Table

PEAK_PIXELS = 560
"""Longest side of a sample grid in the report; the files of the runs are larger."""


@dataclass(frozen=True)
class Section:
    """Under one heading: sentences, figures, tables, and galleries of small pictures."""

    heading: str
    sentences: Sequence[str] = ()
    tables: list[Table] = field(default_factory=list)
    figures: Mapping[str, str] = field(default_factory=dict)
    """Captions of the drawn figures that belong here, by how their names begin.

    `{}` stands for the rest of the name.
    """
    galleries: Mapping[str, list[tuple[str, Path]]] = field(default_factory=dict)
    """Captions and files of pictures, by their heading."""
    folded: bool = False
    """True if a click opens it."""


def without_empty(sections: list[Section]) -> list[Section]:
    """Return the sections without tables that have no rows, and without empty sections."""
    kept = [replace(s, tables=[table for table in s.tables if table.rows]) for s in sections]
    return [s for s in kept if s.sentences or s.tables or s.galleries]


def write(
    results: SweepResults, sections: list[Section], state: list[str], drawn: list[Path]
) -> None:
    """Write `report.html` into the sweep's folder, from its tables and drawn figures."""
    chapters = [
        *sections,
        Section("Samples at each peak", galleries=_peaks(results)),
        Section("Rejected images", tables=[_rejected(results)], folded=True),
        Section("Protocols, versions and cost", tables=_protocols(results), folded=True),
        Section("Settings and data sets", tables=_set_up(results), folded=True),
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(
        anchor=lambda text: re.sub(r"\W+", "-", text.lower()).strip("-"),
        base64=lambda data: base64.b64encode(data).decode(),
        shrunk=_shrunk,
    )
    page = environment.get_template("report.html.j2").render(
        name=results.plan.name,
        complete=not results.missing and (results.frame["status"] == "finished").all(),
        state=state,
        sections=without_empty(chapters),
        drawn=[path for path in drawn if path.suffix == ".png"],
    )
    (results.folder / "report.html").write_text(page)


def _set_up(results: SweepResults) -> list[Table]:
    """Return the settings of the runs, those that are not the defaults first; and the data sets."""
    defaults = {key: _word(value) for key, value in dotted(Method().model_dump(mode="json"))}
    values: dict[str, dict[str, None]] = {}
    for run in results.frame["record"]:
        for key, value in {**run.cell, **dict(dotted(run.settings))}.items():
            values.setdefault(key, {})[_word(value)] = None
    rows = [(key, " / ".join(found), defaults.get(key)) for key, found in values.items()]
    rows.sort(key=lambda row: row[1] == row[2])
    settings = pd.DataFrame(rows, columns=["key", "values of the runs", "default"])
    title = "Settings, those that differ from their defaults first"
    names = ["name", "source", "images", "matched", "rejected", "duplicates", "digest"]
    data = [dict(record) | {"source": words(record.source)} for record in results.data.values()]
    return [
        Table("settings", title, settings),
        Table("data", "Data sets", pd.DataFrame(data, columns=names, dtype=object)),
    ]


def words(settings: Mapping[str, Any]) -> str:
    """Return nested settings as one line of text, without those that are null or false."""
    found = {key: value for key, value in dotted(settings) if value not in (None, False)}
    return ", ".join(f"{key.replace('_', ' ')} {_word(value)}" for key, value in found.items())


def _word(value: Any) -> str:
    """Return a value without brackets and quotes."""
    if isinstance(value, list):
        return ", ".join(words(v) if isinstance(v, dict) else _word(v) for v in value) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def _peaks(results: SweepResults) -> dict[str, list[tuple[str, Path]]]:
    """Return, for the best run of each pattern, the sample grid that each stage left."""
    galleries: dict[str, list[tuple[str, Path]]] = {}
    best = results.frame[results.frame["best"]]
    for run, data, label, name in best[["record", "data", "label", "name"]].to_numpy():
        for stage in run.stages:
            path = sample_path(results, run, stage.stage)
            if stage.peak_score is not None and path:
                pictures = galleries.setdefault(f"{data}, {label}: {name}", [])
                pictures.append((_stage_caption(run, stage), path))
    return galleries


def _stage_caption(run: RunRecord, stage: StageRecord) -> str:
    """Return what a stage's grid shows: its peak if the run went back to it, else its end."""
    name = f"Stage {stage.stage}, groups {', '.join(map(str, stage.groups))}"
    if run.rewinds or stage is run.stages[-1]:
        epoch = f"epoch {stage.peak_epoch:,} of {stage.epochs:,}"
        return f"{name}: {epoch}, score {stage.peak_score:.3f}"
    last = [e.score for e in run.evaluations if e.stage == stage.stage][-1]
    return f"{name}: at its end, epoch {stage.epochs:,}, score {last:.3f}"


def _rejected(results: SweepResults) -> Table:
    """Return the images without a count."""
    images = [{"data": d.name, **item} for d in results.data.values() for item in d.rejections]
    frame = pd.DataFrame(images, columns=["data", "image_id", "reason"]).astype(str)
    total = sum(data.rejected for data in results.data.values())
    shown = [f"The first {len(images)} of {total:,}."] if len(images) < total else []
    return Table("rejected", "Images without a feature count", frame, shown)


def _protocols(results: SweepResults) -> list[Table]:
    """Return how the numbers were made: protocols, versions, devices; and the seconds spent."""
    found = Counter(
        [("score", readable(run.score_protocol)) for run in results.runs]
        + [("re-score", readable(again.protocol)) for again in results.rescored.values()]
        + [("device", f"{run.device}, {run.precision}") for run in results.runs]
        + [("version", f"{name} {v}") for run in results.runs for name, v in run.versions.items()]
    )
    rows = [(what, how, f"{runs} runs") for (what, how), runs in found.items()]
    rows += [("feature counts", words(d.protocol), d.name) for d in results.data.values()]
    seconds = pd.DataFrame([vars(run.seconds) for run in results.frame["record"]])
    patterns = [results.frame["data"], results.frame["label"].rename("pattern")]
    spent = seconds.add_suffix(", s").groupby(patterns, sort=False).sum()
    digits = {**dict.fromkeys(map(str, spent), 0), "hours in all": 2}
    spent["hours in all"] = spent.sum(axis=1) / 3600
    spent.insert(0, "runs", results.frame.groupby(patterns, sort=False).size())
    protocols = pd.DataFrame(rows, columns=["what", "how", "of"])
    return [
        Table("protocols", "Protocols and versions", protocols),
        Table("cost", "Seconds spent", spent.reset_index(), digits=digits),
    ]


def _shrunk(path: Path) -> bytes:
    """Return a picture as a JPEG small enough to be inlined."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((PEAK_PIXELS, PEAK_PIXELS))
    data = io.BytesIO()
    small.save(data, "jpeg", quality=88)
    return data.getvalue()
