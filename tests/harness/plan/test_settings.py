import json
import textwrap
from pathlib import Path

import pytest

from featgan.errors import UserError
from harness.plan.settings import load

SWEEPS = Path(__file__).parents[3] / "sweeps"

SMALL = """
data:
  a: {source: builtin, set: apples, count: 60}
  b: {source: builtin, set: digits}
image_size: 32
training: {stage_epochs: 20, evaluate_every: 5}
score: {classifier: trained, trained_on: [a]}
"""


@pytest.fixture
def read(tmp_path):
    def read(extra="", text=SMALL, scale="full"):
        path = tmp_path / "small.yaml"
        path.write_text(text + textwrap.dedent(extra))
        return load(path, scale)

    return read


def test_defaults_are_the_papers_grid(read):
    sweep = read()
    cells = sweep.cells()
    assert sweep.name == "small"
    assert len(cells) == 2 * 3 * 3
    assert [cell.label for cell in cells[:4]] == [
        "a-descending-seed0",
        "a-descending-seed1",
        "a-descending-seed2",
        "a-ascending-seed0",
    ]


def test_any_dotted_key_is_an_axis(read):
    cells = read(
        """
        grid: {mode: [ascending], seed: [7], groups.k: [2, 4], training.learning_rate: [1e-4]}
        """
    ).cells()
    assert [cell.label for cell in cells] == [
        f"{data}-ascending-seed7-k{k}-learning_rate0.0001" for data in "ab" for k in (2, 4)
    ]
    assert [cell.method.groups.k for cell in cells] == [2, 4, 2, 4]
    assert cells[0].method.training.learning_rate == 1e-4
    assert cells[1].as_dict() == {
        "data": "a",
        "mode": "ascending",
        "seed": 7,
        "groups.k": 4,
        "training.learning_rate": 1e-4,
    }


def test_cells_of_several_grids_are_put_together_each_once(read):
    cells = read(
        """
        grid:
        - {data: [b], mode: [conventional], seed: [0, 1]}
        - {mode: [descending], seed: [0], groups.k: [2, 3]}
        - {data: [b], mode: [conventional, random], seed: [1]}
        """
    ).cells()
    assert [cell.label for cell in cells] == [
        "a-descending-seed0-k2",
        "a-descending-seed0-k3",
        "b-conventional-seed0",
        "b-conventional-seed1",
        "b-descending-seed0-k2",
        "b-descending-seed0-k3",
        "b-random-seed1",
    ]


def test_the_small_form_replaces_data_and_grid_and_merges_sections(read):
    small = """
        gan: {width: 8, latent: 16}
        small:
          data: {c: {source: builtin, set: digits}}
          gan: {width: 4}
          score: {trained_on: [c]}
          grid: {seed: [5]}
        """
    sweep = read(small, scale="small")
    assert (sweep.name, [*sweep.data]) == ("small-small", ["c"])
    assert (sweep.gan.width, sweep.gan.latent) == (4, 16)
    assert (sweep.score.classifier, sweep.score.trained_on) == ("trained", ["c"])
    assert {cell.seed for cell in sweep.cells()} == {5}
    whole = read(small)
    assert (whole.name, whole.gan.width, [*whole.data]) == ("small", 8, ["a", "b"])


def test_a_file_without_a_small_form_says_so(read):
    with pytest.raises(UserError, match=r"small\.yaml: --scale small: .* no section `small`"):
        read(scale="small")


@pytest.mark.parametrize("name", ["null", "[a]", "''"])
def test_the_small_form_refuses_a_name_that_the_full_form_refuses(read, name):
    for scale in ("full", "small"):
        with pytest.raises(UserError, match=r"small\.yaml: name: "):
            read(f"name: {name}\nsmall: {{}}\n", scale=scale)


def test_what_a_criterion_watches_must_be_measured(read):
    fid = "stages: {watch: fid}\n"
    with pytest.raises(UserError, match=r"stages\.watch: 'fid' is not measured"):
        read(fid)
    text = SMALL.replace("trained_on: [a]", "trained_on: [a], metrics: [fid]")
    assert read(fid, text).cells()[0].method.stages.watch == "fid"
    axis = "grid: {score.metrics: [[fid], [fid, kid]]}\n"
    assert read(fid + axis).cells()[0].method.stages.watch == "fid"
    with pytest.raises(UserError, match=r"stages\.watch: 'fid' is not measured"):
        read(fid + axis.replace("[fid, kid]", "[kid]"))


def test_evaluations_are_those_of_each_cell(read):
    text = SMALL.replace("evaluate_every: 5", "evaluate_every: 3")
    cells = read("grid: {training.stage_epochs: [9, 12]}", text).cells()
    assert {cell.method.training.stage_epochs for cell in cells} == {9, 12}


PILOT = "pilot: {grace: 5}\n"


