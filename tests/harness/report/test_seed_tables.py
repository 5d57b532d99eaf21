"""Seeds, scatter, fresh scores, speed and pairs, worked out by hand."""

from dataclasses import replace

import pytest

from harness.records.sweep_results import SweepResults
from harness.report.seed_tables import reached, seed_tables

PROTOCOL = "IS trained-cnn-0a1b n=1000 splits=10 fp32"


@pytest.fixture
def folder(tmp_path, make_run, save_run, save_rescored):
    """Two modes, three seeds; the last run of `b` diverged. Final scores are the peaks."""
    finals = {"descending": [3.0, 5.0, 4.0], "conventional": [2.0, 2.0, 9.0]}
    for mode, scores in finals.items():
        for seed, score in enumerate(scores):
            status = "diverged" if score == 9.0 else "finished"
            cell = {"data": "a", "mode": mode, "seed": seed}
            run = make_run(cell, [[1.0, score]], [[1, 2]], images=[100], status=status)
            save_run(tmp_path, run)
            if status == "finished":
                fresh = [score - 0.2, score - 0.6]
                save_rescored(tmp_path, run, fresh_scores=fresh, score=score - 1.2)
    return tmp_path


def table(folder, key, **options):
    return next(t for t in seed_tables(SweepResults(folder), **options) if t.key == key)


def test_every_seed_mean_deviation_and_selection_bias(folder):
    seeds = table(folder, "seeds-a")
    names = [*seeds.frame]
    assert names == [
        "pattern", "seed 0", "seed 1", "seed 2", "mean", "sd", "best of n", "fresh", "sd of draws",
        "bias of evaluations", "mean of all fresh", "bias of seeds",
        "epochs to peak, mean", "epochs to peak, sd", "images to peak, mean", "epochs spent, mean",
        "best of n, IS small CNN of this sweep (0a1b) n=10000 splits=10 fp32",
    ]  # fmt: skip
    descending, conventional = seeds.rows
    assert descending[:8] == ["descending", 3.0, 5.0, 4.0, 4.0, 1.0, 5.0, 4.6]
    # 5.0 chosen among evaluations is 0.4 above its fresh score, which is 1.0 above the mean of all.
    assert descending[8:12] == pytest.approx([0.08**0.5, 0.4, 3.6, 1.0])
    # 20 epochs of 100 images
    assert descending[12:] == [20.0, 0.0, 2000.0, 20.0, 3.8]
    # The diverged run counts in no mean: a gap, and a mean over two.
    assert conventional[:7] == ["conventional", 2.0, 2.0, None, 2.0, 0.0, 2.0]


def test_fresh_scores_of_another_protocol_are_left_out(tmp_path, make_run, save_run, save_rescored):
    run = make_run({"data": "a", "mode": "x", "seed": 0}, [[3.0]], [[1]], images=[1])
    save_run(tmp_path, run)
    save_rescored(tmp_path, run, same_protocol="IS trained-cnn-0a1b n=1000 splits=10 bf16")
    (row,) = table(tmp_path, "seeds-a").rows
    assert row[5:7] == [None, None]


def test_pairs_differ_in_one_thing_or_have_a_baseline(tmp_path, make_run, save_run):
    cells = [
        {"mode": "conventional"},
        {"mode": "descending", "groups.k": 2},
        {"mode": "descending", "groups.k": 3},
        {"mode": "ascending", "groups.k": 3},
        {"mode": "random"},  # of the file's own k, which is 3
    ]
    for score, cell in enumerate(cells, 1):
        run = make_run({"data": "a", "seed": 0, **cell}, [[score]], [[1]], images=[1])
        save_run(tmp_path, run.model_copy(update={"settings": {"groups": {"k": 3}}}))
    rows = table(tmp_path, "pairs-a").rows
    assert {frozenset(str(row[1]).split(" minus ")) for row in rows} == {
        frozenset({"conventional", "descending, groups.k=2"}),
        frozenset({"conventional", "descending, groups.k=3"}),
        frozenset({"conventional", "ascending, groups.k=3"}),
        frozenset({"descending, groups.k=2", "descending, groups.k=3"}),
        frozenset({"descending, groups.k=3", "ascending, groups.k=3"}),
        frozenset({"ascending, groups.k=3", "descending, groups.k=2"}),  # the file's own k
        frozenset({"random", "conventional"}),
        frozenset({"random", "descending, groups.k=3"}),
        frozenset({"random", "ascending, groups.k=3"}),
    }


