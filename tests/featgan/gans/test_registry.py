"""Networks by name, built from a seed, and the file that a generator travels in."""

import json
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save

from featgan.errors import UserError
from featgan.gans.registry import (
    GENERATOR_FORMAT,
    NETWORKS,
    build,
    generator_bytes,
    load_generator,
    to_uint8,
)
from featgan.gans.settings import RECIPES, GanSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = GanSettings(width=4, latent=6)

OWN = """
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


def test_every_recipe_has_networks():
    assert NETWORKS.keys() == RECIPES.keys()


@pytest.mark.parametrize("package", ["gans.settings", "staging.settings", "staging.progress"])
def test_settings_and_stages_load_no_torch(package):
    script = f"import sys, featgan.{package}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's; forgotten afterwards."""
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_networks:tiny"
    sys.modules.pop("own_networks", None)


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
    gan = SMALL.model_copy(update={"network": network})
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
    build(SMALL.model_copy(update={"network": network}), 32, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_a_network_of_no_known_name_is_refused():
    with pytest.raises(ValidationError, match="'sgnan' is none of dcgan, sngan, wgan-gp"):
        GanSettings(network="sgnan")


def test_a_users_own_networks_are_built_from_the_seed(own):
    gan = GanSettings(network=own, latent=6)
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
        ("small_images", r"makes \[2, 3, 16, 16\], not \[2, 3, 32, 32\]"),
        ("two_logits", "the discriminator makes 4 values, not one logit each"),
        ("absent", "has no function 'absent'"),
        ("nothing", "^own_networks:nothing: TypeError: cannot unpack non-iterable NoneType"),
        ("failing", r"^own_networks:failing: RuntimeError: mat1 .* \(linear.py, line \d+\)$"),
    ],
)
def test_own_networks_that_do_not_fit_are_told_in_one_line(own, function, message):
    gan = GanSettings(network=f"own_networks:{function}", latent=6)
    with pytest.raises(UserError, match=message) as caught:
        build(gan, 32, seed=0)
    assert "\n" not in str(caught.value)


def test_bytes_of_an_image_are_rounded_to_the_nearest():
    images = torch.tensor([-1.0, -0.999, 0.0, 0.9999, 1.0, 1.5, -2.0])
    assert to_uint8(images).tolist() == [0, 0, 128, 255, 255, 255, 0]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_saved_generator_carries_its_configuration(tmp_path, network):
    gan = SMALL.model_copy(update={"network": network, "augment": ["color"], "ema": 0.5})
    generator, _ = build(gan, 64, seed=3)
    path = tmp_path / "generator.safetensors"
    path.write_bytes(generator_bytes(generator))
    loaded = load_generator(path)
    noise = torch.randn(3, 6)
    assert (loaded.image_size, loaded.gan) == (64, gan)
    assert not loaded.training
    assert torch.equal(loaded(noise), generator.eval()(noise))


def test_loading_imports_a_users_networks_only_if_the_caller_names_them(own, tmp_path):
    generator, _ = build(GanSettings(network=own, latent=6), 32, seed=3)
    path = tmp_path / "generator.safetensors"
    path.write_bytes(generator_bytes(generator))
    del sys.modules["own_networks"]
    for named in ([], ["own_networks:other"], ["dcgan"]):
        with pytest.raises(UserError, match="only if you name it: --network own_networks:tiny"):
            load_generator(path, networks=named)
    assert "own_networks" not in sys.modules
    noise = torch.randn(2, 6)
    assert torch.equal(load_generator(path, networks=[own])(noise), generator.eval()(noise))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x10" + b"\0" * 30])
def test_a_file_that_is_no_generator_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.safetensors: not a readable generator"):
        load_generator(path)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda about, weights: about.update(image_size=64), "the SHA-256 differs"),
        (lambda about, weights: about["gan"].update(width=8), "the SHA-256 differs"),
        (lambda about, weights: next(iter(weights.values())).neg_(), "the SHA-256 differs"),
        (lambda about, weights: about.clear(), "not a readable generator file"),
    ],
    ids=["image size", "settings", "weights", "no settings"],
)
def test_a_generator_that_was_altered_is_refused(tmp_path, damage, why):
    path = tmp_path / "x.safetensors"
    path.write_bytes(generator_bytes(build(SMALL, 32, seed=0)[0]))
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()[GENERATOR_FORMAT])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    damage(about, weights)
    path.write_bytes(save(weights, {GENERATOR_FORMAT: json.dumps(about)}))
    with pytest.raises(UserError, match=why) as caught:
        load_generator(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"image_size": 64}, "not the weights of 'dcgan'"),
        ({"image_size": "x"}, "its image_size is 'x'"),
        ({"gan": {"network": 5}}, "not a readable generator file"),
    ],
    ids=["whole", "other size", "no size", "no network"],
)
def test_a_generator_without_a_digest_is_read_if_it_fits(tmp_path, change, why):
    path = tmp_path / "x.safetensors"
    generator, _ = build(SMALL, 32, seed=0)
    about = {"gan": SMALL.model_dump(), "image_size": 32} | change
    path.write_bytes(save(generator.state_dict(), {GENERATOR_FORMAT: json.dumps(about)}))
    if why is None:
        assert load_generator(path).image_size == 32
        return
    with pytest.raises(UserError, match=why) as caught:
        load_generator(path)
    assert "\n" not in str(caught.value)
