"""The work of a sweep, computed from its file and the number of images."""

import math
from typing import NamedTuple

from featgan.features.settings import NONE
from harness.plan.grid import Cell
from harness.plan.settings import Sweep

KEPT_CHECKPOINTS = 2
"""Checkpoints that a run keeps."""


class Estimate(NamedTuple):
    """The work of runs, summed; groups are assumed to be of equal size."""

    steps: int
    images: int
    """Real images trained on."""
    evaluations: int
    score_images: int
    """Images generated for evaluations."""
    fresh_images: int
    """Images generated for re-scores on a CPU: of the kept generator and of the last one."""
    fresh_images_gpu: int


def estimate(cell: Cell, images: int) -> Estimate:
    """Return the work of a cell's run on a data set of `images` images."""
    method, training = cell.method, cell.method.training
    if method.select.by != NONE:
        images = round(images * method.select.keep)
    steps = evaluations = 0
    for stage in cell.stages:
        current = max(1, images * len(stage.groups) // method.groups.k)
        epoch_steps = training.epoch_steps or math.ceil(current / training.batch_size)
        steps += stage.epochs * epoch_steps
        evaluations += stage.epochs // training.evaluate_every
    return Estimate(
        steps=steps,
        images=steps * training.batch_size,
        evaluations=evaluations,
        score_images=evaluations * method.score.count,
        fresh_images=2 * method.score.fresh_count(gpu=False),
        fresh_images_gpu=2 * method.score.fresh_count(gpu=True),
    )


def total(cells: list[Cell], images: dict[str, int]) -> Estimate:
    """Return the work of the runs of all cells, on data sets of `images` images by name."""
    works = (estimate(cell, images[cell.data]) for cell in cells)
    return Estimate(*map(sum, zip(*works, strict=True)))


def count_images(sweep: Sweep, cells: list[Cell]) -> dict[str, int]:
    """Return the number of images found for each data set; none of them is opened."""
    images = {}
    for name in dict.fromkeys(cell.data for cell in cells):
        source = sweep.data[name]
        rows = source.find(sweep.image_size).rows
        mixed = source.corrupt.mixed if source.corrupt else ()  # they replace others
        images[name] = sum(1 for row in rows if row.problem is None and row.origin not in mixed)
    return images
