import pytest

from featgan.errors import UserError
from harness.plan.grid import expand, family
from harness.plan.signature import signature


def test_defaults_are_the_papers_grid(read):
    sweep = read()
    cells = expand(sweep)
    assert sweep.name == "small"
    assert len(cells) == 2 * 3 * 3
    assert [cell.label for cell in cells[:4]] == [
        "a-descending-seed0",
        "a-descending-seed1",
        "a-descending-seed2",
        "a-ascending-seed0",
    ]


def test_any_dotted_key_is_an_axis(read):
    cells = expand(
        read(
            """
        grid: {mode: [ascending], seed: [7], groups.k: [2, 4], training.learning_rate: [1e-4]}
        """
        )
    )
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


def test_several_grids_are_joined_and_each_cell_is_kept_once(read):
    cells = expand(
        read(
            """
        grid:
        - {data: [b], mode: [conventional], seed: [0, 1]}
        - {mode: [descending], seed: [0], groups.k: [2, 3]}
        - {data: [b], mode: [conventional, random], seed: [1]}
        """
        )
    )
    assert [cell.label for cell in cells] == [
        "a-descending-seed0-k2",
        "a-descending-seed0-k3",
        "b-conventional-seed0",
        "b-conventional-seed1",
        "b-descending-seed0-k2",
        "b-descending-seed0-k3",
        "b-random-seed1",
    ]


def test_evaluations_are_checked_for_each_cell(read):
    grid = "grid: {training.stage_epochs: [9, 12]}"
    cells = expand(read(grid, "evaluate_every: 5", "evaluate_every: 3"))
    assert {cell.method.training.stage_epochs for cell in cells} == {9, 12}


def test_seeds_up_to_a_limit_are_the_first_ones(read):
    sweep = read("grid: {mode: [ascending, random], data: [a], seed: {up_to: 7}}")
    assert sweep.up_to == 7
    assert [cell.seed for cell in expand(sweep)] == [*range(7)] * 2
    assert read().up_to is None


def test_tests_are_claims_by_data_sets_and_axes_with_both_modes(read):
    assert len(family(read())) == 2 * 11
    assert len(family(read("grid: {mode: [descending, conventional], data: [b]}"))) == 4
    claim = "verdict: {claims: [descending > random in diversity]}\n"
    axes = "grid: {mode: [descending, random], data: [a], groups.k: [2, 3]}"
    name = "descending > random in diversity on a, groups.k="
    assert family(read(claim + axes)) == [f"{name}2", f"{name}3"]


def test_conventional_training_is_compared_whatever_it_ignores(read):
    claim = "verdict: {claims: [conventional > descending in end_score]}\n"
    axes = "grid: {mode: [conventional, descending], data: [a], groups.method: [kmeans, quantile]}"
    name = "conventional > descending in end_score on a, groups.method="
    assert family(read(claim + axes)) == [f"{name}kmeans", f"{name}quantile"]
    replaced = "[{mode: [conventional]}, {mode: [descending], stages.change: [replace]}]"
    assert len(family(read(claim + f"grid: {replaced}"))) == 2


def test_a_claim_may_name_values_of_axes_and_runs_of_two_grids(read):
    claim = "verdict: {claims: ['%s in end_score']}\n"
    method = "groups.method=quantile"
    of_method = claim % f"descending, {method} > descending, groups.method=kmeans"
    grid = "mode: [descending], groups.method: [kmeans, quantile], data: [a]"
    of_k = f"grid: {{{grid}, groups.k: [2, 3]}}"
    names = [f"descending, {method} > descending, groups.method=kmeans in end_score on a"]
    assert family(read(of_method + f"grid: {{{grid}}}")) == names
    assert family(read(of_method + of_k)) == [f"{names[0]}, groups.k={k}" for k in (2, 3)]
    for first in ("conventional", "random"):  # one ignores the method, one is of another grid
        of_mode = claim % f"{first} > descending, {method}"
        both = of_mode + f"grid: [{{mode: [{first}], data: [a]}}, {{{grid}}}]"
        assert family(read(both)) == [f"{first} > descending, {method} in end_score on a"]
    rate = claim % "descending, training.learning_rate=0.0001 > descending"
    rates = "grid: [{mode: [descending]}, {mode: [descending], training.learning_rate: [1e-4]}]"
    assert len(family(read(rate + rates))) == 2
    for epoch_steps in ("null", "None"):  # as in a sweep file, as in a table
        steps = claim % f"descending, training.epoch_steps={epoch_steps} > random"
        both = "grid: [{mode: [random]}, {mode: [descending], training.epoch_steps: [null, 9]}]"
        assert len(family(read(steps + both))) == 2
    lists = claim % "descending, gan.augment=[color] > descending, gan.augment=[]"
    assert len(family(read(lists + "grid: {mode: [descending], gan.augment: [[], [color]]}"))) == 2