@pytest.mark.parametrize(
    "grid",
    [
        "",
        "grid: {mode: [conventional]}",
        "grid: {mode: [conventional, descending], data: [a]}",
        "grid: {mode: [conventional], data: [a], score.count: [10, 20]}",
    ],
)
def test_a_pilot_compares_like_with_like_and_never_the_papers_grid(read, grid):
    with pytest.raises(UserError, match="pilot: stops runs by comparing their scores"):
        read(PILOT + grid)
    fine = read(PILOT + "grid: {mode: [conventional], data: [b], training.batch_size: [8, 16]}")
    assert len(fine.cells()) == 6


def test_a_pilots_grace_ends_before_its_runs(read):
    grid = "grid: {mode: [conventional], data: [a], training.stage_epochs: [20, 10]}\n"
    assert read("pilot: {grace: 29}\n" + grid).pilot is not None  # three groups' epochs each
    with pytest.raises(UserError, match=r"pilot\.grace: no run of 30 epochs .* after 30; lower"):
        read("pilot: {grace: 30}\n" + grid)


def test_the_source_of_an_own_function_is_part_of_the_signature(read, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "own_pace.py"
    path.write_text("def stop(values, stages): return 0, False\n")
    cell = read("stages: {criterion: 'own_pace:stop'}").cells()[0]
    before = cell.signature("d", None)
    path.write_text("def stop(values, stages): return 0, len(values) > 3\n")
    assert cell.signature("d", None) != before


def test_an_own_order_gives_runs_a_name_that_is_safe(read):
    cell = read("grid: {mode: ['orders:inside_out'], seed: [0], data: [a]}").cells()[0]
    assert cell.label == "a-orders_inside_out-seed0"


def test_the_signature_tells_what_can_change_the_result_and_nothing_else(read):
    def signature(extra="", digest="d", classifier="c"):
        return read(extra).cells()[0].signature(digest, classifier)

    first = signature()
    assert len(first) == 10
    assert signature("resources: {cpus_per_run: 2, max_concurrent: 1}") == first
    assert signature("name: other") == first
    assert signature("sample_every: 3") == first
    assert signature("groups: {k: 4}") != first
    assert signature("gan: {width: 8}") != first
    assert signature(digest="e") != first
    assert signature(classifier="x") != first
    assert len({cell.signature("d", "c") for cell in read().cells()}) == 9  # data: the digest


UNREAD = {
    "patience": ("stages: {patience: 3}", "descending"),
    "window": ("stages: {window: 7}", "descending"),
    "pacing": ("pacing: {first: high, decay: 2.0}", "descending"),
    "tolerance": ("groups: {tolerance: 0.3}", "descending"),
    "cut": ("groups: {method: balanced, tolerance: 0.3}", "conventional"),
    "change": ("stages: {change: replace, rewind: false}", "conventional"),
    "published loss": ("gan: {loss: non-saturating}", "descending"),
    "published rate": ("grid: {training.beta1: [0.5], training.d_steps: [1]}", "descending"),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_a_setting_that_a_run_never_looks_at_repeats_no_run(read, kind):
    extra, mode = UNREAD[kind]

    def signature(text):
        cells = read(text).cells()
        return next(cell.signature("d", "c") for cell in cells if cell.mode == mode)

    assert signature(extra) == signature("")


READ = {
    "patience": ("stages: {criterion: patience}", "stages: {criterion: patience, patience: 3}"),
    "window": ("stages: {criterion: plateau}", "stages: {criterion: plateau, window: 7}"),
    "pacing": ("pacing: {by: loss}", "pacing: {by: loss, decay: 2.0}"),
    "tolerance": ("groups: {method: balanced}", "groups: {method: balanced, tolerance: 0.3}"),
    "cut": ("groups: {method: kmeans}", "groups: {method: quantile}"),
    "change": ("stages: {change: add}", "stages: {change: replace}"),
    "rewind": ("stages: {rewind: true}", "stages: {rewind: false}"),
    "rate": ("grid: {training.beta1: [0.5]}", "grid: {training.beta1: [0.4]}"),
    "other network": ("gan: {network: sngan}", "gan: {network: sngan, loss: non-saturating}"),
}


@pytest.mark.parametrize("kind", READ)
def test_a_setting_that_a_run_looks_at_makes_another_run(read, kind):
    first, second = (read(text).cells()[0] for text in READ[kind])
    assert first.mode == "descending"
    assert first.signature("d", "c") != second.signature("d", "c")


def test_values_count_for_a_conventional_run_only_if_it_is_paced_by_them(read):
    def signatures(text, mode):
        cell = next(cell for cell in read(text).cells() if cell.mode == mode)
        return {cell.signature("d", "c", values) for values in (None, "v", "w")}

    assert len(signatures("", "conventional")) == 1
    assert len(signatures("pacing: {by: loss}", "conventional")) == 3
    assert len(signatures("", "descending")) == 3


def test_an_axis_that_a_run_does_not_look_at_does_not_repeat_it(read):
    cells = read(
        """
        grid:
          mode: [descending, conventional]
          data: [a]
          seed: [0]
          groups.method: [kmeans, quantile]
          stages.criterion: [peak, patience]
          stages.patience: [2, 3]
        """
    ).cells()
    assert sorted(cell.label for cell in cells) == [
        "a-conventional-seed0-criterionpatience-patience2",
        "a-conventional-seed0-criterionpatience-patience3",
        "a-conventional-seed0-criterionpeak",
        "a-descending-seed0-methodkmeans-criterionpatience-patience2",
        "a-descending-seed0-methodkmeans-criterionpatience-patience3",
        "a-descending-seed0-methodkmeans-criterionpeak",
        "a-descending-seed0-methodquantile-criterionpatience-patience2",
        "a-descending-seed0-methodquantile-criterionpatience-patience3",
        "a-descending-seed0-methodquantile-criterionpeak",
    ]
    assert len({cell.signature("d", "c") for cell in cells}) == 9


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("trainig: {}", "trainig: unknown key; did you mean 'training'?"),
        ("gan: {widht: 3}", "gan.widht: unknown key; did you mean 'width'?"),
        ("gan: {width: 0}", "gan.width: input should be greater than or equal to 1, not 0"),
        ("gan: {width: '8'}", "gan.width: input should be a valid integer, not '8'"),
        ("gan: {width: .nan}", "gan.width: input should be a valid integer, not nan"),
        ("gan: 3", "gan: input should be a valid dictionary or instance of GanSettings, not 3"),
        ("grid: {mode: [upwards]}", "grid.mode.0: 'upwards' is none of descending,"),
        ("grid: {seed: []}", "grid.seed: list should have at least 1 item"),
        ("grid: {seed: [1, 1]}", "grid: seed lists a value twice"),
        ("grid: {groups.j: [1]}", "grid.groups.j: unknown key; did you mean 'groups.k'?"),
        ("grid: {groups.k: [0]}", "grid: groups.k: input should be greater than or equal to 1"),
        ("grid: {training.stage_epochs: [7]}", "training.stage_epochs (7) must be a multiple of"),
        ("grid: {data: [c]}", "grid.data: there is no data set 'c'"),
        ("name: ../x", "name: string should match pattern"),
        ("name: features", "name: 'features' is where feature tables are kept"),
        ("groups: {k: 3}\ngroups: {k: 4}", "line 9: key 'groups' twice"),
        ("groups: [", "line 8: expected"),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_reason(read, extra, message):
    with pytest.raises(UserError) as caught:
        read(extra)
    assert "small.yaml: " in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_size: 32", "image_size: 48", "image_size: input should be 32, 64, 128 or 256"),
        ("evaluate_every: 5", "evaluate_every: 3", "stage_epochs (20) must be a multiple of"),
        ("count: 60", "cout: 60", "data.a.cout: unknown key; did you mean 'count'?"),
        ("set: apples", "set: pears", "data.a.set: input should be 'apples' or 'digits'"),
        ("trained_on: [a]", "trained_on: [z]", "score.trained_on: there is no data set 'z'"),
        (", trained_on: [a]", "", "score.trained_on: name the data sets"),
        ("  a: {", "  'a b': {", "string should match pattern"),
    ],
)
def test_a_mistake_inside_a_section(read, old, new, message):
    with pytest.raises(UserError) as caught:
        read(text=SMALL.replace(old, new))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a sweep file is a mapping"),
        ("[]", "a sweep file is a mapping"),
        ("data: {}", "data: dictionary should have at least 1 item"),
        ("image_size: 32", "data: missing"),
        ("1: 2", "1: a key must be text"),
        (
            "a: &a [x, x]\nb: &b [*a, *a]\n"
            + "\n".join(
                f"c{n}: &c{n} [{', '.join(['*b' if n == 0 else f'*c{n - 1}'] * 9)}]"
                for n in range(9)
            ),
            "aliases expanded",
        ),
        ("a: &a [*a]", "aliases expanded"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("\x00", "unacceptable character"),
    ],
)
def test_what_is_no_sweep_file_is_refused(read, text, message):
    with pytest.raises(UserError) as caught:
        read(text=text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"nowhere\.yaml: No such file"):
        load("nowhere.yaml")


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_sweeps_of_the_project_are_valid(path):
    sweep = load(path)
    assert sweep.name == path.stem
    assert len({cell.label for cell in sweep.cells()}) == len(sweep.cells())
    json.dumps([cell.as_dict() for cell in sweep.cells()])


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_small_forms_are_valid(path):
    if "\nsmall:" in path.read_text():
        assert load(path, "small").name == f"{path.stem}-small"


def test_the_papers_sweep_is_the_papers():
    sweep = load(SWEEPS / "paper.yaml")
    assert len(sweep.cells()) == 18
    assert sweep.image_size == 128
    assert (sweep.training.stage_epochs, sweep.training.evaluate_every) == (3000, 10)
    assert (sweep.features.weights, sweep.features.input_size) == ("imagenet", 224)
    assert (sweep.groups.method, sweep.groups.k) == ("kmeans", 3)
