"""Inputs of a generator: noise, and for a conditional one the class as a one-hot vector after it.

`classes` are the names of a data set's classes with their numbers of images to train on, in the
order of the one-hot vector; without any a generator is unconditional.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def one_hot(numbers: Tensor, classes: int) -> Tensor:
    """Return float one-hot vectors [n, classes] of class numbers [n], without waiting for a GPU."""
    return (numbers[:, None] == torch.arange(classes, device=numbers.device)).float()


def draw(latent: int, classes: Mapping[str, int], count: int, random: torch.Generator) -> Tensor:
    """Return inputs [count, latent + classes]; classes are as frequent as in the data set."""
    noise = torch.randn((count, latent), generator=random)
    if not classes:
        return noise
    images = torch.tensor([*classes.values()], dtype=torch.float64)
    numbers = torch.multinomial(images, count, replacement=True, generator=random)
    return torch.cat((noise, one_hot(numbers, len(classes))), dim=1)


def grid_columns(count: int) -> int:
    """Return the columns of a grid of so many images: as wide as high, or wider."""
    return math.ceil(math.sqrt(count))


def in_rows(inputs: Tensor, classes: Mapping[str, int]) -> Tensor:
    """Return inputs with another class for each row of their grid, in turn."""
    if not classes:
        return inputs
    places = torch.arange(len(inputs), device=inputs.device)
    numbers = places // grid_columns(len(inputs)) % len(classes)
    return torch.cat((inputs[:, : -len(classes)], one_hot(numbers, len(classes))), dim=1)
