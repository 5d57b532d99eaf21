"""What real and generated images look like, side by side."""

from harness.records.sweep_results import SweepResults
from harness.report.image_quality import quality_tables


def test_generated_images_stand_next_to_real_ones(
    tmp_path, make_run, save_run, save_rescored, save_real
):
    for mode, outlines in (("descending", [12.0, 13.0, 14.0]), ("conventional", [10.0, 10.0])):
        for seed, value in enumerate(outlines):
            run = make_run({"data": "a", "mode": mode, "seed": seed}, [[2.0]], [[1]], images=[100])
            save_run(tmp_path, run)
            save_rescored(tmp_path, run, outlines=value)
    save_real(tmp_path, "a", outlines=20.0)
    (table,) = quality_tables(SweepResults(tmp_path))
    assert [row[:3] for row in table.rows] == [
        ["real images", None, 20.0],
        ["real images of group 1", None, None],
        ["descending", 3, 13.0],
        ["conventional", 2, 10.0],
    ]
    assert table.rows[1][-2:] == [900.0, 20.0]


def test_a_mean_leaves_out_no_run_silently(tmp_path, make_run, save_run, save_rescored):
    for seed in (0, 1):
        run = make_run({"data": "a", "mode": "m", "seed": seed}, [[2.0]], [[1]], images=[100])
        save_run(tmp_path, run)
        save_rescored(tmp_path, run, outlines=12.0)
    path = tmp_path / "runs" / run.run / "rescored.json"
    path.write_text(path.read_text().replace('"outlines":12.0', '"outlines":NaN'))
    (table,) = quality_tables(SweepResults(tmp_path))
    assert "| m | 2 | \u2013 | 40.0 |" in table.markdown()


def test_without_measurements_its_table_is_empty(sweep_folder):
    tables = quality_tables(SweepResults(sweep_folder(seeds=1, length=2)))
    assert [table.rows for table in tables] == [[], []]
