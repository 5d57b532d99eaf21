import pytest

from harness.plan.claims import PAPER_CLAIMS, Claim, claims_among, parse_claim

THE_PAPERS = {"descending", "ascending", "conventional"}


def test_a_claim_is_read_and_written():
    (claim,) = parse_claim("  descending  <  conventional in epochs_to_peak ")
    assert claim == Claim("descending", -1, "conventional", "epochs_to_peak")
    assert claim.text == "descending < conventional in epochs_to_peak"
    words = "descending training needs fewer epochs to its peak than conventional"
    assert claim.statement == words
    assert parse_claim(claim.text) == (claim,)


def test_a_score_is_that_of_the_kept_model_and_of_the_end():
    kept, end = parse_claim("own.modes:mine > random in score")
    assert (kept.measure, end.measure) == ("kept_score", "end_score")
    words = "own.modes:mine training ends with a higher score than random"
    assert (end.first, end.statement) == ("own.modes:mine", words)


@pytest.mark.parametrize(
    "text",
    [
        "conventional is better",
        "conventional >= random in score",
        "conventional > random in beauty",
        "conventional > random",
        "random > random in score",
        "> random in score",
        "random > in score",
        "a, groups.k=5 > a, groups.k=4 > a, groups.k=3 in score",
        "conventional > random" + " " * 200_000 + "in beauty",
        "",
    ],
)
def test_what_is_no_claim_is_refused_with_the_right_form(text):
    with pytest.raises(ValueError, match="such as `conventional > descending in score`") as caught:
        parse_claim(text)
    assert "measures: score, kept_score, end_score, epochs_to_peak, outlines" in str(caught.value)


def test_the_papers_nine_claims_are_eleven_tests():
    assert len(PAPER_CLAIMS) == 9
    assert len(claims_among(None, THE_PAPERS)) == 11


def test_claims_are_those_on_modes_of_the_grid_each_once():
    two = {"descending", "conventional"}
    assert [claim.measure for claim in claims_among(None, two)] == [
        "kept_score", "end_score", "epochs_to_peak", "outlines",
    ]  # fmt: skip
    text = "descending > random in kept_score"
    again = "descending > random in score"
    assert len(claims_among([text, again], {"descending", "random"})) == 2
    assert claims_among([text], two) == ()
