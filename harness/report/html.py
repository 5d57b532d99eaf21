"""`report.html`: one file with everything about a sweep, for a browser without a network.

The tables come from the other modules and the pictures from `figures/`; here they are put in
order, shrunk and inlined. All markup is in the template, which escapes everything else.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
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
class Picture:
    """An image to be inlined; the caption also describes it to those who do not see it."""

    caption: str
    data: bytes
    kind: str = "png"

    @property
    def source(self) -> str:
        """Data URI of the image."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Section:
    """Tables under one heading, then figures, then galleries: small pictures side by side."""

    heading: str
    tables: list[Table] = field(default_factory=list)
    figures: tuple[str, ...] = ()
    """Beginnings of the names of the drawn figures that belong here."""
    pictures: list[Picture] = field(default_factory=list)
    galleries: dict[str, list[Picture]] = field(default_factory=dict)
    """Pictures by their heading."""


def without_empty(sections: list[Section]) -> list[Section]:
    """Return the sections without tables that have no rows, and without empty sections."""
    kept = [replace(s, tables=[table for table in s.tables if table.rows]) for s in sections]
    return [section for section in kept if section.tables or section.galleries]


def write(
    results: SweepResults, sections: list[Section], state: list[str], drawn: list[Path]
) -> None:
    """Write `report.html` into the sweep's folder, from its tables and drawn figures."""
    shown = {path.stem: path for path in drawn if path.suffix == ".png"}
    chapters = [Section("What was run", _set_up(results))]
    for section in sections:
        stems = [stem for kind in section.figures for stem in shown if stem.startswith(kind)]
        pictures = [Picture(_caption(stem), shown[stem].read_bytes()) for stem in stems]
        chapters.append(replace(section, pictures=pictures))
    chapters += [
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
    environment.filters["anchor"] = lambda text: re.sub(r"\W+", "-", text.lower()).strip("-")
    page = environment.get_template("report.html.j2").render(
        name=results.name,
        complete=not results.missing and all(run.status == "finished" for run in results.runs),
        state=state,
        sections=without_empty(chapters),
    )
    (results.folder / "report.html").write_text(page)


def _caption(stem: str) -> str:
    kind, _, data = stem.partition("-")
    return {
        "feature": "Images of each feature count (the paper's figure 9)",
        "values": f"Images of each value of {data}",
        "samples": f"{data}: generated images, best of n (the paper's figures 10 and 11)",
        "curves": f"{data}: score over epochs spent, with peaks, rewinds and added data",
    }[kind]


def _set_up(results: SweepResults) -> list[Table]:
    """Return the grid, the settings of the runs with all their values, and the data sets."""
    axes: dict[str, dict[str, None]] = {}
    for cell in results.cells:
        for key, value in cell.items():
            axes.setdefault(key, {})[str(value)] = None
    settings: dict[str, dict[str, None]] = {}
    for run in results.runs:
        for key, value in dotted(run.settings):
            settings.setdefault(key, {})[json.dumps(value)] = None
    data = [
        [d.name, json.dumps(d.source), d.images, d.matched, d.rejected, d.duplicates, d.digest]
        for d in results.data.values()
    ]
    names = ("data", "source", "images", "matched", "rejected", "duplicates", "digest")
    pairs = [Column("key"), Column("values")]
    return [
        Table("grid", f"The grid: {len(results.cells)} runs", pairs,
              [[key, ", ".join(values)] for key, values in axes.items()]),
        Table("settings", "Settings of the runs", pairs,
              [[key, " / ".join(values)] for key, values in settings.items()]),
        Table("data", "Data sets", [*map(Column, names)], data),
    ]  # fmt: skip


def _peaks(results: SweepResults) -> dict[str, list[Picture]]:
    """Return, for the best run of each pattern, the sample grid that each stage left."""
    galleries = {}
    best = results.frame[results.frame["best"]]
    for run, label in zip(best["record"], best["label"], strict=True):
        pictures = []
        for stage in run.stages:
            path = results.run_folder(run) / "samples" / f"stage{stage.stage}.png"
            if path.is_file() and stage.peak_score is not None:
                pictures.append(Picture(_stage_caption(run, stage), _shrunk(path), "jpeg"))
        if pictures:
            galleries[f"{run.cell['data']}, {label}: {cell_name(run.cell)}"] = pictures
    return galleries


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
    of_runs, of_images = (
        [*map(Column, ("run", "status"))],
        [*map(Column, ("data", "image", "reason"))],
    )
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
