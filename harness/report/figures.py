"""Figures of a sweep: feature counts (figure 9), sample grids (10, 11) and score curves.

Each is drawn as a matplotlib figure by a pure function and saved as PNG and SVG. The palette
is Okabe and Ito's, made for the colour-blind; a mode has one colour everywhere.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from harness.records.run_record import RunRecord
from harness.records.sweep_records import GroupsRecord
from harness.records.sweep_results import Outcome, Pattern

MODE_COLOURS = {
    "descending": "#0072B2",
    "ascending": "#D55E00",
    "conventional": "#009E73",
    "random": "#CC79A7",
}
SPARE_COLOURS = ("#E69F00", "#56B4E9", "#7F7F7F", "#000000")
TITLE_LETTERS = 34
"""What fits over a panel of samples in one line."""
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "savefig.facecolor": "white",
    "savefig.bbox": "tight",
    "svg.fonttype": "path",
    "svg.hashsalt": "featgan",
    "text.parse_math": False,
}


def draw(outcome: Outcome, folder: Path) -> list[Path]:
    """Save every figure the sweep has data for, as PNG and SVG; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A name may be too long for its panel, or have letters that the font lacks.
        warnings.filterwarnings("ignore", "Glyph|constrained_layout", UserWarning)
        for name, figure in figures(outcome):
            for kind in ("png", "svg"):
                drawn.append(folder / f"{name}.{kind}")
                figure.savefig(drawn[-1], metadata=_undated(kind))
    return drawn


def figures(outcome: Outcome) -> Iterator[tuple[str, Figure]]:
    """Name and figure of all there is to draw, figure 9 first."""
    for name, records in _of_one_axis(outcome):
        yield name, histograms(records)
    for data, patterns in patterns_by_data(outcome):
        if any(sample_path(outcome, p.representative) for p in patterns):
            yield f"samples-{file_name(data)}", samples(outcome, data, patterns)
    for data, protocol, patterns in outcome.blocks():
        if any(run.evaluations for p in patterns for run in p.runs):
            suffix = outcome.suffix(data, protocol)
            yield f"curves-{file_name(data)}{suffix}", curves(outcome, data, protocol, patterns)


