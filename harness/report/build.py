"""Tables, figures and report of a sweep, finished or not, made from its records alone."""

import shlex
import sys
from pathlib import Path

from harness.records.sweep_results import SweepResults, cell_name
from harness.report import figures, html
from harness.report.claims import answers, claim_table, remarks
from harness.report.html import Section
from harness.report.image_quality import quality_tables
from harness.report.paper_tables import group_tables, run_table, score_table
from harness.report.seed_tables import seed_tables
from harness.report.table import escape_markdown


def make(folder: Path, reach: float | None = None) -> SweepResults:
    """Write tables, figures and report into a sweep's folder; return the results they show.

    `reach` is the score to which epochs and seconds are counted. Tables and figures that an
    earlier call wrote and this one did not are removed: among the new ones they would be wrong.
    """
    results = SweepResults(folder)
    sections = all_sections(results, reach)
    tables = [table for section in sections for table in section.tables]
    files = {f"{figures.file_name(table.key)}.csv": table.csv() for table in tables}
    files["tables.tex"] = "\n".join(table.latex() for table in tables)
    files["tables.md"] = _markdown(results, sections)
    (folder / "tables").mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / "tables" / name).write_text(text)
    drawn = figures.draw(results, folder / "figures")
    made = {*drawn, *(folder / "tables" / name for name in files)}
    for kind in ("tables/*.csv", "figures/*.png", "figures/*.svg"):
        for path in {*folder.glob(kind)} - made:
            path.unlink()
    html.write(results, sections, state(results), drawn)
    return results


def summary(results: SweepResults, home: str | Path) -> str:
    """Return text for the terminal: what is missing, verdicts, the main tables, and the files."""
    tables = [*group_tables(results), *map(score_table, results.blocks())]
    # by default ten of a run's sample grids are shown, drawn at random
    tensorboard = [sys.orig_argv[0], "-m", "tensorboard.main", "--samples_per_plugin=images=9999"]
    files = [
        f"report:  {home}/report.html",
        f"tables:  {home}/tables/tables.md",
        f"figures: {home}/figures",
        f"curves:  {shlex.join([*tensorboard, '--logdir', str(home)])}",
    ]
    lines = [*state(results), "", *_verdicts(results), ""]
    return "\n".join([*lines, *(table.text() for table in tables), *files])


def all_sections(results: SweepResults, reach: float | None = None) -> list[Section]:
    """Return every table in its section, without empty tables and sections."""
    sections = [
        Section(
            "What this sweep says",
            _verdicts(results),
            figures={
                "seeds-": "{}: score of every seed, runs of one seed joined; diamonds: means, "
                "with 95 % intervals (Student's t)"
            },
        ),
        Section(
            "Feature groups (the paper's tables 2 and 3)",
            (),
            group_tables(results),
            {
                "feature-counts": "Images of each feature count (the paper's figure 9)",
                "values-": "Images of each value of {}",
            },
        ),
        Section(
            "Epochs and scores (the paper's tables 4 and 5)",
            (),
            [*map(score_table, results.blocks())],
            {
                "samples-": "{}: generated images, best of n (the paper's figures 10 and 11)",
                "curves-": "{}: score over epochs spent, with the peaks of the stages",
            },
        ),
        Section("How far to trust the scores", tables=seed_tables(results, reach)),
        Section("What the images look like", tables=quality_tables(results)),
        Section("The claims in numbers", tables=[claim_table(results)]),
        Section("Every run", tables=[*map(run_table, results.blocks())]),
    ]
    return html.without_empty(sections)


def _verdicts(results: SweepResults) -> list[str]:
    """Return a sentence for each question of the sweep, by default each claim; and remarks."""
    found = answers(results)
    said = [a.sentence for a in found if a.verdict != "exploratory" or not results.plan.tests]
    if not results.plan.tests:
        said.append("No claim is tested here: tables of paired differences compare the runs.")
    return [*said, *remarks(results)]


def state(results: SweepResults) -> list[str]:
    """Return how complete the sweep is, what failed, and its notes; a line each."""
    frame = results.frame
    finished = frame[frame["status"] == "finished"]
    uncounted = frame[~frame["counts"]].groupby("outcome")["name"]
    named = {f"Not in means or best of n ({why})": [*names] for why, names in uncounted}
    collapsed = "over half of the images have a near duplicate, or the score is nearly 1"
    named[f"Collapsed ({collapsed})"] = [*frame["name"][frame["collapsed"]]]
    named["Continued on another device or PyTorch, so not exactly repeatable"] = [
        # an entry of `machines` is `host: device, PyTorch`
        name
        for name, run in zip(frame["name"], frame["record"], strict=True)
        if len({machine.partition(": ")[2] for machine in run.machines}) > 1
    ]
    named["Not begun"] = [*map(cell_name, results.missing)]
    return [
        f"{len(finished)} of {len(results.plan.cells)} runs finished.",
        *(f"{what}: {', '.join(names)}." for what, names in named.items() if names),
        *results.problems,
        *results.plan.notes,
    ]


def _markdown(results: SweepResults, sections: list[Section]) -> str:
    lines = [f"# Results of the sweep {escape_markdown(results.plan.name)}", ""]
    lines += [f"- {escape_markdown(line)}" for line in state(results)]
    for section in sections:
        lines += ["", f"## {section.heading}", ""]
        lines += [f"- {escape_markdown(sentence)}" for sentence in section.sentences]
        lines += [table.markdown() for table in section.tables]
    return "\n".join(lines)
