"""What the figures show, read back from their axes."""

from itertools import pairwise

import numpy as np
import pytest

from harness.records.sweep_results import SweepResults
from harness.report import figures

GROUPS = [[3], [3, 2]]


@pytest.mark.parametrize(
    ("span", "width"),
    [(4000, 100), (700, 100), (500, 100), (499, 20), (130, 5), (24, 1), (23, 1), (0, 1)],
)
def test_bins_are_the_papers_or_finer_when_narrow(span, width):
    edges = figures.bin_edges(1234, 1234 + span, counts=True)
    assert set(np.diff(edges)) == {width}
    assert edges[0] <= 1234 <= 1234 + span <= edges[-1]


@pytest.mark.parametrize(
    ("span", "width"), [(24_000, 1000), (12, 0.5), (11.9, 0.5), (0.25, 0.01), (0.011, 0.0005)]
)
def test_bins_of_other_values_are_round_and_at_least_twelve(span, width):
    edges = figures.bin_edges(0.1, 0.1 + span, counts=False)
    assert np.diff(edges) == pytest.approx(width)
    assert 12 <= len(edges) - 1 <= 31


def test_equal_values_have_a_bin():
    edges = figures.bin_edges(0.5, 0.5, counts=False)
    assert edges[0] <= 0.5 < edges[-1]


def test_histogram_counts_every_image_once(sweep_folder):
    outcome = SweepResults(sweep_folder(seeds=1, length=2))
    figure = figures.histograms([*outcome.groups.values()])
    assert figure.get_axes()[1].get_xlabel() == "feature count (positive outputs of VGG16 fc1)"
    for panel in figure.get_axes():
        assert sum(bar.get_height() for bar in panel.patches) == 600
    figure.draw_without_rendering()
    for panel in figure.get_axes():  # the legend stands next to bars and lines, not on them
        assert panel.get_legend().get_window_extent().x0 > panel.get_window_extent().x1


def test_curve_is_pale_after_the_peak_and_marked_at_it(tmp_path, make_run, save_run):
    cell = {"data": "a", "mode": "descending", "seed": 0}
    run = make_run(cell, [[1.0, 3.0, 2.0], [2.5, 2.0]], GROUPS, images=[1, 2])
    save_run(tmp_path, run)
    outcome = SweepResults(tmp_path)
    panel = figures.curves(outcome, *outcome.blocks()).get_axes()[0]
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in panel.get_lines()]
    assert lines[0] == ([10, 20], [1.0, 3.0])
    assert lines[1] == ([20, 30], [3.0, 2.0])
    assert lines[2] == ([20], [3.0])  # the peak
    assert lines[3] == ([20, 30], [3.0, 3.0])  # the rewind, up to the switch
    assert lines[4] == ([40], [2.5])
    assert lines[-1][0] == [30, 30]  # the switch
    assert figures.stage_ends(run) == [30, 50]


def test_only_curves_with_rewinds_speak_of_them(tmp_path, make_run, save_run):
    cell = {"data": "a", "mode": "descending", "seed": 0}
    run = make_run(cell, [[1.0, 3.0, 2.0], [2.5, 2.0]], GROUPS, images=[1, 2])
    settings = run.settings | {"stages": {"rewind": False}}
    for folder, record in (("a", run), ("b", run.model_copy(update={"settings": settings}))):
        save_run(tmp_path / folder, record)
        outcome = SweepResults(tmp_path / folder)
        title = figures.curves(outcome, *outcome.blocks()).get_suptitle()
        assert ("dashed: rewind" in title) == (folder == "a")


def test_a_mode_has_one_colour_and_no_two_share_it(sweep_folder):
    modes = ("descending", "ascending", "conventional", "random", "mirrored", "shuffled")
    outcome = SweepResults(sweep_folder(data_sets=("a",), modes=modes, seeds=1, length=2))
    assert len({figures.mode_colour(outcome, mode) for mode in modes}) == len(modes)


def test_samples_say_where_a_pattern_has_none_yet(sweep_folder):
    folder = sweep_folder(data_sets=("a",), seeds=1, length=2)
    next(folder.glob("runs/a-ascending-*/samples/stage3.png")).unlink()
    outcome = SweepResults(folder)
    panels = figures.samples(outcome, "a", outcome.frame).get_axes()
    assert [len(panel.images) for panel in panels] == [1, 0, 1]
    assert panels[1].get_xlabel() == "no samples yet"


def test_titles_of_many_axes_do_not_run_into_each_other(tmp_path, make_run, save_run):
    axes = {"groups.by": "edge_density", "stages.criterion": "smoothed_peak", "groups.k": 4}
    for mode in ("ascending", "descending", "conventional"):
        cell = {"data": "a", "mode": mode, "seed": 0} | axes
        save_run(tmp_path, make_run(cell, [[1.0, 3.0]], GROUPS[:1], images=[1]))
    outcome = SweepResults(tmp_path)
    figure = figures.samples(outcome, "a", outcome.frame)
    figure.draw_without_rendering()
    boxes = [panel.title.get_window_extent() for panel in figure.get_axes()]
    assert len(boxes) == 3
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_every_seed_with_mean_and_students_interval(tmp_path, make_run, save_run, save_rescored):
    for mode, scores in (("descending", (1.0, 2.0, 3.0)), ("conventional", (4.0, 4.0, 4.0))):
        for seed, score in enumerate(scores):
            run = make_run({"data": "a", "mode": mode, "seed": seed}, [[9.0]], [[1]], images=[1])
            save_run(tmp_path, run)
            save_rescored(tmp_path, run, fresh_scores=(score,))
    outcome = SweepResults(tmp_path)
    kept = figures.seeds(outcome, *outcome.blocks()).get_axes()[0]
    assert [label.get_text() for label in kept.get_yticklabels()] == ["descending", "conventional"]
    assert kept.get_xlabel() == "fresh score of the model kept"
    joined, points = kept.get_lines()[:3], kept.get_lines()[3]
    assert [list(line.get_xdata()) for line in joined] == [[1, 4], [2, 4], [3, 4]]
    assert list(points.get_xdata()) == [1, 2, 3]
    ((low, _), (high, _)), *_ = kept.collections[0].get_segments()
    assert (low, high) == pytest.approx((2 - 2.484, 2 + 2.484), abs=1e-3)  # t of 2, 0.975: 4.303


def test_seeds_without_fresh_scores_show_final_ones(sweep_folder):
    outcome = SweepResults(sweep_folder(data_sets=("a",), seeds=1, length=2))
    (panel,) = figures.seeds(outcome, *outcome.blocks()).get_axes()
    assert panel.get_xlabel() == "final score (not re-scored)"
