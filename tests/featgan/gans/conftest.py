"""User-defined networks."""

import sys

import pytest

USER_NETWORKS = """
from torch import nn

def tiny(gan, image_size):
    pixels = 3 * image_size**2
    make = nn.Sequential(nn.Linear(gan.latent, pixels), nn.Tanh())
    make.append(nn.Unflatten(1, (3, image_size, image_size)))
    return make, nn.Sequential(nn.Flatten(), nn.Linear(pixels, 1))

def small_images(gan, image_size):
    return tiny(gan, image_size // 2)

def two_logits(gan, image_size):
    return tiny(gan, image_size)[0], nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, 2))

def nothing(gan, image_size):
    pass

def failing(gan, image_size):
    return nn.Linear(gan.latent + 1, 3), nn.Flatten()
"""


@pytest.fixture
def user_networks(tmp_path, monkeypatch):
    """Name of the networks of a user-defined module, which is forgotten afterwards."""
    (tmp_path / "user_networks.py").write_text(USER_NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    yield "user_networks:tiny"
    sys.modules.pop("user_networks", None)
