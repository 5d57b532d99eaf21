"""Corrupted data sets: which images, what becomes of them, and that the data set is another."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from featgan.errors import UserError
from featgan.images.decode import decode
from harness.sources import SourceSettings, UnionSource
from harness.sources.base import Found, Row
from harness.sources.builtin import BuiltinSource
from harness.sources.corrupt import Corruption
from harness.sources.listing import Listing

SETTINGS = TypeAdapter(SourceSettings)


def source(**corrupt):
    return BuiltinSource(source="builtin", set="digits", count=200, corrupt=Corruption(**corrupt))


def listed(source):
    clean = Listing.of(source.find(32))
    return clean, clean.corrupted(source.corrupt)


def pixels(source, listing):
    read = source.corrupt.reader(source.read)
    return [np.asarray(decode(read(location))) for location in listing.images["location"]]


def test_a_share_of_the_images_become_copies_of_others():
    of = source(duplicate=0.3)
    clean, corrupted = listed(of)
    places = corrupted.images["location"].map(lambda at: at[1:])
    assert places.is_monotonic_increasing  # the order in which files are read best
    images = corrupted.images.set_index("image_id").loc[clean.images["image_id"]]
    corrupted = replace(corrupted, images=images.reset_index())
    before, after = clean.images["location"], corrupted.images["location"].map(lambda at: at[1:])
    changed = before.to_numpy() != after.to_numpy()
    assert changed.sum() == 60
    assert {*after[changed]} <= {*before[~changed]}  # no copies of copies
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
    read = of.corrupt.reader(of.read)
    locations = corrupted.images["location"]
    forms = [Image.open(io.BytesIO(read(location))).format for location in locations]
    assert [form == "JPEG" for form in forms] == [b"jpeg" in kind for kind in kinds]


def test_a_share_of_the_labels_are_other_ones_beside_the_clean():
    of = source(labels=0.2)
    clean, corrupted = listed(of)
    wrong = corrupted.images["noisy_label"] != corrupted.images["label"]
    assert wrong.sum() == 40
    assert corrupted.images["label"].tolist() == clean.images["label"].tolist()
    shifts = (corrupted.images["noisy_label"].astype(int) - clean.images["label"].astype(int)) % 10
    assert {*shifts[wrong]} == {*range(1, 10)}  # any of the other nine
    assert "noisy_label" not in listed(source(blur=0.2))[1].images
    everything = listed(source(labels=1.0))[1].images
    assert (everything["noisy_label"] != everything["label"]).all()


def rows(labels, origins=None):
    """Return a listing of images with these labels."""
    images = [
        Row(f"{n}", f"{n}".encode(), label, "", origin=origins[n] if origins else None)
        for n, label in enumerate(labels)
    ]
    return Listing.of(Found(images))


def test_wrong_labels_of_a_small_listing():
    listing = rows(["a", "b", None, "a"])
    noisy = listing.corrupted(Corruption(labels=1.0)).images["noisy_label"]
    assert noisy.fillna("").tolist() == ["b", "a", "", "b"]  # of two labels the other
    for few in (["a", "a"], [None, None]):
        with pytest.raises(UserError, match=r"^corrupt\.labels: there are fewer than two labels$"):
            rows(few).corrupted(Corruption(labels=0.5))


def test_a_share_of_the_images_is_replaced_by_another_sources():
    listing = rows("xxxxyyyyy", origins="aaaabbbbb")

    def mixed(share, **more):
        images = listing.corrupted(Corruption(mixed={"b": share}, **more)).images
        return images["origin"].tolist(), images["image_id"].tolist()

    assert mixed(0.5)[0] == ["a", "a", "b", "b"]
    assert mixed(1.0)[0] == ["b"] * 4
    assert mixed(0.1)[0] == ["a"] * 4  # round(0.4) is 0: the others have no place of their own
    assert mixed(0.5) == mixed(0.5)
    assert len({str(mixed(0.5, seed=seed)) for seed in range(9)}) > 3
    with pytest.raises(UserError, match=r"^corrupt\.mixed: a has 4 images, not 5$"):
        listing.corrupted(Corruption(mixed={"a": 1.0}))
    copied = listing.corrupted(Corruption(mixed={"b": 0.5}, duplicate=0.5)).images
    assert len(copied) == 4
    assert copied["location"].nunique() == 2


def test_every_corruption_is_another_data_set():
    ways = [
        {},
        {"duplicate": 0.3},
        {"duplicate": 0.3, "seed": 1},
        {"blur": 0.3},
        {"blur": 0.3, "blur_radius": 0.1},
        {"jpeg": 0.3},
        {"jpeg": 0.3, "jpeg_quality": 20},
        {"labels": 0.3},
        {"labels": 0.3, "seed": 1},
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
    with pytest.raises(ValidationError, match=r"held_out: copies by corrupt\.duplicate could be"):
        BuiltinSource.model_validate(settings | {"held_out": 0.1})
    mixed = {"source": "builtin", "set": "digits"}
    union = {"source": "union", "sources": {"a": mixed}}
    for of, name in ((mixed, "a"), (union, "b"), (union, "a")):
        with pytest.raises(ValidationError, match=r"corrupt\.mixed: names some `sources`"):
            SETTINGS.validate_python(of | {"corrupt": {"mixed": {name: 0.3}}})
    with pytest.raises(ValidationError, match="at most 1 item"):
        Corruption(mixed={"a": 0.1, "b": 0.1})
    with pytest.raises(ValidationError, match="duplicate"):
        Corruption(duplicate=1.0)