def histograms(shown: list[GroupsRecord]) -> Figure:
    """Figure 9: images by the values they are grouped by, a panel each, on one axis."""
    lowest = min(record.groups[0].lowest for record in shown)
    highest = max(record.groups[-1].highest for record in shown)
    counted = shown[0].by == "feature_count"
    width = bin_width(highest - lowest, counted)
    low = lowest // width * width
    edges = low + width * np.arange((highest - low) // width + 2)
    figure = Figure(figsize=(6.8, 0.6 + 1.9 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for panel, record in zip(panels, shown, strict=True):
        values = np.array(list(record.histogram))
        images = np.array(list(record.histogram.values()))
        bottom = np.zeros(len(edges) - 1)
        for group in record.groups:
            inside = (values >= group.lowest) & (values <= group.highest)
            heights, _ = np.histogram(values[inside], edges, weights=images[inside])
            colour = mpl.colormaps["cividis"]((group.number - 0.5) / record.k)  # no mode's colour
            label = f"group {group.number}: {group.size:,} around "
            label += f"{group.centroid:,.{record.digits}f}"
            panel.bar(
                edges[:-1], heights, width, bottom, align="edge", color=colour, label=label,
                edgecolor="white", linewidth=0.4,
            )  # fmt: skip
            bottom += heights
        for group in record.groups:
            panel.axvline(group.centroid, color="#333333", linewidth=0.8, linestyle=":")
        method = f"{record.method}, k = {record.k}"
        panel.set_title(f"{record.data} ({method}; {images.sum():,} images)", loc="left")
        bin_name = f"{width:g} counts" if counted else f"a bin of {width:g}"
        panel.set_ylabel("images" if counted and width == 1 else f"images in {bin_name}")
        rows = -(-len(record.groups) // 3)
        panel.set_ylim(top=bottom.max() * (1.1 + 0.13 * rows))
        panel.legend(frameon=False, fontsize=7.5, loc="upper center", ncols=3, columnspacing=1)
        panel.grid(axis="x", visible=False)
    panels[-1].set_xlabel(shown[0].label)
    return figure


def samples(outcome: Outcome, data: str, patterns: list[Pattern]) -> Figure:
    """Figures 10 and 11: samples of each pattern's best run, side by side."""
    shown = [(p, sample_path(outcome, p.representative)) for p in patterns]
    columns = min(len(shown), 3)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.55 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, (pattern, path) in zip(panels, shown, strict=False):
        best = pattern.representative
        title = textwrap.fill(pattern.label, TITLE_LETTERS, break_long_words=False)
        panel.set_title(title, color=mode_colour(outcome, pattern.mode), fontsize=10)
        if path is None or best is None:
            panel.text(0.5, 0.5, "no samples yet", ha="center", va="center")
        else:
            panel.imshow(Image.open(path).convert("RGB"), interpolation="nearest")
            panel.set_xlabel(
                f"seed {best.cell['seed']}, score {best.final_score:.2f}, "
                f"{best.epochs_to_peak:,} epochs to peak",
                fontsize=8,
            )
    for panel in figure.get_axes():
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    figure.suptitle(f"{data}: generated images at the last stage's peak, best of n", fontsize=10)
    return figure


def curves(outcome: Outcome, data: str, protocol: str, patterns: list[Pattern]) -> Figure:
    """Score over epochs spent, a panel a pattern: switches, peaks and rewinds."""
    figure = Figure(figsize=(7.2, 0.9 + 1.75 * len(patterns)), layout="constrained")
    panels = figure.subplots(len(patterns), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for panel, pattern in zip(panels, patterns, strict=True):
        colour = mode_colour(outcome, pattern.mode)
        for run in pattern.runs:
            stands = run is pattern.representative
            _curve(panel, run, colour, stands)
        ends = {e for run in pattern.runs for e in stage_ends(run)[:-1]}
        for end in ends:
            panel.axvline(end, color="#555555", linewidth=0.8, linestyle=":")
        count = f"{len(pattern.finished)} of {pattern.planned} runs finished"
        panel.set_title(f"{pattern.label} ({count})", loc="left", color=colour)
        panel.set_ylabel("score")
    panels[-1].set_xlabel("epochs spent")
    figure.suptitle(
        f"{data}: {protocol}\nbold: best of n; ● peak of a stage; dashed: rewind to it; "
        "pale: after the peak; dotted: other data",
        fontsize=8.5,
    )
    return figure


def _curve(panel: Axes, run: RunRecord, colour: str, stands: bool) -> None:
    """One run's score: solid up to each stage's peak, pale after it."""
    weight, solid = (1.6, 1.0) if stands else (0.8, 0.55)
    start = 0
    for stage in run.stages:
        points = [e for e in run.evaluations if e.stage == stage.stage]
        peak = stage.peak_epoch if stage.peak_epoch is not None else stage.epochs
        kept = [(start + e.epoch, e.score) for e in points if e.epoch <= peak]
        undone = [(start + e.epoch, e.score) for e in points if e.epoch >= peak]
        for part, alpha in ((kept, solid), (undone, 0.3)):
            if part:
                panel.plot(*zip(*part, strict=True), color=colour, linewidth=weight, alpha=alpha)
        if kept and stage.peak_epoch is not None:
            size = 5 if stands else 3
            panel.plot(*kept[-1], "o", color=colour, markersize=size, alpha=solid, zorder=3)
            rewound = run.settings.get("stages", {}).get("rewind", True)
            if stands and rewound and stage is not run.stages[-1]:  # the next is this very model
                rewind = [kept[-1][0], start + stage.epochs], [kept[-1][1]] * 2
                panel.plot(*rewind, color=colour, linewidth=0.9, linestyle="--")
        start += stage.epochs


def stage_ends(run: RunRecord) -> list[int]:
    """Epochs spent at the end of each stage."""
    return list(np.cumsum([stage.epochs for stage in run.stages], dtype=int).tolist())


def bin_width(span: float, counts: bool) -> float:
    """Bins of 100, the paper's, or the widest round ones that give twelve bins or more.

    The paper's are kept down to a span of 500, where CelebA's counts alone would have finer ones.
    Those of counts are whole numbers up to 100; those of other values of any size.
    """
    if counts and span >= 500:
        return 100
    if counts:
        return next((width for width in (20, 10, 5, 2) if span >= 12 * width), 1)
    if span <= 0:
        return 1.0
    decade = 10.0 ** math.floor(math.log10(span / 12))
    return decade * next((step for step in (5, 2) if span / 12 >= step * decade), 1)


def mode_colour(outcome: Outcome, mode: str) -> str:
    """The mode's colour, the same in every figure."""
    spare = [other for other in outcome.modes if other not in MODE_COLOURS]
    return MODE_COLOURS.get(mode) or SPARE_COLOURS[spare.index(mode) % len(SPARE_COLOURS)]


def sample_path(outcome: Outcome, run: RunRecord | None) -> Path | None:
    """The sample grid of a run's last stage, at its peak."""
    if run is None:
        return None
    path = outcome.run_folder(run) / "samples" / f"stage{len(run.stages)}.png"
    return path if path.is_file() else None


def patterns_by_data(outcome: Outcome) -> list[tuple[str, list[Pattern]]]:
    """The patterns of each data set, in the order of the tables."""
    names = dict.fromkeys(pattern.data for pattern in outcome.patterns)
    return [(name, [p for p in outcome.patterns if p.data == name]) for name in names]


def file_name(label: str) -> str:
    """A label as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", label)


def png(figure: Figure) -> bytes:
    """A figure as PNG bytes."""
    data = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(data, format="png", metadata=_undated("png"))
    return data.getvalue()


def _of_one_axis(outcome: Outcome) -> Iterator[tuple[str, list[GroupsRecord]]]:
    """Name of the figure and groups by values of one kind, feature counts first."""
    kinds: dict[str, dict[str, list[GroupsRecord]]] = {"feature_count": {}}
    for record in outcome.groups.values():
        kinds.setdefault(record.by, {}).setdefault(record.label, []).append(record)
    for by, labels in kinds.items():
        name = "feature-counts" if by == "feature_count" else f"values-{file_name(by)}"
        for number, records in enumerate(labels.values(), 1):
            yield name if len(labels) == 1 else f"{name}-{number}", records


def _undated(kind: str) -> dict[str, str | None]:
    """Metadata that leaves equal figures equal bytes."""
    return {"Software": None} if kind == "png" else {"Date": None}
