"""Claims on which a sweep gives a verdict, such as `conventional > descending in score`."""

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass

MEASURES = {
    "kept_score": ("keeps a model of {} score than", "higher", "lower"),
    "end_score": ("ends with a {} score than", "higher", "lower"),
    "epochs_to_peak": ("needs {} epochs to its peak than", "more", "fewer"),
    "outlines": ("has {} outlines than", "clearer", "less clear"),
    "colour": ("has {} colours than", "stronger", "weaker"),
    "diversity": ("makes {} images than", "more diverse", "more similar"),
    "feature_count": ("makes images with {} features than", "more", "fewer"),
}
"""A sentence for each measure, with its words for `>` and `<`."""
SCORES = ("kept_score", "end_score")
"""Measures that `score` stands for: fresh scores of the kept model and of the end of training."""
PAPER_CLAIMS = (
    "conventional > descending in score",
    "conventional > ascending in score",
    "descending < conventional in epochs_to_peak",
    "ascending < conventional in epochs_to_peak",
    "descending > conventional in outlines",
    "conventional > ascending in outlines",
    "ascending > conventional in colour",
    "ascending < conventional in diversity",
    "descending > ascending in feature_count",
)
"""The paper's claims; the authors judged outlines, colours and similarity by eye."""


@dataclass(frozen=True)
class Claim:
    """A claim that one mode is above (`sign` 1) or below (-1) another in a measure."""

    first: str
    sign: int
    second: str
    measure: str

    @property
    def text(self) -> str:
        """The claim as in a sweep file."""
        return f"{self.first} {'>' if self.sign > 0 else '<'} {self.second} in {self.measure}"

    @property
    def verb(self) -> str:
        """What the first mode does, such as `ends with a higher score than`."""
        sentence, more, less = MEASURES[self.measure]
        return sentence.format(more if self.sign > 0 else less)


def parse_claim(text: str) -> tuple[Claim, ...]:
    """Return the claim of a text, two for `score`; raise ValueError with the right form."""
    found = re.fullmatch(r"\s*(\S+)\s+([<>])\s+(\S+)\s+in\s+(\w+)\s*", text)
    first, sign, second, measure = found.groups() if found else ("", "", "", "")
    measures = SCORES if measure == "score" else (measure,)
    if first == second or not {*measures} <= MEASURES.keys():
        raise ValueError(
            f"verdict.claims: {text[:60]!r} is not a claim; write two modes, `<` or `>`, and a "
            "measure, such as `conventional > descending in score`; measures: score, "
            f"{', '.join(MEASURES)}"
        )
    return tuple(Claim(first, 1 if sign == ">" else -1, second, name) for name in measures)


def claims_among(texts: Sequence[str] | None, modes: Set[str]) -> tuple[Claim, ...]:
    """Return the claims of texts (None: the paper's) whose modes are among `modes`, each once."""
    found = [claim for text in texts or PAPER_CLAIMS for claim in parse_claim(text)]
    return tuple(dict.fromkeys(c for c in found if {c.first, c.second} <= modes))
