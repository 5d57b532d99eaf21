"""Corrupted data sets: which images, what becomes of them, and that the data set is another."""

import io

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from featgan.images.decode import decode
from harness.sources import UnionSource
from harness.sources.builtin import BuiltinSource
from harness.sources.corrupt import Corruption
from harness.sources.listing import Listing


def source(**corrupt):
    return BuiltinSource(source="builtin", set="digits", count=200, corrupt=Corruption(**corrupt))


def listed(source):
    clean = Listing.of(source.find(32))
    return clean, clean.corrupted(source.corrupt)


def pixels(source, listing):
    read = source.corrupt.reader(source.reader())
    return [np.asarray(decode(read(location))) for location in listing.images["location"]]


def test_a_share_of_the_images_become_copies_of_others():
    of = source(duplicate=0.3)
    clean, corrupted = listed(of)
    before, after = clean.images["location"], corrupted.images["location"].map(lambda at: at[1:])
    changed = before.to_numpy() != after.to_numpy()
    assert changed.sum() == 60
    assert {*after[changed]} <= {*before[~changed]}  # no copies of copies
    assert corrupted.images["image_id"].tolist() == clean.images["image_id"].tolist()
    labels = dict(zip(before, clean.images["label"], strict=True))
    assert after.map(labels).tolist() == corrupted.images["label"].tolist()
    original = pixels(of, clean.corrupted(Corruption(seed=1)))
    assert (
        sum(not np.array_equal(a, b) for a, b in zip(original, pixels(of, corrupted), strict=True))
        == 60
    )


def test_a_share_is_blurred_and_another_compressed():
    of = source(blur=0.5, blur_radius=0.1, jpeg=0.25, jpeg_quality=5)
    clean, corrupted = listed(of)
    plain = pixels(of, clean.corrupted(Corruption()))
    kinds = [bytes(location).partition(b":")[0] for location in corrupted.images["location"]]
    assert sum(b"blur" in kind for kind in kinds) == 100
    assert sum(b"jpeg" in kind for kind in kinds) == 50
    assert {*kinds} == {b"", b"blur", b"jpeg", b"blurjpeg"}
    for kind, a, b in zip(kinds, plain, pixels(of, corrupted), strict=True):
        assert np.array_equal(a, b) == (kind == b"")
        if kind == b"blur":
            assert b.std() < a.std()
    read = of.corrupt.reader(of.reader())
    locations = corrupted.images["location"]
    forms = [Image.open(io.BytesIO(read(location))).format for location in locations]
    assert [form == "JPEG" for form in forms] == [b"jpeg" in kind for kind in kinds]


def test_every_corruption_is_another_data_set():
    ways = [
        {},
        {"duplicate": 0.3},
        {"duplicate": 0.3, "seed": 1},
        {"blur": 0.3},
        {"blur": 0.3, "blur_radius": 0.1},
        {"jpeg": 0.3},
        {"jpeg": 0.3, "jpeg_quality": 20},
    ]
    digests = [listed(source(**how))[1].digest() for how in ways]
    assert len({*digests, listed(source())[0].digest()}) == len(ways) + 1
    assert digests == [listed(source(**how))[1].digest() for how in ways]


def test_contradictions_are_refused():
    settings = {"source": "builtin", "set": "digits", "corrupt": {"duplicate": 0.1}}
    with pytest.raises(ValidationError, match=r"would undo corrupt\.duplicate"):
        BuiltinSource.model_validate(settings | {"remove_duplicates": True})
    with pytest.raises(ValidationError, match="set corrupt next to `sources`, not in a"):
        UnionSource.model_validate({"source": "union", "sources": {"a": settings}})
    with pytest.raises(ValidationError, match="duplicate"):
        Corruption(duplicate=1.0)