def compared(folder):
    return {frozenset(str(row[1]).split(" minus ")) for row in table(folder, "pairs-a").rows}


def test_the_files_own_settings_are_a_baseline_of_all(tmp_path, make_run, save_run):
    own = {"groups": {"k": 3, "method": "kmeans"}, "training": {"stage_epochs": 30}}
    cells = [
        {"groups.method": "kmeans"},
        {"groups.k": 2, "training.stage_epochs": 45},
        {"groups.k": 6, "training.stage_epochs": 30},  # twice as long
    ]
    for cell in cells:
        whole = {"data": "a", "mode": "descending", "seed": 0, **cell}
        run = make_run(whole, [[1.0]], [[1]], images=[1])
        save_run(tmp_path, run.model_copy(update={"settings": own}))
    assert compared(tmp_path) == {
        frozenset(
            {
                "descending, groups.method=kmeans",
                "descending, groups.k=2, training.stage_epochs=45",
            }
        ),
        frozenset(
            {
                "descending, groups.method=kmeans",
                "descending, groups.k=6, training.stage_epochs=30",
            }
        ),
    }


def test_baselines_are_the_papers_modes_alone(tmp_path, make_run, save_run):
    rival = {"groups.by": "edge_density", "pacing.by": "loss"}
    cells = [
        {"mode": "descending"},
        {"mode": "random"},
        {"mode": "conventional", **rival},
        {"mode": "ascending", "groups.by": "centrality"},
    ]
    for cell in cells:
        run = make_run({"data": "a", "seed": 0, **cell}, [[1.0]], [[1]], images=[1])
        settings = {"groups": {"by": "feature_count"}, "pacing": {"by": "none"}}
        save_run(tmp_path, run.model_copy(update={"settings": settings}))
    loss = "conventional, groups.by=edge_density, pacing.by=loss"
    assert compared(tmp_path) == {
        frozenset({"descending", "random"}),
        frozenset({"descending", loss}),
        frozenset({"descending", "ascending, groups.by=centrality"}),
    }


def test_a_list_that_is_the_files_own_is_not_a_difference(tmp_path, make_run, save_run):
    settings = {"gan": {"augment": ["color"]}}
    cells = [{"mode": "random"}, {"mode": "descending", "gan.augment": ["color"]}]
    for cell in cells:
        run = make_run({"data": "a", "seed": 0, **cell}, [[1.0]], [[1]], images=[1])
        save_run(tmp_path, run.model_copy(update={"settings": settings}))
    assert compared(tmp_path) == {frozenset({"random", 'descending, gan.augment=["color"]'})}


def test_pairs_are_of_the_seeds_that_both_finished(folder):
    rows = {(row[0], row[1]): row[2:] for row in table(folder, "pairs-a").rows}
    final = rows["final score", "descending minus conventional"]
    # 1 and 3: t(1, 0.975) = 12.706; of 4 sign flips 2 are as far, and so are those of any row.
    assert final[:6] == pytest.approx([2, 2.0, -10.706, 14.706, 0.5, 0.5], abs=0.001)
    assert final[6] == 1.0
    # The diverged run counts as the lowest score: 4 - 0.4 - 1.
    fresh = rows["fresh", "descending minus conventional"]
    assert fresh[:2] == pytest.approx([3, (1 + 3 + 2.6) / 3])


def test_level_to_reach_is_what_every_finished_run_reached(folder):
    reach = table(folder, "reach-a")
    assert reach.title == "a: epochs and seconds to reach a score of 2.000"
    assert [row[:4] for row in reach.rows] == [
        ["descending", 3, 3, 20.0],
        ["conventional", 2, 2, 20.0],
    ]
    asked = table(folder, "reach-a", reach=4.0)
    assert [row[1:3] for row in asked.rows] == [[3, 2], [2, 0]]


