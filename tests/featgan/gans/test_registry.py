"""Networks by name, built from a seed."""

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from featgan.errors import UserError
from featgan.gans.registry import NETWORKS, build, to_uint8
from featgan.gans.settings import RECIPES, GanSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = GanSettings(width=4, latent=6)


def small(network):
    return GanSettings(network=network, width=16 if network == "r3gan" else 4, latent=6)


def test_every_recipe_has_networks():
    assert NETWORKS.keys() == RECIPES.keys()


@pytest.mark.parametrize("package", ["gans.settings", "staging.settings", "staging.progress"])
def test_settings_and_stages_load_no_torch(package):
    script = f"import sys, featgan.{package}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_shapes_and_range_at_every_image_size(size):
    generator, discriminator = build(SMALL, size, seed=0)
    images = generator(torch.randn(2, 6))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1
    assert discriminator(images).shape == (2,)


@pytest.mark.parametrize("network", NETWORKS)
def test_initial_state_depends_on_the_seed_alone(network):
    """Buffers too: spectral norm's vectors are drawn."""
    gan = small(network)
    first = build(gan, 32, seed=1)
    torch.manual_seed(123)
    again, other = build(gan, 32, seed=1), build(gan, 32, seed=2)
    for a, b, c in zip(first, again, other, strict=True):
        a, b, c = (torch.cat([v.flatten() for v in n.state_dict().values()]) for n in (a, b, c))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


@pytest.mark.parametrize("network", NETWORKS)
def test_building_leaves_the_global_generator_alone(network):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build(small(network), 32, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_network_is_refused():
    with pytest.raises(ValidationError, match="'sgnan' is none of dcgan, sngan, wgan-gp, r3gan"):
        GanSettings(network="sgnan")


def test_user_defined_networks_are_built_from_the_seed(user_networks):
    gan = GanSettings(network=user_networks, latent=6)
    (generator, discriminator), (again, _) = build(gan, 32, seed=1), build(gan, 32, seed=1)
    noise = torch.randn(3, 6)
    images = generator(noise)
    assert images.shape == (3, 3, 32, 32)
    assert discriminator(images, images).shape == (6,)
    assert torch.equal(images, again(noise))
    assert generator.training
    assert not torch.equal(images, build(gan, 32, seed=2)[0](noise))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("small_images", r"returns \[2, 3, 16, 16\] for 2 noise vectors, not \[2, 3, 32, 32\]"),
        ("two_logits", "returns 4 values for 2 images, not one logit each"),
        ("absent", "has no function 'absent'"),
        ("nothing", "^user_networks:nothing: TypeError: cannot unpack non-iterable NoneType"),
        ("failing", r"^user_networks:failing: RuntimeError: mat1 .* \(linear.py, line \d+\)$"),
    ],
)
def test_networks_that_do_not_fit_are_an_error_of_one_line(user_networks, function, message):
    gan = GanSettings(network=f"user_networks:{function}", latent=6)
    with pytest.raises(UserError, match=message) as caught:
        build(gan, 32, seed=0)
    assert "\n" not in str(caught.value)


def test_to_uint8_rounds_to_the_nearest():
    images = torch.tensor([-1.0, -0.999, 0.0, 0.9999, 1.0, 1.5, -2.0])
    assert to_uint8(images).tolist() == [0, 0, 128, 255, 255, 255, 0]
