import json
from pathlib import Path

import pytest

from featgan.errors import UserError
from harness.plan.grid import expand, family
from harness.plan.load import load

SWEEPS = Path(__file__).parents[3] / "sweeps"


def test_small_replaces_data_and_grid_and_merges_sections(read):
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
    assert {cell.seed for cell in expand(sweep)} == {5}
    whole = read(small)
    assert (whole.name, whole.gan.width, [*whole.data]) == ("small", 8, ["a", "b"])


def test_a_file_without_small_is_refused_for_scale_small(read):
    with pytest.raises(UserError, match=r"small\.yaml: --scale small: .* no section `small`"):
        read(scale="small")


@pytest.mark.parametrize("name", ["null", "[a]", "''"])
def test_both_forms_refuse_the_same_names(read, name):
    for scale in ("full", "small"):
        with pytest.raises(UserError, match=r"small\.yaml: name: "):
            read(f"name: {name}\nsmall: {{}}\n", scale=scale)


def test_the_watched_metric_must_be_measured(read):
    fid = "stages: {watch: fid}\n"
    with pytest.raises(UserError, match=r"stages\.watch: 'fid' is no metric that"):
        read(fid)
    more = "trained_on: [a]", "trained_on: [a], metrics: [fid]"
    assert expand(read(fid, *more))[0].method.stages.watch == "fid"
    axis = "grid: {score.metrics: [[fid], [fid, kid]]}\n"
    assert expand(read(fid + axis))[0].method.stages.watch == "fid"
    with pytest.raises(UserError, match=r"stages\.watch: 'fid' is no metric that"):
        read(fid + axis.replace("[fid, kid]", "[kid]"))


def test_a_deviation_is_not_watched(read):
    kid = "trained_on: [a]", "trained_on: [a], metrics: [kid]"
    assert expand(read("stages: {watch: kid}\n", *kid))[0].method.stages.watch == "kid"
    line = r"stages\.watch: 'kid_sd' is no metric that is measured; score\.metrics has kid; or"
    with pytest.raises(UserError, match=line):
        read("stages: {watch: kid_sd}\n", *kid)


PACED = "\npacing: {by: loss}"


def test_no_image_that_is_held_out_trains_the_classifier(read):
    share = ("set: digits}", "set: digits, held_out: 0.1}")
    with pytest.raises(UserError, match=r"data\.b\.held_out: the data sets of score\.trained_on"):
        read("", *share)
    assert read("grid: {data: [a]}", *share).data["b"].held_out == 0.1
    both = "held_out: 0.1, count: 60}", "held_out: 0.1, corrupt: {blur: 0.5}}"
    lines = "count: 60}\n  b: {source: builtin, set: digits}"
    with pytest.raises(UserError, match="and neither blur nor JPEG"):
        read("", lines, f"{both[0]}\n  b: {{source: builtin, set: digits, {both[1]}")


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("random", ""),
        ("middle_out", ""),
        ("ascending", PACED),
    ],
)
def test_images_are_ranked_in_the_papers_orders_alone(read, mode, more):
    rank = "stages: {rank: discriminator_loss}\ngrid: {mode: [%s]}"
    assert read(rank % "ascending, descending").stages.rank == "discriminator_loss"
    both = "grid: {mode: [conventional, descending], stages.rank: [none, discriminator_output]}"
    claims = "\nverdict: {claims: [conventional > descending in end_score]}"
    sweep = read(both + claims)
    assert len(expand(sweep)) == 2 * 3 * 3  # conventional training has no groups to rank
    assert len(family(sweep)) == 2 * 2
    with pytest.raises(UserError, match=r"stages\.rank: is for modes .*, without pacing$"):
        read(rank % mode + more)


PILOT = "pilot: {grace: 5}\n"


@pytest.mark.parametrize(
    "grid",
    [
        "",
        "grid: {mode: [conventional]}",
        "grid: {mode: [conventional, descending], data: [a]}",
        "grid: {mode: [conventional], data: [a], score.count: [20, 40]}",
    ],
)
def test_a_pilot_needs_comparable_conventional_runs(read, grid):
    with pytest.raises(UserError, match="pilot: stops runs by comparing their scores"):
        read(PILOT + grid)
    fine = read(PILOT + "grid: {mode: [conventional], data: [b], training.batch_size: [8, 16]}")
    assert len(expand(fine)) == 6


