"""`report.html`: one file with everything about a sweep, for a browser without a network.

Tables come from the table modules and pictures from `figures/`; here they are put in order,
shrunk and inlined. Everything that is not markup of our own is escaped by the template.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from featgan.staging.progress import StageRecord
from harness.records.run_record import RunRecord
from harness.records.sweep_results import Outcome, cell_name, dotted
from harness.report.paper_tables import status
from harness.report.table import Column, Table, Value

PEAK_PIXELS = 560
"""Longest side of a sample grid in the report; the files beside the runs are whole."""

WORDS = (
    ("feature count", "positive outputs of VGG16's first fully connected layer for one image"),
    ("feature group", "images of similar feature counts, or of another value by which they are "
                      "grouped; numbered by rising centroid"),
    ("stage", "the training between two changes of the data"),
    ("peak", "the evaluation with the best score of its stage; the next stage starts from the "
             "model as it was then (rewind)"),
    ("epochs to peak", "the sum of the stages' peak epochs; epochs spent counts all"),
    ("final score", "the peak of the last stage; best score: the highest of the whole run"),
    ("best of n", "of the runs that differ in their seed alone, the one with the highest best "
                  "score"),
)  # fmt: skip


class Part(Protocol):
    """Something that stands in a section."""

    def html(self) -> str:
        """Its markup, everything foreign escaped."""


@dataclass(frozen=True)
class Picture:
    """An image, inline."""

    caption: str
    data: bytes
    kind: str = "png"
    scrolls: bool = True
    """Whether it keeps a legible width on a narrow screen, in a frame of its own."""

    def html(self) -> str:
        """A `figure`; the caption is also the text for those who do not see it."""
        source = f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"
        caption = html.escape(self.caption)
        frame = ' class="scroll" tabindex="0"' if self.scrolls else ""
        return (
            f'<figure><div{frame}><img src="{source}" alt="{caption}"></div>'
            f"<figcaption>{caption}</figcaption></figure>\n"
        )


@dataclass(frozen=True)
class Row:
    """Pictures side by side under a heading, as many as the width holds."""

    heading: str
    pictures: Sequence[Picture]

    def html(self) -> str:
        """A heading and a grid."""
        inside = "".join(picture.html() for picture in self.pictures)
        return f'<h3>{html.escape(self.heading)}</h3><div class="peaks">{inside}</div>\n'


@dataclass(frozen=True)
class Section:
    """Tables under one heading, and the figures that belong to them by their names' beginnings."""

    heading: str
    tables: list[Table]
    figures: tuple[str, ...] = ()


