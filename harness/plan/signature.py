"""The signature of a run: a hash of everything that can change its result, and nothing else.

Settings that a run ignores are hashed with their default values, so changing them repeats no
run.
"""

from dataclasses import fields
from typing import Any

from featgan.digests import short_hash
from featgan.features.settings import ValueSettings
from featgan.gans.settings import recipe
from featgan.user_code import source_digest
from harness.plan.grid import Cell, ignored_settings

VALUE_SETTINGS = {*ValueSettings.model_fields}
"""Settings of `groups` that choose the image values; `values_digest` stands for them."""


def signature(
    cell: Cell,
    data_digest: str,
    classifier_digest: str | None,
    values_digest: str | None = None,
    selected_digest: str | None = None,
) -> str:
    """Return the signature of a cell whose data are known.

    `data_digest` stands for images and feature counts (for a conditional GAN, labels too),
    `values_digest` for the values that images are grouped by instead (None: feature counts),
    `selected_digest` for the images that are trained on (None: all), so neither the source nor the
    way of counting is hashed again. Of a user-defined function the source is hashed.
    """
    pacing = cell.method.pacing
    unordered = pacing.grow == "none" or pacing.order == "random"
    if cell.mode == "conventional" and pacing.by == "none" and unordered:
        values_digest = None
    functions = [source_digest(name) for name in cell.functions]
    digests = functions, data_digest, values_digest, classifier_digest, selected_digest
    return short_hash(cell.mode, cell.seed, _effective_settings(cell), *digests)


def _effective_settings(cell: Cell) -> dict[str, Any]:
    """The settings that a run reads, and default values in place of the others.

    A value that equals the published one of the network becomes null, which means the same.
    """
    method = cell.method
    weights = {"weights", "features_weights", "trained_on"}
    hashed: Any = {"features": True, "select": True, "groups": VALUE_SETTINGS, "score": weights}
    settings = method.model_dump(exclude=hashed)  # by their digests
    for key in ignored_settings(cell.mode, method):
        section, name = key.split(".")
        if section in settings:
            model = type(getattr(method, section))
            settings[section][name] = model.model_fields[name].default
    if settings["stages"]["rank"] == "none":  # hashed only where it is used
        del settings["stages"]["rank"]
    published = recipe(method.gan)
    for field in fields(published.optimizer):
        if settings["training"][field.name] == getattr(published.optimizer, field.name):
            settings["training"][field.name] = None
    if settings["gan"]["loss"] == published.loss:
        settings["gan"]["loss"] = None
    if settings["gan"]["ema"] == 0 and not published.burn_in:
        settings["gan"]["ema"] = None
    return settings
