"""Images that are held out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featgan.errors import UserError
from harness.records import data_set
from harness.records.data_set import DataSet, held_out
from harness.storage.store import Store

STORE = Store(".")


def split_of(pixels: list[int], labels: list[str | None], share: float) -> np.ndarray:
    """Return the split of images, in the order of a table, of the given contents."""
    digests = [hashlib.sha256(bytes([n])).hexdigest() for n in pixels]
    table = pd.DataFrame({"sha256": digests, "label": labels}).sort_values(["sha256", "label"])
    data = DataSet(name="a", key="features/a", digest="d", images=len(table), held_out=share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_set, "load_table", lambda *_: table.reset_index(drop=True))
        return pd.Series(held_out(STORE, data), table.index).sort_index().to_numpy()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 255), min_size=40, max_size=60), st.randoms(), st.booleans())
def test_the_split_depends_on_pixels_alone(pixels: list[int], random, labelled: bool) -> None:
    """In a part of the data set, with other labels and in another order it is the same."""
    labels = [("x" if n % 3 else "y") if labelled else None for n in pixels]
    pixels = [*range(20), *pixels]  # enough to hold out two
    found = split_of(pixels, ["x"] * 20 + labels, 0.5)
    held = {n for n, out in zip(pixels, found, strict=True) if out}
    kept = {n for n, out in zip(pixels, found, strict=True) if not out}
    assert not held & kept  # equal images are on one side
    part = [*range(20), *random.sample(pixels[20:], 20)]
    assert split_of(part, [None] * 40, 0.5).tolist() == [n in held for n in part]


def test_a_larger_share_holds_out_the_same_images_and_more() -> None:
    pixels, labels = [*range(256)], ["x"] * 256
    tenth, third = (split_of(pixels, labels, share) for share in (0.1, 0.3))
    assert (tenth.sum(), third.sum()) == (25, 77)  # 25.6 and 76.8 in expectation
    assert third[tenth].all()
    assert not split_of(pixels, labels, 0.0).any()


def test_too_few_images_to_hold_out_are_refused() -> None:
    with pytest.raises(UserError, match=r"^data\.a\.held_out: [01] of 4 images, and"):
        split_of([*range(4)], [None] * 4, 0.05)


def test_the_share_is_no_part_of_the_stored_record(tmp_path: Path) -> None:
    data = DataSet(name="a", key="features/a", digest="d", images=3)
    assert data.model_copy(update={"held_out": 0.1}).to_json() == data.to_json()
