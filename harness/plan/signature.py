"""What tells runs apart: a hash of all that can change a run's result, and of nothing else.

Settings that a run never looks at stand at their defaults in it, so changing them repeats no
run; an axis of such a setting does not make two runs of one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from featgan.features.settings import GROUPINGS
from featgan.gans.settings import recipe
from featgan.staging.settings import CRITERION_NAMES
from featgan.user_code import digest

if TYPE_CHECKING:
    from harness.plan.settings import Method

DIGITS = 10
VALUES = {"by", "seed", "table", "column"}
"""Settings of `groups` that only say which values images are grouped by: those have a digest."""
CRITERION_READS = {"smoothed_peak": "window", "plateau": "window", "patience": "patience"}


def short_hash(text: str) -> str:
    """The first digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def unread(mode: str, method: Method) -> set[str]:
    """Dotted keys of settings that a run of this mode and method never looks at.

    A function of the user's own may look at every setting that it is given.
    """
    groups, stages = method.groups, method.stages
    keys = set()
    if mode == "conventional":  # all images in one stage, whose peak is always returned to
        keys |= {"groups.method", "groups.tolerance", "stages.change", "stages.rewind"}
    if groups.method in GROUPINGS and groups.method != "balanced":
        keys.add("groups.tolerance")
    if stages.criterion in CRITERION_NAMES:
        read = CRITERION_READS.get(stages.criterion)
        keys |= {f"stages.{key}" for key in ("window", "patience") if key != read}
    if method.pacing.by == "none":
        keys |= {"pacing.first", "pacing.decay"}
    return keys


def signature(
    mode: str,
    seed: int,
    method: Method,
    named: list[str],
    data_digest: str,
    classifier_digest: str | None,
    values_digest: str | None,
) -> str:
    """The signature of a run.

    `data_digest` stands for images and feature counts, `values_digest` for the values they
    are grouped by instead, so neither the source nor the way of counting is hashed again.
    """
    if mode == "conventional" and method.pacing.by == "none":
        values_digest = None
    own = [digest(name) for name in named]
    content = [mode, seed, _read(mode, method), own, data_digest, values_digest, classifier_digest]
    return short_hash(json.dumps(content, sort_keys=True))


def _read(mode: str, method: Method) -> dict[str, Any]:
    """The settings that a run looks at, and defaults in place of the others.

    What is published for the network is no other run when a file spells it out.
    """
    settings = method.model_dump(exclude={"features": True, "groups": VALUES, "score": {"weights"}})
    for key in unread(mode, method):
        section, name = key.split(".")
        model = type(getattr(method, section))
        settings[section][name] = model.model_fields[name].default
    published = recipe(method.gan)
    for field in fields(published.optimizer):
        if settings["training"][field.name] == getattr(published.optimizer, field.name):
            settings["training"][field.name] = None
    if settings["gan"]["loss"] == published.loss:
        settings["gan"]["loss"] = None
    return settings
