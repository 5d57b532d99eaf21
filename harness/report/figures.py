"""Figures of a sweep: scores of seeds, feature counts (figure 9), samples (10, 11), curves.

Each is drawn as a matplotlib figure by a pure function and saved as PNG; drawings also as SVG.
The palette is that of Okabe and Ito, made for the colour-blind; a mode has one colour everywhere.
"""

import re
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from PIL import Image
from scipy.special import stdtrit

from harness.records.run_record import RunRecord
from harness.records.sweep_records import GroupsRecord
from harness.records.sweep_results import PAPER_MODES, Block, SweepResults
from harness.report.paper_tables import readable

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73"),  # the paper's modes
    *("#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000"),
)
TITLE_LETTERS = 34
"""Letters that fit on one line over a panel of samples."""
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "figure.dpi": 160,
    "svg.hashsalt": "featgan",
    "text.parse_math": False,
}
FORMATS: dict[str, Any] = {
    "png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}},
    "svg": {"metadata": {"Date": None}},
}
"""Options by format: without version and date, an equal figure has equal bytes."""


def draw(results: SweepResults, folder: Path) -> list[Path]:
    """Save every figure the sweep has data for; return the files."""
    folder.mkdir(exist_ok=True)
    drawn = []
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A name may be too long for its panel, or have letters that the font lacks.
        warnings.filterwarnings("ignore", "Glyph|constrained_layout", UserWarning)
        for name, figure in figures(results):
            ConstrainedLayoutEngine().execute(figure)  # once for all formats
            box = figure.get_tightbbox().padded(mpl.rcParams["savefig.pad_inches"])
            for kind, options in FORMATS.items():
                if kind == "png" or not name.startswith("samples-"):  # pixels, of no use as SVG
                    drawn.append(folder / f"{name}.{kind}")
                    figure.savefig(drawn[-1], bbox_inches=box, **options)
    return drawn