AXES = "grid: {mode: [descending], groups.k: [2, 3], score.count: [20, 40], data: [a]}"


@pytest.mark.parametrize(
    "first",
    [
        "descending, groups.k=4",
        "descending, groups.kk=2",
        "descending, groups.k=[2",
        "descending, groups.k=[2020-01-01]",
        "descending, groups.k=3.0",  # the very same
        "descending, groups.k=2, score.count=20",  # of another protocol
    ],
)
def test_a_claim_on_a_value_that_no_run_has_is_refused(read, first):
    claim = f"verdict: {{claims: ['{first} > descending, groups.k=3 in end_score']}}\n"
    with pytest.raises(UserError, match=r"in end_score: no two runs of a seed differ in this"):
        read(claim + AXES)


def test_a_claim_that_names_a_setting_twice_is_refused(read):
    claim = "verdict: {claims: ['descending, groups.k=7, groups.k=2 > descending in outlines']}\n"
    with pytest.raises(UserError, match=r"'descending, groups\.k=7, groups\.k=2' names a setting"):
        read(claim + AXES)


def test_a_question_is_asked_once_in_whatever_words(read):
    texts = [
        "descending, groups.k=2, gan.width=16 > descending, gan.width=16, groups.k=3 in outlines",
        "descending, gan.width=16, groups.k=3. < descending, groups.k=2, gan.width=16 in outlines",
    ]
    grid = "grid: {mode: [descending], groups.k: [2, 3], gan.width: [16], data: [a]}"
    asked = [read(f"verdict: {{claims: ['{text}']}}\n{grid}") for text in texts]
    assert [family(sweep) for sweep in asked] == [[f"{text} on a"] for text in texts]
    with pytest.raises(UserError, match="take it out if another claim asks the same"):
        read(f"verdict: {{claims: {texts}}}\n{grid}")


def test_axes_in_another_order_are_the_same_pattern(read):
    claim = "verdict: {claims: [ascending > descending in outlines]}\n"
    one = "mode: [ascending, descending], data: [a]"
    orders = (
        "groups.k: [2], gan.width: [16], seed: [0]",
        "gan.width: [16], groups.k: [2], seed: [1]",
    )
    grids = ", ".join(f"{{{one}, {axes}}}" for axes in orders)
    name = "ascending > descending in outlines on a, groups.k=2, gan.width=16"
    assert family(read(f"{claim}grid: [{grids}]")) == [name]


def test_runs_without_a_seed_in_common_answer_no_claim(read):
    claim = "verdict: {claims: [descending > random in diversity]}\n"
    grid = "grid: [{mode: [descending], seed: [0, 1]}, {mode: [random], seed: [%d, 3]}]"
    assert len(family(read(claim + grid % 1))) == 2
    with pytest.raises(UserError, match="no two runs of a seed differ in this alone"):
        read(claim + grid % 2)


def test_a_claim_that_no_two_runs_can_answer_is_refused(read):
    claim = "verdict: {claims: [descending > random in diversity]}\n"
    apart = "grid: [{mode: [descending], groups.k: [2]}, {mode: [random], groups.k: [3]}]"
    with pytest.raises(UserError, match=r"descending > random in diversity: no two runs of a"):
        read(claim + apart)


def test_a_user_defined_mode_gives_a_safe_label(read):
    cell = expand(read("grid: {mode: ['os:getcwd'], seed: [0], data: [a]}"))[0]
    assert cell.label == "a-os_getcwd-seed0"


def test_an_axis_that_a_run_ignores_does_not_repeat_it(read):
    cells = expand(
        read(
            """
        grid:
          mode: [descending, conventional]
          data: [a]
          seed: [0]
          groups.method: [kmeans, quantile]
          stages.criterion: [peak, patience]
          stages.patience: [2, 3]
        """
        )
    )
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
    assert len({signature(cell, "d", "c") for cell in cells}) == 9
