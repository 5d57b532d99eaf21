"""The file of a trained generator."""

import json
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from featgan import tensor_file
from featgan.errors import UserError
from featgan.gans.generator_file import KIND, generator_bytes, load_generator
from featgan.gans.registry import NETWORKS, build
from featgan.gans.settings import GanSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = GanSettings(width=16, latent=6)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_generator_file_holds_its_settings(tmp_path, network):
    gan = SMALL.model_copy(update={"network": network, "augment": ["color"], "ema": 0.5})
    generator, _ = build(gan, 64, seed=3)
    path = tmp_path / "generator.safetensors"
    path.write_bytes(generator_bytes(generator, gan, 64))
    loaded = load_generator(path)
    noise = torch.randn(3, 6)
    assert (loaded.image_size, loaded.gan, loaded.classes) == (64, gan, {})
    assert not loaded.network.training
    assert torch.equal(loaded.network(noise), generator.eval()(noise))


@pytest.mark.parametrize("network", ["sngan", "r3gan"])
def test_a_conditional_generators_file_holds_its_classes(tmp_path, network):
    gan = SMALL.model_copy(update={"network": network, "conditional": True})
    classes = {"plum": 7, "äpfel": 2}
    generator, _ = build(gan, 32, seed=3, classes=2)
    path = tmp_path / "generator.safetensors"
    path.write_bytes(generator_bytes(generator, gan, 32, classes))
    loaded, inputs = load_generator(path), torch.cat((torch.randn(2, 6), torch.eye(2)), dim=1)
    assert [*loaded.classes.items()] == [*classes.items()]
    assert torch.equal(loaded.network(inputs), generator.eval()(inputs))


def test_loading_imports_user_networks_only_if_named(user_networks, tmp_path):
    gan = GanSettings(network=user_networks, latent=6)
    generator, _ = build(gan, 32, seed=3)
    path = tmp_path / "generator.safetensors"
    path.write_bytes(generator_bytes(generator, gan, 32))
    del sys.modules["user_networks"]
    for named in ([], ["user_networks:other"], ["dcgan"]):
        with pytest.raises(UserError, match="only if you name it: --network user_networks:tiny"):
            load_generator(path, networks=named)
    assert "user_networks" not in sys.modules
    noise = torch.randn(2, 6)
    assert torch.equal(
        load_generator(path, networks=[user_networks]).network(noise), generator.eval()(noise)
    )


@pytest.mark.parametrize("content", [b"", b"hello", b"\x10" + b"\0" * 30])
def test_another_file_is_an_error_of_one_line(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.safetensors: cannot be read"):
        load_generator(path)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda about, weights: about.update(image_size=64), "its SHA-256 differs"),
        (lambda about, weights: about["gan"].update(width=8), "its SHA-256 differs"),
        (lambda about, weights: next(iter(weights.values())).neg_(), "its SHA-256 differs"),
        (lambda about, weights: about.clear(), "cannot be read"),
    ],
    ids=["image size", "settings", "weights", "no settings"],
)
def test_an_altered_generator_is_refused(tmp_path, damage, why):
    path = tmp_path / "x.safetensors"
    path.write_bytes(generator_bytes(build(SMALL, 32, seed=0)[0], SMALL, 32))
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()[KIND])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    damage(about, weights)
    path.write_bytes(save(weights, {KIND: json.dumps(about)}))
    with pytest.raises(UserError, match=why) as caught:
        load_generator(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("gan", "size", "why"),
    [
        (SMALL.model_dump(), 64, "not weights of 'dcgan'"),
        (SMALL.model_dump(), "x", "invalid settings of a generator"),
        ({"network": 5}, 32, "invalid settings of a generator"),
        (None, 32, "invalid settings of a generator"),
    ],
    ids=["other size", "no size", "no network", "no settings"],
)
def test_a_generator_that_does_not_fit_its_header_is_refused(tmp_path, gan, size, why):
    path = tmp_path / "x.safetensors"
    generator, _ = build(SMALL, 32, seed=0)
    header = {"gan": gan, "image_size": size, "classes": []}
    path.write_bytes(tensor_file.dump(KIND, header, generator.state_dict()))
    with pytest.raises(UserError, match=why) as caught:
        load_generator(path)
    assert "\n" not in str(caught.value)
