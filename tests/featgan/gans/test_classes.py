"""Inputs of conditional generators."""

import pytest
import torch

from featgan.gans.classes import draw, in_rows, one_hot

CLASSES = {"pear": 300, "plum": 100}


def seeded():
    return torch.Generator().manual_seed(0)


def test_a_class_is_a_one_hot_vector():
    assert one_hot(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_classes_are_as_frequent_as_in_the_data_set():
    inputs = draw(5, CLASSES, 4000, seeded())
    assert inputs.shape == (4000, 7)
    assert inputs[:, 5:].sum(dim=1).tolist() == [1] * 4000
    assert inputs[:, 5].mean().item() == pytest.approx(0.75, abs=0.03)  # 4 standard deviations
    assert torch.equal(inputs[:, :5], draw(5, {}, 4000, seeded()))
    assert torch.equal(inputs, draw(5, CLASSES, 4000, seeded()))


def test_each_row_of_a_grid_has_a_class_in_turn():
    inputs = draw(5, CLASSES, 8, seeded())  # three columns, and two in the last row
    rows = in_rows(inputs, CLASSES)
    assert rows[:, 5].tolist() == [1, 1, 1, 0, 0, 0, 1, 1]
    assert torch.equal(rows[:, :5], inputs[:, :5])
    assert in_rows(inputs, {}) is inputs