def figures(results: SweepResults) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure of all there is to draw, figure 9 first."""
    kinds: dict[str, dict[str, list[GroupsRecord]]] = {"feature_count": {}}
    for record in results.groups.values():
        kinds.setdefault(record.by, {}).setdefault(record.label, []).append(record)
    for by, labels in kinds.items():
        name = "feature-counts" if by == "feature_count" else f"values-{file_name(by)}"
        for number, records in enumerate(labels.values(), 1):
            yield name if len(labels) == 1 else f"{name}-{number}", histograms(records)
    for data, runs in results.frame.groupby("data", sort=False):
        if any(sample_path(results, run, len(run.stages)) for run in runs["record"][runs["best"]]):
            yield f"samples-{file_name(str(data))}", samples(results, str(data), runs)
    for block in results.blocks():
        if not block.finished.empty:
            yield f"seeds-{file_name(block.data)}{block.suffix}", seeds(results, block)
        if any(run.evaluations for run in block.runs["record"]):
            yield f"curves-{file_name(block.data)}{block.suffix}", curves(results, block)


def histograms(shown: list[GroupsRecord]) -> Figure:
    """Draw figure 9: images by the values they are grouped by, a panel each, on one axis."""
    lowest = min(record.groups[0].lowest for record in shown)
    highest = max(record.groups[-1].highest for record in shown)
    counted = shown[0].by == "feature_count"
    edges = bin_edges(lowest, highest, counted)
    width = edges[1] - edges[0]
    figure = Figure(figsize=(6.8, 0.6 + 1.9 * len(shown)))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for panel, record in zip(panels, shown, strict=True):
        values = np.array(list(record.histogram))
        images = np.array(list(record.histogram.values()))
        parts = [(values >= g.lowest) & (values <= g.highest) for g in record.groups]
        panel.hist(
            [values[part] for part in parts],
            edges,
            weights=[images[part] for part in parts],
            stacked=True,
            color=mpl.colormaps["cividis"]((np.arange(record.k) + 0.5) / record.k),  # no mode's
            label=[
                f"group {g.number}: {g.size:,} around {g.centroid:,.{record.digits}f}"
                for g in record.groups
            ],
            edgecolor="white",
            linewidth=0.4,
        )
        for group in record.groups:
            panel.axvline(group.centroid, color="#333333", linewidth=0.8, linestyle=":")
        panel.set_title(f"{record.data} ({record.title}; {images.sum():,} images)", loc="left")
        bin_name = f"{width:g} counts" if counted else f"a bin of {width:g}"
        panel.set_ylabel("images" if counted and width == 1 else f"images in {bin_name}")
        panel.legend(frameon=False, fontsize=7.5, loc="upper left", bbox_to_anchor=(1, 1))
        panel.grid(axis="x", visible=False)
    panels[-1].set_xlabel(shown[0].label)
    return figure


def seeds(results: SweepResults, block: Block) -> Figure:
    """Draw the score of each seed by pattern, joined by seed, with means and 95 % intervals.

    Fresh scores, of the model that is kept and of the end of training; final scores where no run
    is re-scored.
    """
    fresh = {"fresh": "fresh score of the model kept", "fresh_last": "fresh score, end of training"}
    known = {column: name for column, name in fresh.items() if block.runs[column].notna().any()}
    shown = known or {"final_score": "final score (not re-scored)"}
    patterns = block.patterns
    figure = Figure(figsize=(7.2, 0.9 + 0.34 * len(patterns)))
    panels = figure.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
    for panel, (column, name) in zip(panels, shown.items(), strict=True):
        scores = block.by_seed(column).reindex(patterns.index)
        panel.plot(scores, range(len(patterns)), color="#c9c9c9", linewidth=0.7, zorder=1)
        for row, mode in enumerate(patterns["mode"]):
            values, colour = scores.iloc[row].dropna(), mode_colour(results, mode)
            panel.plot(values, [row] * len(values), "o", color=colour, markersize=4, alpha=0.7)
            if len(values) > 1:
                half = stdtrit(len(values) - 1, 0.975) * values.sem()
                interval = {"xerr": half, "fmt": "D", "capsize": 2, "markersize": 4}
                panel.errorbar(values.mean(), row + 0.28, color=colour, **interval)
        panel.set_xlabel(name)
        panel.grid(axis="y", visible=False)
    names = [textwrap.fill(label, TITLE_LETTERS) for label in patterns["label"]]
    panels[0].set_yticks(range(len(patterns)), names)
    panels[0].set_ylim(len(patterns) - 0.5, -0.5)
    return figure


def samples(results: SweepResults, data: str, runs: pd.DataFrame) -> Figure:
    """Draw figures 10 and 11: samples of the best run of each pattern of `runs`, side by side."""
    shown = list(runs.groupby(["pattern", "protocol"], sort=False))
    columns = min(len(shown), 3)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.55 * rows))
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, (_, pattern) in zip(panels, shown, strict=False):
        label, mode = pattern[["label", "mode"]].iloc[0]
        title = textwrap.fill(label, TITLE_LETTERS, break_long_words=False)
        panel.set_title(title, color=mode_colour(results, mode), fontsize=10)
        panel.set_xlabel("no samples yet", fontsize=8)
        for best in pattern["record"][pattern["best"]]:
            if path := sample_path(results, best, len(best.stages)):
                panel.imshow(Image.open(path).convert("RGB"), interpolation="nearest")
                panel.set_xlabel(
                    f"seed {best.cell['seed']}, score {best.final_score:.2f}, "
                    f"{best.epochs_to_peak:,} epochs to peak"
                )
    for panel in figure.get_axes():
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    figure.suptitle(f"{data}: generated images at the last stage's peak, best of n", fontsize=10)
    return figure


def curves(results: SweepResults, block: Block) -> Figure:
    """Draw the score over epochs spent, a panel a pattern: switches, peaks and rewinds."""
    shown = block.runs.groupby("pattern", sort=False)
    figure = Figure(figsize=(7.2, 0.9 + 1.75 * len(shown)))
    panels = figure.subplots(len(shown), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for panel, (_, runs) in zip(panels, shown, strict=True):
        label, mode = runs[["label", "mode"]].iloc[0]
        colour = mode_colour(results, mode)
        for run, best in zip(runs["record"], runs["best"], strict=True):
            _curve(panel, run, colour, best)
        for end in {end for run in runs["record"] for end in stage_ends(run)[:-1]}:
            panel.axvline(end, color="#555555", linewidth=0.8, linestyle=":")
        finished = f"{runs['counts'].sum()} of {len(runs)} runs finished"
        panel.set_title(f"{label} ({finished})", loc="left", color=colour)
        panel.set_ylabel("score")
    panels[-1].set_xlabel("epochs spent")
    dashed = "; dashed: rewind to it" if any(run.rewinds for run in block.runs["record"]) else ""
    figure.suptitle(
        f"{block.data}: {readable(block.protocol)}\nbold: best of n; ● peak of a stage{dashed}; "
        "pale: after the peak; dotted: other data",
        fontsize=8.5,
    )
    return figure


def _curve(panel: Axes, run: RunRecord, colour: str, best: bool) -> None:
    """Draw one run's score: solid up to each stage's peak, pale after it."""
    weight, solid = (1.6, 1.0) if best else (0.8, 0.55)
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
            size = 5 if best else 3
            panel.plot(*kept[-1], "o", color=colour, markersize=size, alpha=solid, zorder=3)
            if best and run.rewinds and stage is not run.stages[-1]:  # the next is this very model
                rewind = [kept[-1][0], start + stage.epochs], [kept[-1][1]] * 2
                panel.plot(*rewind, color=colour, linewidth=0.9, linestyle="--")
        start += stage.epochs


def stage_ends(run: RunRecord) -> list[int]:
    """Return the epochs spent at the end of each stage."""
    return list(np.cumsum([stage.epochs for stage in run.stages], dtype=int).tolist())


def bin_edges(low: float, high: float, counts: bool) -> np.ndarray:
    """Return edges of bins of one round width, 12 to 30 of them where counts allow.

    Counts that span 500 or more have the paper's bins of 100; no bin of counts is under 1.
    """
    if counts and high - low >= 500:
        return np.arange(low // 100, high // 100 + 2) * 100
    bins = MaxNLocator(30, steps=[1, 2, 5, 10], integer=counts, min_n_ticks=1)
    return np.array(bins.tick_values(low, high if high > low else low + 1))


def mode_colour(results: SweepResults, mode: str) -> str:
    """Return the mode's colour, the same in every figure."""
    known = list(dict.fromkeys([*PAPER_MODES, *results.modes]))
    return COLOURS[known.index(mode) % len(COLOURS)]


def sample_path(results: SweepResults, run: RunRecord, stage: int) -> Path | None:
    """Return the sample grid of a run's stage, at its peak; None if there is none yet."""
    path = results.folder / "runs" / run.run / "samples" / f"stage{stage}.png"
    return path if path.is_file() else None


def file_name(label: str) -> str:
    """Return a label as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", label)
