"""A table's forms: what is escaped, rounded, aligned, and left as it is."""

import csv
import io

import pandas as pd

from harness.report.table import Table, show, signed

LABEL = "a|b_c <i>&</i> 50%"
TABLE = Table(
    "t",
    "Title",
    pd.DataFrame({"what": [LABEL, "none"], "score": [3.14159, None], "images": [1834, 7]}),
    notes=["A note."],
    digits={"score": 2},
)


def test_values_are_shown_as_people_read_them():
    shown = [show(1834, 0), show(3.146, 2), show(-0.5, 1), show(None, 2), show(float("nan"), 2)]
    assert shown == ["1,834", "3.15", "\u22120.5", "\u2013", "\u2013"]


def test_a_positive_number_is_never_shown_as_zero():
    assert [show(p, 4) for p in (0.0, 2**-15, 0.00005, -(2**-15))] == [
        "0.0000", "< 0.0001", "0.0001", "0.0000",
    ]  # fmt: skip
    table = Table("t", "T", pd.DataFrame({"p": [2**-15]}), digits={"p": 4})
    assert "| &lt; 0.0001 |" in table.markdown()
    assert r"\textless{} 0.0001 \\" in table.latex()
    assert table.text().splitlines()[-1] == "< 0.0001"
    assert table.csv() == "p\n3.0517578125e-05\n"


def test_differences_have_a_sign_and_three_significant_digits():
    values = [0.66213, -33.333, 1204.0, -0.00012345, 0.0, 9.999]
    shown = ["+0.662", "\u221233.3", "+1,204", "\u22120.000123", "0", "+10.00"]
    assert [show(value, None) for value in values] == shown


def test_markdown_escapes_labels_and_rounds():
    assert TABLE.markdown() == (
        "### Title\n\n"
        "| what | score | images |\n"
        "| --- | ---: | ---: |\n"
        "| a\\|b\\_c &lt;i&gt;&amp;&lt;/i&gt; 50% | 3.14 | 1,834 |\n"
        "| none | \u2013 | 7 |\n"
        "\nA note.\n"
    )


def test_csv_keeps_every_digit_and_leaves_gaps_empty():
    rows = list(csv.reader(io.StringIO(TABLE.csv())))
    assert rows == [["what", "score", "images"], [LABEL, "3.14159", "1834"], ["none", "", "7"]]


def test_latex_escapes_what_would_not_compile():
    text = TABLE.latex()
    assert r"a|b\_c \textless{}i\textgreater{}\&\textless{}/i\textgreater{} 50\%" in text
    assert r"\begin{tabular}{lrr}" in text
    starred = pd.DataFrame({"run": ["run ★"], "n": [1]})
    assert r"run $\star$ & " in Table("t", "T", starred).latex()
    assert "none & \u2013 & 7 \\\\" in text


def test_text_aligns_numbers_to_the_right():
    lines = Table("t", "T", pd.DataFrame({"n": [5, 1234]})).text().splitlines()
    assert lines == ["T", "    n", "\u2500" * 5, "    5", "1,234"]


def test_nothing_is_shown_as_minus_zero_or_as_a_rest_of_rounding():
    assert [signed(-0.0), signed(-5.6e-17), signed(0.1 + 0.2 - 0.3)] == ["0", "0", "0"]


def test_a_row_of_latex_does_not_begin_with_an_argument():
    table = Table("k", "t", pd.DataFrame({"a": ['["color"]']}))
    assert '{[}"color"]' in table.latex()
