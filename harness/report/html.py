"""`report.html`: one file with everything about a sweep, for a browser without a network.

The tables come from the other modules and the pictures from `figures/`; here they are put in
order, shrunk and inlined. All markup is in the template, which escapes everything else.
"""

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from featgan.staging.progress import StageRecord
from harness.records.run_record import RunRecord, Seconds
from harness.records.sweep_results import SweepResults, cell_name, dotted
from harness.report.table import Column, Table, Value

PEAK_PIXELS = 560
"""Longest side of a sample grid in the report; the files of the runs are larger."""


@dataclass(frozen=True)
class Section:
    """Tables under one heading, then figures, then galleries: small pictures side by side."""

    heading: str
    tables: list[Table] = field(default_factory=list)
    figures: Mapping[str, str] = field(default_factory=dict)
    """Captions of the drawn figures that belong here, by how their names begin.

    `{}` stands for the rest of the name.
    """
    galleries: Mapping[str, list[tuple[str, Path]]] = field(default_factory=dict)
    """Captions and files of pictures, by their heading."""


def without_empty(sections: list[Section]) -> list[Section]:
    """Return the sections without tables that have no rows, and without empty sections."""
    kept = [replace(s, tables=[table for table in s.tables if table.rows]) for s in sections]
    return [section for section in kept if section.tables or section.galleries]


def write(
    results: SweepResults, sections: list[Section], state: list[str], drawn: list[Path]
) -> None:
    """Write `report.html` into the sweep's folder, from its tables and drawn figures."""
    chapters = [
        Section("What was run", _set_up(results)),
        *sections,
        Section("Samples at each peak", galleries=_peaks(results)),
        Section("Failed and rejected", _losses(results)),
        Section("Protocols, versions and cost", _protocols(results)),
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
    """Return the grid, the settings of the runs with all their values, and the data sets."""
    axes = [(key, str(value)) for cell in results.plan.cells for key, value in cell.items()]
    settings = [
        (key, json.dumps(value)) for run in results.runs for key, value in dotted(run.settings)
    ]
    names = ("data", "source", "images", "matched", "rejected", "duplicates", "digest")
    data = [
        [d.name, json.dumps(d.source), d.images, d.matched, d.rejected, d.duplicates, d.digest]
        for d in results.data.values()
    ]
    return [
        _values("grid", f"The grid: {len(results.plan.cells)} runs", axes),
        _values("settings", "Settings of the runs", settings),
        Table("data", "Data sets", [*map(Column, names)], data),
    ]


def _values(key: str, title: str, found: Iterable[tuple[str, str]]) -> Table:
    """Return the different values of each key."""
    values: dict[str, dict[str, None]] = {}
    for name, value in found:
        values.setdefault(name, {})[value] = None
    rows = [[name, " / ".join(known)] for name, known in values.items()]
    return Table(key, title, [Column("key"), Column("values")], rows)


def _peaks(results: SweepResults) -> dict[str, list[tuple[str, Path]]]:
    """Return, for the best run of each pattern, the sample grid that each stage left."""
    galleries = {}
    best = results.frame[results.frame["best"]]
    for run, data, label, name in best[["record", "data", "label", "name"]].to_numpy():
        folder = results.run_folder(run) / "samples"
        pictures = [
            (_stage_caption(run, stage), folder / f"stage{stage.stage}.png")
            for stage in run.stages
            if stage.peak_score is not None
        ]
        galleries[f"{data}, {label}: {name}"] = [
            (caption, path) for caption, path in pictures if path.is_file()
        ]
    return {heading: pictures for heading, pictures in galleries.items() if pictures}


def _stage_caption(run: RunRecord, stage: StageRecord) -> str:
    """Return what a stage's grid shows: its peak if the run went back to it, else its end."""
    name = f"Stage {stage.stage}, groups {', '.join(map(str, stage.groups))}"
    rewound = run.settings.get("stages", {}).get("rewind", True)
    if rewound or stage is run.stages[-1]:
        return (
            f"{name}: epoch {stage.peak_epoch:,} of {stage.epochs:,}, score {stage.peak_score:.3f}"
        )
    last = [e.score for e in run.evaluations if e.stage == stage.stage][-1]
    return f"{name}: at its end, epoch {stage.epochs:,}, score {last:.3f}"


def _losses(results: SweepResults) -> list[Table]:
    """Return the runs without a result, and the images without a count."""
    lost = results.frame[results.frame["status"] != "finished"]
    runs = lost[["name", "outcome"]].to_numpy().tolist()
    runs += [[cell_name(cell), "not begun"] for cell in results.missing]
    images = [
        [data.name, str(item.get("image_id")), str(item.get("reason"))]
        for data in results.data.values()
        for item in data.rejections
    ]
    total = sum(data.rejected for data in results.data.values())
    shown = [f"The first {len(images)} of {total:,}."] if len(images) < total else []
    of_runs = [*map(Column, ("run", "status"))]
    of_images = [*map(Column, ("data", "image", "reason"))]
    return [
        Table("lost-runs", "Runs without a final result", of_runs, runs),
        Table("rejected", "Rejected images", of_images, images, shown),
    ]


def _protocols(results: SweepResults) -> list[Table]:
    """Return how the numbers were made: protocols, versions, devices; and the seconds spent."""
    found = Counter(
        [("score", run.score_protocol) for run in results.runs]
        + [("re-score", again.protocol) for again in results.rescored.values()]
        + [("device", f"{run.device}, {run.precision}") for run in results.runs]
        + [("version", f"{name} {v}") for run in results.runs for name, v in run.versions.items()]
    )
    rows: list[list[Value]] = [[what, how, f"{runs} runs"] for (what, how), runs in found.items()]
    for data in results.data.values():
        protocol = "; ".join(f"{key}: {value}" for key, value in dotted(data.protocol))
        rows.append(["feature counts", protocol, data.name])
    cost: list[list[Value]] = []
    for _, runs in results.frame.groupby(["pattern", "protocol"], sort=False):
        seconds = pd.DataFrame([run.seconds.model_dump() for run in runs["record"]]).sum()
        data, label = runs[["data", "label"]].iloc[0]
        cost.append([data, label, len(runs), *seconds.tolist(), seconds.sum() / 3600])
    names = ("data", "pattern", "runs", *(f"{kind}, s" for kind in Seconds.model_fields))
    columns = [*map(Column, names), Column("hours in all", 2)]
    return [
        Table("protocols", "Protocols and versions", [*map(Column, ("what", "how", "of"))], rows),
        Table("cost", "Seconds spent", columns, cost),
    ]


def _shrunk(path: Path) -> bytes:
    """Return a picture as a JPEG small enough to be inlined."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((PEAK_PIXELS, PEAK_PIXELS))
    data = io.BytesIO()
    small.save(data, "jpeg", quality=88)
    return data.getvalue()
