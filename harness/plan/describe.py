"""Texts on a sweep: what `--dry-run` prints, and the notes and settings kept with its results."""

import yaml

from harness.plan.estimate import KEPT_CHECKPOINTS, count_images, total
from harness.plan.grid import expand
from harness.plan.settings import Sweep


def describe(sweep: Sweep) -> str:
    """Return every setting, and with them the grid, and the number of runs."""
    most = "at most " if sweep.up_to else ""
    return f"{settings_text(sweep)}\nruns: {most}{len(expand(sweep))}"


def settings_text(sweep: Sweep) -> str:
    """Return every setting as YAML."""
    return yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def estimate_text(sweep: Sweep) -> str:
    """Return the work of all runs; UserError where a data set cannot be listed."""
    cells = expand(sweep)
    images = count_images(sweep, cells)
    work = total(cells, images)
    fresh = f"{work.fresh_images:,} images, or on GPUs {work.fresh_images_gpu:,}"
    return "\n".join(
        [
            f"estimate, {'at most, ' if sweep.up_to else ''}for feature groups of equal size:",
            "  images: " + ", ".join(f"{name} {count:,}" for name, count in images.items()),
            f"  training: {work.steps:,} steps, {work.images:,} images",
            f"  scoring: {work.evaluations:,} evaluations, {work.score_images:,} images",
            f"  re-scoring: {fresh if sweep.rescore else 'none'}",
            f"  checkpoints: at most {KEPT_CHECKPOINTS * len(cells):,}, "
            f"{KEPT_CHECKPOINTS} for each run",
        ]
    )


def notes(sweep: Sweep) -> list[str]:
    """Return sentences on what makes this sweep's numbers differ from published ones."""
    methods, found = [cell.method for cell in expand(sweep)], []
    random = {m.features.layer_label for m in methods if m.features.weights == "random"}
    if random:
        found.append(
            f"Feature counts come from {' and '.join(sorted(random))} with random weights: they "
            "order images by variety, but are not the counts of the trained network."
        )
    trained_on = sorted({name for method in methods for name in method.score.trained_on or []})
    if trained_on:
        found.append(
            "The Inception Score uses a small CNN trained on the labels of "
            f"{' and '.join(trained_on)}: it compares the runs of this sweep with each other, and "
            "with no published score."
        )
    if any(method.score.classifier == "packaged" for method in methods):
        found.append(
            "The Inception Score uses EfficientNet-Lite0 in Inception-v3's place: it compares with "
            "no published score."
        )
    if sweep.pilot:
        found.append("A pilot: runs whose scores fell behind were stopped; not for results.")
    if not all(method.training.deterministic for method in methods):
        found.append("Deterministic algorithms were off: a repeated run may differ.")
    return found