def test_a_pilots_grace_ends_before_its_runs(read):
    grid = "grid: {mode: [conventional], data: [a], training.stage_epochs: [20, 10]}\n"
    assert read("pilot: {grace: 29}\n" + grid).pilot is not None  # three groups' epochs each
    with pytest.raises(UserError, match=r"pilot\.grace: no run of 30 epochs .* after 30; lower"):
        read("pilot: {grace: 30}\n" + grid)


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
        ("grid: {gan.network: [r3gan]}", "grid: gan.r1: `r3gan` needs the weight gamma of its pen"),
        (
            "grid: {gan.network: [r3gan], gan.width: [40], gan.r1: [1.0]}",
            "grid: gan.width: 40 does not fit the groups of `r3gan`'s convolutions; give a mult",
        ),
        (
            "gan: {conditional: true}",
            "gan.conditional: `dcgan` is made without classes; choose sngan or r3gan",
        ),
        ("grid: {data: [c]}", "grid.data: there is no data set 'c'"),
        ("grid: {seed: {up_to: 5}}", "grid.seed.up_to: input should be greater than or equal to 6"),
        ("grid: {seed: {upto: 9}}", "grid.seed.up_to: missing"),
        ("grid: [{seed: {up_to: 9}}, {}]", "grid.seed: where one grid has `up_to`, each needs"),
        ("rescore: false\ngrid: {seed: {up_to: 9}}", "grid.seed: `up_to` needs `rescore: true`"),
        (
            "resources: {gpus_per_run: 2}",
            "resources.gpus_per_run: input should be less than or equal to 1, not 2",
        ),
        ("verdict: {claims: [a is best]}", "verdict.claims: 'a is best' is not a claim; write two"),
        (
            "verdict: {claims: [random > ascending in score]}",
            "names a mode that the grid does not have; it has descending, ascending, conventional",
        ),
        ("name: ../x", "name: string should match pattern"),
        ("name: features", "name: 'features' is the folder of feature tables"),
        ("groups: {k: 3}\ngroups: {k: 4}", "line 9: key 'groups' twice"),
        ("groups: [", "line 8: expected"),
        ('results: "a\\0b"', "line 8: control character '\\x00' in a text"),
        (f"sample_every: {10**20}", "line 8: an integer of more than 64 bits"),
        ("results: s3://KEY:SECRET@b", "line 8: s3://***@b: an address in a sweep file holds no"),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_reason(read, extra, message):
    with pytest.raises(UserError) as caught:
        read(extra)
    assert "small.yaml: " in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{source: folder, path: shapes}",
        "{source: celeba, path: shapes}",
        "{source: union, sources: {one: {source: folder, path: shapes}}}",
    ],
)
def test_a_data_set_without_labels_is_known_from_the_file(read, source):
    with pytest.raises(UserError, match=r"score\.trained_on: data\.a has no .*`labels: folder`"):
        read(old="{source: builtin, set: apples, count: 60}", new=source)
    labelled = source.replace("path: shapes", "path: shapes, labels: folder")
    if "celeba" not in source:
        read(old="{source: builtin, set: apples, count: 60}", new=labelled)


def test_data_sets_have_names_of_any_language(read):
    for name in ("apple-red", "りんご", "jabłko"):
        assert [*read(old="  b:", new=f"  {name}:").data] == ["a", name]
    for name in ("../a", "a/b", ".a", '"a b"', '""'):
        with pytest.raises(UserError, match="data"):
            read(old="  b:", new=f"  {name}:")


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
def test_a_mistake_inside_a_section_names_its_key(read, old, new, message):
    with pytest.raises(UserError) as caught:
        read("", old, new)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a sweep file is a mapping"),
        ("[]", "a sweep file is a mapping"),
        ("data: {}", "data: dictionary should have at least 1 item"),
        ("image_size: 32", "data: missing"),
        ("data: {a: {source: builtin, set: digits}}\n1: 2", "1: keys should be strings, not 1"),
        ("data: &a {a: *a}", "data.a: unable to extract tag using discriminator 'source', not"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("\x00", "unacceptable character"),
    ],
)
def test_a_file_that_is_not_a_sweep_file_is_refused(read, text, message):
    with pytest.raises(UserError) as caught:
        read(text=text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_merge_keys_are_read_and_can_be_overridden(read):
    sweep = read(
        """
        gan: &gan {width: 8, latent: 16}
        small: {gan: {<<: *gan, width: 4}}
        """,
        scale="small",
    )
    assert (sweep.gan.width, sweep.gan.latent) == (4, 16)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"nowhere\.yaml: No such file"):
        load("nowhere.yaml")


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_sweep_files_of_the_project_are_valid(path):
    sweep = load(path)
    assert sweep.name == path.stem
    assert len({cell.label for cell in expand(sweep)}) == len(expand(sweep))
    json.dumps([cell.as_dict() for cell in expand(sweep)])


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_small_forms_are_valid(path):
    if "\nsmall:" in path.read_text():
        assert load(path, "small").name == f"{path.stem}-small"


def test_the_papers_sweep_file_has_the_papers_settings():
    sweep = load(SWEEPS / "paper.yaml")
    assert len(expand(sweep)) == 18
    assert sweep.image_size == 128
    assert (sweep.training.stage_epochs, sweep.training.evaluate_every) == (3000, 10)
    assert (sweep.features.weights, sweep.features.input_size) == ("imagenet", 224)
    assert (sweep.groups.method, sweep.groups.k) == ("kmeans", 3)


def test_a_conditional_gan_needs_labels_of_its_own_data(read, tmp_path):
    gan = "gan: {network: sngan, conditional: true}\n"
    assert read(gan).gan.conditional
    folder = f"b: {{source: folder, path: {tmp_path}"
    labelled = read(gan, "b: {source: builtin, set: digits", f"{folder}, labels: folder")
    assert labelled.gan.conditional
    with pytest.raises(UserError, match=r"gan\.conditional: data\.b has no labels; if each class"):
        read(gan, "b: {source: builtin, set: digits", folder)
    elsewhere = read(
        gan + "grid: {data: [a]}", "b: {source: builtin, set: digits", folder
    )  # its runs have labels
    assert elsewhere.gan.conditional


def test_wrong_labels_are_for_conditional_runs(read):
    wrong = "b: {source: builtin, set: digits, corrupt: {labels: 0.2}"
    gan = "gan: {network: sngan, conditional: true}\n"
    assert read(gan, "b: {source: builtin, set: digits", wrong).data["b"].corrupt.labels == 0.2
    elsewhere = "grid: {data: [a]}\n"
    assert read(elsewhere, "b: {source: builtin, set: digits", wrong)
    line = r"data\.b\.corrupt\.labels: needs gan\.conditional: true$"
    axis = "gan: {network: sngan}\ngrid: {gan.conditional: [true, false]}\n"
    for extra in ("", axis):
        with pytest.raises(UserError, match=line):
            read(extra, "b: {source: builtin, set: digits", wrong)