def write(outcome: Outcome, sections: list[Section], state: list[str], drawn: list[Path]) -> Path:
    """Write `report.html` below the sweep's folder, from its tables and drawn figures."""
    chapters: list[tuple[str, list[Part]]] = [("What was run", _set_up(outcome))]
    for section in sections:
        shown = [path for path in drawn if path.suffix == ".png"]
        named = [p for kind in section.figures for p in shown if p.stem.startswith(kind)]
        pictures = [Picture(_caption(path.stem), path.read_bytes()) for path in named]
        chapters.append((section.heading, [*section.tables, *pictures]))
    chapters += [
        ("Samples at each peak", _peaks(outcome)),
        ("Failed and rejected", _losses(outcome)),
        ("Protocols, versions and cost", _protocols(outcome)),
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["anchor"] = lambda text: re.sub(r"\W+", "-", text.lower()).strip("-")
    page = environment.get_template("report.html.j2").render(
        outcome=outcome,
        complete=not outcome.missing and all(run.status == "finished" for run in outcome.runs),
        state=state,
        sections=[(heading, parts) for heading, parts in chapters if parts],
        words=WORDS,
    )
    path = outcome.folder / "report.html"
    path.write_text(page)
    return path


def _caption(stem: str) -> str:
    kind, _, data = stem.partition("-")
    return {
        "feature": "Images of each feature count (the paper's figure 9)",
        "values": f"Images of each value of {data}",
        "samples": f"{data}: generated images, best of n (the paper's figures 10 and 11)",
        "curves": f"{data}: score over epochs spent, with peaks, rewinds and added data",
    }[kind]


def _set_up(outcome: Outcome) -> list[Part]:
    """The grid, and the settings: those that all runs share once, the others by value."""
    axes: dict[str, list[str]] = {}
    for cell in outcome.cells:
        for key, value in cell.items():
            if str(value) not in axes.setdefault(key, []):
                axes[key].append(str(value))
    grid: list[list[Value]] = [[key, ", ".join(values)] for key, values in axes.items()]
    columns = [Column("key"), Column("values")]
    parts: list[Part] = [Table("grid", f"The grid: {len(outcome.cells)} runs", columns, grid)]
    settings: dict[str, Counter[str]] = {}
    for run in outcome.runs:
        for key, value in dotted(run.settings):
            settings.setdefault(key, Counter())[json.dumps(value)] += 1
    rows: list[list[Value]] = [[key, " / ".join(found)] for key, found in settings.items()]
    if rows:
        parts.append(Table("settings", "Settings of the runs", columns, rows))
    if outcome.data:
        data: list[list[Value]] = [
            [d.name, json.dumps(d.source), d.images, d.matched, d.rejected, d.duplicates, d.digest]
            for d in outcome.data.values()
        ]
        names = ("data", "source", "images", "matched", "rejected", "duplicates", "digest")
        parts.append(Table("data", "Data sets", [Column(name) for name in names], data))
    return parts


def _peaks(outcome: Outcome) -> list[Part]:
    """For the best run of each pattern, the sample grid that each stage left."""
    rows: list[Part] = []
    for pattern in outcome.patterns:
        best = pattern.representative
        if best is None:
            continue
        pictures = []
        for stage in best.stages:
            path = outcome.run_folder(best) / "samples" / f"stage{stage.stage}.png"
            if path.is_file() and stage.peak_score is not None:
                caption = _stage_caption(best, stage)
                pictures.append(Picture(caption, _shrunk(path), "jpeg", scrolls=False))
        if pictures:
            rows.append(Row(f"{pattern.data}, {pattern.label}: {cell_name(best.cell)}", pictures))
    return rows


def _stage_caption(run: RunRecord, stage: StageRecord) -> str:
    """What a stage's grid shows: its peak; without rewinds, only the last stage goes back to it."""
    name = f"Stage {stage.stage}, groups {', '.join(map(str, stage.groups))}"
    rewound = run.settings.get("stages", {}).get("rewind", True)
    if rewound or stage is run.stages[-1]:
        return (
            f"{name}: epoch {stage.peak_epoch:,} of {stage.epochs:,}, score {stage.peak_score:.3f}"
        )
    last = [e.score for e in run.evaluations if e.stage == stage.stage][-1]
    return f"{name}: at its end, epoch {stage.epochs:,}, score {last:.3f}"


def _losses(outcome: Outcome) -> list[Part]:
    """Runs without a result, images without a count."""
    runs: list[list[Value]] = [
        [cell_name(run.cell), status(run)] for run in outcome.runs if run.status != "finished"
    ]
    runs += [[cell_name(cell), "not begun"] for cell in outcome.missing]
    images: list[list[Value]] = [
        [data.name, str(item.get("image_id")), str(item.get("reason"))]
        for data in outcome.data.values()
        for item in data.rejections
    ]
    total = sum(data.rejected for data in outcome.data.values())
    shown = [f"The first {len(images)} of {total:,}."] if len(images) < total else []
    tables = [
        Table("lost-runs", "Runs without a final result", [Column("run"), Column("status")], runs),
        Table(
            "rejected", "Rejected images",
            [Column("data"), Column("image"), Column("reason")], images, shown,
        ),
    ]  # fmt: skip
    return [table for table in tables if table.rows]


def _protocols(outcome: Outcome) -> list[Part]:
    """How the numbers came about: score and feature protocols, versions, devices, seconds."""
    rows: list[list[Value]] = []
    again = [r.protocol for r in outcome.rescored.values()]
    for what, found in (
        ("score", [run.score_protocol for run in outcome.runs]),
        ("re-score", again),
        ("device", [f"{run.device}, {run.precision}" for run in outcome.runs]),
    ):
        rows += [[what, value, f"{runs} runs"] for value, runs in Counter(found).items()]
    for data in outcome.data.values():
        protocol = "; ".join(f"{key}: {value}" for key, value in dotted(data.protocol))
        rows.append(["feature counts", protocol, data.name])
    versions = Counter(item for run in outcome.runs for item in run.versions.items())
    rows += [["version", f"{name} {v}", f"{runs} runs"] for (name, v), runs in versions.items()]
    columns = [Column("what"), Column("how"), Column("of")]
    parts: list[Part] = (
        [Table("protocols", "Protocols and versions", columns, rows)] if rows else []
    )
    cost: list[list[Value]] = []
    for pattern in outcome.patterns:
        seconds = [run.seconds for run in pattern.runs]
        cost.append(
            [
                pattern.data,
                pattern.label,
                len(pattern.runs),
                *(sum(getattr(s, kind) for s in seconds) for kind in _KINDS),
                sum(getattr(s, kind) for s in seconds for kind in _KINDS) / 3600,
            ]
        )
    if cost:
        names = ["data", "pattern", "runs", *(f"{kind}, s" for kind in _KINDS)]
        columns = [*map(Column, names), Column("hours in all", 2)]
        parts.append(Table("cost", "Seconds spent", columns, cost))
    return parts


_KINDS = ("train", "score", "io", "wait")


def _shrunk(path: Path) -> bytes:
    """A picture as a JPEG small enough to be inlined."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((PEAK_PIXELS, PEAK_PIXELS))
    data = io.BytesIO()
    small.save(data, "jpeg", quality=88)
    return data.getvalue()