def test_seconds_follow_from_steps_batches_and_speed(make_run):
    run = make_run(
        {"data": "a", "mode": "x", "seed": 0}, [[1.0, 2.0], [1.5, 3.0]], [[1], [1, 2]],
        images=[1, 2],
    )  # fmt: skip
    # 100 steps of 64 images an evaluation; 200 images a second in stage 1, 400 in stage 2.
    assert reached(run, 1.0) == (10, 32.0)
    assert reached(run, 2.5) == (40, 32 + 32 + 16 + 16)
    assert reached(run, 3.5) is None


def test_further_metrics_are_those_of_the_final_score(
    tmp_path, make_run, save_run, save_real, save_rescored
):
    for seed, fids in enumerate([(9.0, 30.0), (5.0, 50.0)]):
        cell = {"data": "a", "mode": "x", "seed": seed}
        run = make_run(cell, [[3.0, 1.0]], [[1]], images=[1])
        scored = [
            replace(e, metrics={"fid": fid}) for e, fid in zip(run.evaluations, fids, strict=True)
        ]
        save_run(tmp_path, run.model_copy(update={"evaluations": scored}))
    metrics = table(tmp_path, "metrics-a")
    assert metrics.rows == [["x", 2, 7.0]]
    assert "at peaks of score. How" in metrics.notes[1]
    save_real(tmp_path, "a", 6.5, metrics={"fid": 1.5, "kid": 0.1})
    save_rescored(tmp_path, run, metrics_as_real={"fid": 8.0})
    metrics = table(tmp_path, "metrics-a")
    assert "400 of them against the 500 others" in metrics.notes[2]
    assert metrics.rows[1:] == [["x, 400 images", 1, 8.0], ["real images", None, 1.5]]


@pytest.mark.parametrize(("width", "warned"), [(64, 0), (2048, 1)])
def test_kid_in_thousandths_and_too_few_images_for_fid(tmp_path, make_run, save_run, width, warned):
    run = make_run({"data": "a", "mode": "x", "seed": 0}, [[3.0]], [[1]], images=[1])
    found = {"fid": 9.0, "kid": 0.0123, "kid_sd": 0.001}
    how = f"FID KID-100x1000 trained-cnn2-0a1b n=1000 real=600 width={width} fp32"
    scored = [replace(run.evaluations[0], metrics=found)]
    save_run(tmp_path, run.model_copy(update={"evaluations": scored, "metrics_protocol": how}))
    metrics = table(tmp_path, "metrics-a")
    names = [*metrics.frame]
    assert names[3:] == ["KID x 1,000", "its sd over subsets x 1,000"]
    assert metrics.rows[0][2:] == pytest.approx([9.0, 12.3, 1.0])
    warnings = [note for note in metrics.notes if note.startswith("Warning: FID of 1,000 images")]
    assert len(warnings) == warned


def test_a_collapsed_run_does_not_set_the_level_to_reach(tmp_path, make_run, save_run):
    for seed, score in enumerate([1.01, 3.0, 2.5]):
        save_run(
            tmp_path,
            make_run({"data": "a", "mode": "x", "seed": seed}, [[score]], [[1]], images=[1]),
        )
    reach = table(tmp_path, "reach-a")
    assert reach.title == "a: epochs and seconds to reach a score of 2.500"
    assert reach.rows[0][1:3] == [3, 2]


def test_images_to_peak_are_of_the_stages_epochs(tmp_path, make_run, save_run):
    cell = {"data": "a", "mode": "x", "seed": 0}
    run = make_run(cell, [[1.0, 2.0], [3.0, 1.0]], [[1], [1, 2]], images=[100, 300])
    save_run(tmp_path, run)
    frame = SweepResults(tmp_path).frame
    assert frame["images_to_peak"].tolist() == [20 * 100 + 10 * 300]
    run.settings["training"]["epoch_steps"] = 3
    (tmp_path / "runs" / run.run / "run.json").write_text(run.model_dump_json())
    frame = SweepResults(tmp_path).frame
    assert frame["images_to_peak"].tolist() == [30 * 3 * 64]


def test_without_rewinds_earlier_stages_count_in_full(tmp_path, make_run, save_run):
    cell = {"data": "a", "mode": "x", "seed": 0}
    run = make_run(cell, [[2.0, 1.0], [3.0, 1.0]], [[1], [1, 2]], images=[100, 300])
    assert run.images_to_peak == 10 * 100 + 10 * 300
    run.settings["stages"] = {"rewind": False}
    assert run.images_to_peak == 20 * 100 + 10 * 300
