from itertools import chain

import numpy as np
import pytest
import torch

from featgan.batches import Batches, regrouped, shuffled_if_random
from featgan.settings import TrainingSettings
from featgan.staging.stages import Stage


class Numbered:
    """Images whose every pixel is the image's number."""

    size = 2

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def rows(self, rows):
        return np.broadcast_to(
            rows.astype(np.uint8)[:, None, None, None], (len(rows), 3, 2, 2)
        ).copy()


def batches(count=10, batch_size=4, epoch_steps=None, flip=False, seed=0, images=None):
    return Batches(
        images or Numbered(count),
        np.arange(count) % 2 + 1,
        TrainingSettings(batch_size=batch_size, epoch_steps=epoch_steps, horizontal_flip=flip),
        seed=seed,
        device=torch.device("cpu"),
    )


def numbers(epoch):
    return [((batch[:, 0, 0, 0] + 1) * 127.5).round().int().tolist() for batch, _ in epoch]


ALL, EVEN = Stage(1, (1, 2), 5), Stage(1, (1,), 5)


def test_a_pass_has_every_image_and_fills_its_last_batch():
    epoch = numbers(batches().epoch(ALL, 0))
    assert [len(batch) for batch in epoch] == [4, 4, 4]
    order = [*chain.from_iterable(epoch)]
    assert sorted(order[:10]) == list(range(10))
    assert order[10:] == order[:2]


def test_only_images_of_the_stage_are_met():
    assert sorted({*chain.from_iterable(numbers(batches().epoch(EVEN, 0)))}) == [0, 2, 4, 6, 8]
    assert len(batches().rows(EVEN)) == 5


def test_fewer_images_than_a_batch_are_repeated():
    epoch = numbers(batches(count=3, batch_size=8).epoch(ALL, 0))
    assert len(epoch) == 1
    assert epoch[0][:3] == epoch[0][3:6]
    assert epoch[0][6:] == epoch[0][:2]


def test_an_epoch_of_fixed_steps():
    assert len(numbers(batches(epoch_steps=7).epoch(ALL, 0))) == 7


def test_the_order_is_a_function_of_seed_stage_and_epoch():
    reference = numbers(batches().epoch(ALL, 3))
    assert numbers(batches().epoch(ALL, 3)) == reference
    assert numbers(batches().epoch(ALL, 4)) != reference
    assert numbers(batches(seed=1).epoch(ALL, 3)) != reference
    assert numbers(batches().epoch(Stage(2, (1, 2), 5), 3)) != reference


def test_values_go_from_minus_one_to_one():
    class BlackAndWhite(Numbered):
        def rows(self, rows):
            return (
                np.where(rows[:, None, None, None] % 2, 255, 0)
                .repeat(3, 1)
                .repeat(2, 2)
                .repeat(2, 3)
                .astype(np.uint8)
            )

    batch, _ = next(batches(images=BlackAndWhite(10)).epoch(ALL, 0))
    assert set(batch.unique().tolist()) == {-1.0, 1.0}
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_memory_mapped_images_give_the_same_batches(monkeypatch):
    resident = [images.clone() for images, _ in batches().epoch(ALL, 1)]
    monkeypatch.setattr("featgan.batches.RESIDENT_BYTES", 0)
    mapped = [images for images, _ in batches().epoch(ALL, 1)]
    assert all(map(torch.equal, mapped, resident))


def test_half_the_images_are_mirrored():
    class LeftWhite(Numbered):
        def rows(self, rows):
            image = np.zeros((len(rows), 3, 2, 2), np.uint8)
            image[..., 0] = 255
            return image

    images, _ = next(batches(200, 200, flip=True, images=LeftWhite(200)).epoch(ALL, 0))
    mirrored = (images[:, 0, 0, 0] == -1).sum().item()
    assert 70 < mirrored < 130
    assert (images.sum(dim=(1, 2, 3)) == 0).all()


def test_a_stage_without_images_is_an_error():
    with pytest.raises(ValueError, match="no image in groups"):
        next(batches().epoch(Stage(1, (7,), 5), 0))


def test_every_batch_says_which_images_it_holds():
    epoch = [(images, rows) for images, rows in batches().epoch(ALL, 0)]
    assert numbers(epoch) == [rows.tolist() for _, rows in epoch]


def test_images_are_drawn_with_their_chances():
    chances = torch.tensor([0.0, 3.0, 0.0, 1.0] + 6 * [0.0])
    drawn = [*chain.from_iterable(numbers(batches(epoch_steps=1000).epoch(ALL, 0, chances)))]
    assert {*drawn} == {1, 3}
    assert drawn.count(1) / len(drawn) == pytest.approx(0.75, abs=0.03)


def test_chances_count_within_the_groups_of_the_stage():
    chances = torch.tensor([1.0, 9.0] * 5)
    drawn = {*chain.from_iterable(numbers(batches(epoch_steps=20).epoch(EVEN, 0, chances)))}
    assert drawn == {0, 2, 4, 6, 8}


def test_draws_are_a_function_of_seed_stage_and_epoch():
    chances = torch.ones(10)
    reference = numbers(batches().epoch(ALL, 3, chances))
    assert numbers(batches().epoch(ALL, 3, chances)) == reference
    assert numbers(batches().epoch(ALL, 4, chances)) != reference


def test_random_groups_keep_sizes_and_ignore_images():
    groups = np.repeat([1, 2, 3], [500, 300, 200])
    dealt = shuffled_if_random(groups, "random", seed=0)
    assert np.array_equal(np.bincount(dealt), np.bincount(groups))
    share = (dealt[:500] == 1).mean()
    assert 0.42 < share < 0.58  # half of all are in group 1: the order of images plays no part
    assert np.array_equal(dealt, shuffled_if_random(groups, "random", seed=0))
    assert not np.array_equal(dealt, shuffled_if_random(groups, "random", seed=1))


def test_other_modes_keep_their_groups():
    groups = np.array([1, 3, 2])
    assert shuffled_if_random(groups, "descending", seed=0) is groups


def test_images_are_dealt_out_to_their_groups_by_value():
    groups = np.array([2, 1, 3, 2, 0, 3, 1], np.int8)
    values = np.array([5.0, 9.0, 5.0, 1.0])  # of rows 0, 2, 3 and 5
    up, down = regrouped(groups, values, [2, 3]), regrouped(groups, -values, [3, 2])
    assert up.tolist() == [2, 1, 3, 3, 0, 2, 1]  # of equal values the first row
    assert down.tolist() == [3, 1, 3, 2, 0, 2, 1]
    assert up.dtype == groups.dtype
    assert groups.tolist() == [2, 1, 3, 2, 0, 3, 1]


@pytest.mark.parametrize("resident", [True, False])
def test_images_in_order_are_those_of_the_groups_as_they_are(resident, monkeypatch):
    if not resident:
        monkeypatch.setattr("featgan.batches.RESIDENT_BYTES", 0)
    of = batches(flip=True, epoch_steps=1)
    of.groups = np.array([3, 1, 2, 2, 0, 1, 2, 1, 3, 2])
    parts = [*of.in_order([2, 1])]
    assert numbers(parts) == [[1, 2, 3, 5], [6, 7, 9]]
    assert [rows.tolist() for _, rows in parts] == numbers(parts)
    assert not of.seen.any()
