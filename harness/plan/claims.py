"""Claims on which a sweep gives a verdict, such as `conventional > descending in score`."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from featgan.settings import as_shown
from harness.plan.yaml_file import value_of

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
IGNORED = {
    "conventional": frozenset(
        ("groups.method", "groups.tolerance", "stages.change", "stages.rank", "stages.rewind")
    )
}
"""Keys that a mode does not read: one stage of all images has no groups, and ends at its peak."""


@dataclass(frozen=True)
class Claim:
    """A claim that one pattern is above (`sign` 1) or below (-1) another in a measure.

    A pattern is a mode and the settings named with it, such as `descending, groups.k=4`.
    """

    first: str
    sign: int
    second: str
    measure: str

    @property
    def text(self) -> str:
        """The claim as in a sweep file."""
        return f"{self.first} {'>' if self.sign > 0 else '<'} {self.second} in {self.measure}"

    @property
    def statement(self) -> str:
        """The claim as a sentence without its end."""
        sentence, more, less = MEASURES[self.measure]
        verb = sentence.format(more if self.sign > 0 else less)
        first, second = (text.partition(", ") for text in (self.first, self.second))
        ends = [f" with {axes}" if axes else "" for *_, axes in (first, second)]
        return f"{first[0]} training{ends[0]} {verb} {second[0]}{ends[1]}"

    @property
    def modes(self) -> set[str]:
        """The modes of both patterns."""
        return {_mode_and_axes(self.first)[0], _mode_and_axes(self.second)[0]}

    def tests(
        self, data: str, patterns: Mapping[str, tuple[str, Mapping[str, Any]]]
    ) -> Iterator[tuple[str, str, str]]:
        """Yield the name of each test of the claim, and the keys of the two patterns it compares.

        `patterns` are modes and further axes of the runs of a data set. The two differ in what the
        claim names alone: a setting named for one of them is an axis that the other does not have.
        One may have axes that the other's mode ignores. Both are scored alike.
        """
        sides = [_mode_and_axes(self.first), _mode_and_axes(self.second)]
        named = {key for _, axes in sides for key in axes}
        apart = named.union(*(IGNORED.get(mode, ()) for mode, _ in sides))
        apart = {key for key in apart if not key.startswith("score.")}
        found: list[dict[str, list[str]]] = [{}, {}]
        for key, (mode, axes) in patterns.items():
            shared = json.dumps({name: axes[name] for name in sorted(axes.keys() - apart)})
            settings = {name: as_shown(axes[name]) for name in named & axes.keys()}
            for (of_mode, of_axes), keys in zip(sides, found, strict=True):
                if mode == of_mode and _agree(of_axes, settings):
                    keys.setdefault(shared, []).append(key)
        for shared, firsts in found[0].items():
            for first, second in itertools.product(firsts, found[1].get(shared, [])):
                both = {**patterns[first][1], **patterns[second][1]}
                others = (f"{k}={as_shown(v)}" for k, v in both.items() if k not in named)
                if first != second:
                    yield f"{self.text} on {', '.join([data, *others])}", first, second


def parse_claim(text: str) -> tuple[Claim, ...]:
    """Return the claim of a text, two for `score`; raise ValueError with the right form."""
    patterns, _, measure = " ".join(text.split()).rpartition(" in ")
    parts = re.split(" ([<>]) ", patterns)
    first, sign, second = parts if len(parts) == 3 else ("", "", "")
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
    return tuple(dict.fromkeys(claim for claim in found if claim.modes <= modes))


def _mode_and_axes(pattern: str) -> tuple[str, dict[str, tuple[str, Any]]]:
    """Return the mode and the settings of `mode, key=value, ...`, the form that tables have.

    Of each setting the text, as a table has it, and the value that it has in a sweep file.
    """
    mode, *axes = re.split(r", (?=[\w.]+=)", pattern)
    texts = {key: text for key, _, text in (axis.partition("=") for axis in axes)}
    if len(texts) < len(axes):
        raise ValueError(f"verdict.claims: {pattern[:60]!r} names a setting twice")
    return mode, {key: (text, as_shown(value_of(text))) for key, text in texts.items()}


def _agree(named: Mapping[str, tuple[str, Any]], settings: Mapping[str, Any]) -> bool:
    """Return whether the named settings are those of a pattern, as shown."""
    return named.keys() == settings.keys() and all(
        text == str(settings[key]) or value == settings[key] for key, (text, value) in named.items()
    )
