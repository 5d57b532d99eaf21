"""Cut networks against torchvision's own modules."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model, vgg16

from featgan.errors import UserError
from featgan.features import network
from featgan.features.counter import FeatureCounter
from featgan.features.settings import FeatureSettings
from featgan.weights import State

CPU = torch.device("cpu")
VGG16 = FeatureSettings(weights="random", input_size=32)


def settings(**options: object) -> FeatureSettings:
    chosen = {"network": "resnet18", "layer": "layer1.0.bn1", "weights": "random", "input_size": 64}
    return FeatureSettings.model_validate(chosen | options)


@pytest.fixture(scope="module")
def state() -> State:
    return network.load(VGG16)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), np.uint8)


def test_the_default_is_torchvisions_vgg16_up_to_fc1(state: State) -> None:
    whole = vgg16(weights=None, init_weights=False).eval()
    whole.load_state_dict(state, strict=False)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        wanted = whole.classifier[0](torch.flatten(whole.avgpool(whole.features(images)), 1))
        found = network.build(VGG16, state)(images)

    assert found.shape == (2, 4096)
    assert torch.equal(found, wanted)


def test_a_network_shares_its_weights(state: State) -> None:
    parameters = dict(network.build(VGG16, state).named_parameters())

    assert set(parameters) == set(state)
    assert all(parameters[name].data_ptr() == state[name].data_ptr() for name in state)


def test_random_weights_follow_their_seed(state: State) -> None:
    assert state["features.10.weight"].std() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert state["classifier.0.weight"].std() == pytest.approx(0.01, rel=0.01)
    first, again, other = (network.load(settings(seed=seed)) for seed in (5, 5, 6))
    assert torch.equal(first["conv1.weight"], again["conv1.weight"])
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert network.identity(settings(seed=5)) == "random, seed 5"


def test_counts_are_the_positive_outputs_of_the_layer(images: np.ndarray) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        whole = get_model("resnet18", weights=None).eval()
    found: list[torch.Tensor] = []
    whole.layer1[0].bn1.register_forward_hook(lambda _, __, out: found.append(out.clone()))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.inference_mode():
        whole((torch.from_numpy(images) / 255 - mean) / deviation)
    expected = (found[0] > 0).flatten(1).sum(dim=1)

    counts = FeatureCounter(settings(seed=5), CPU).count(images)
    assert np.abs(counts - expected.numpy()).max() <= 3  # of 16,384: another order of operations
    assert counts.dtype == np.int16
    assert not np.array_equal(counts, FeatureCounter(settings(seed=6), CPU).count(images))


def test_a_layer_of_many_outputs_needs_larger_numbers(images: np.ndarray) -> None:
    counter = FeatureCounter(settings(layer="relu"), CPU)  # 64 maps of 32 by 32

    assert network.output_count(settings(layer="relu")) == 65_536
    assert network.output_count(FeatureSettings()) == 4096
    assert counter.count(images).dtype == np.int32


@pytest.mark.parametrize(
    ("name", "layer"), [("inception_v3", "Mixed_5d"), ("googlenet", "inception3a")]
)
def test_networks_with_auxiliary_outputs_are_cut(name: str, layer: str) -> None:
    chosen = settings(network=name, layer=layer, input_size=128)
    assert network.output_count(chosen) > 10_000


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_weights_of_a_file(tmp_path: Path, kind: str) -> None:
    whole = get_model("resnet18", weights=None).state_dict()
    path = tmp_path / f"resnet.{kind}"
    save_file(whole, path) if kind == "safetensors" else torch.save(whole, path)
    chosen = settings(weights=str(path))
    state = network.load(chosen)

    assert torch.equal(state["layer1.0.conv1.weight"], whole["layer1.0.conv1.weight"])
    assert not any(name.startswith(("layer2", "fc")) for name in state)
    assert network.identity(chosen) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match=r"is not resnet34's: layer1\.2.* is missing"):
        network.load(settings(weights=str(path), network="resnet34", layer="layer3"))
    with pytest.raises(UserError, match=r"of another shape$"):
        network.load(settings(weights=str(path), network="resnet34", layer="layer1"))


@pytest.mark.parametrize("damage", ["missing", "not finite"])
def test_weights_without_the_layer_are_explained(tmp_path: Path, state: State, damage: str) -> None:
    # as torchvision's IMAGENET1K_FEATURES, whose layers before the cut are there
    before = {name: tensor for name, tensor in state.items() if "28" not in name}
    del before["classifier.0.weight"]
    invalid = {"features.28.weight": torch.full((512, 512, 3, 3), torch.nan)}
    path = tmp_path / "features.pth"
    torch.save(before | (invalid if damage == "not finite" else {}), path)
    with pytest.raises(UserError, match=r"features\.28\.\w+ is missing.* use IMAGENET1K_V1") as e:
        network.load(FeatureSettings(weights=str(path), layer="features.28"))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "resnet81"}, r"features\.network: .*no classifier 'resnet81'; near: resnet18"),
        ({"layer": "layer1.0.bn9"}, r"features\.layer: .*no 'layer1\.0\.bn9'; near: layer1\.0\.bn"),
        (
            {"network": "vit_b_16", "layer": "encoder.ln"},
            r"features\.input_size: vit_b_16 does not take 64 pixels",
        ),
    ],
)
def test_unknown_networks_and_layers_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        network.output_count(settings(**options))
    assert "\n" not in str(caught.value)


@pytest.mark.guarantee(
    "Exposure",
    "Downloaded weights are verified by their published hash, also when kept",
)
def test_a_damaged_download_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"^features\.weights: .*resnet18-f37072fd\.pth is damaged"):
        network.identity(settings(weights="imagenet"))


def test_a_pickled_network_needs_no_torchvision(state: State, tmp_path: Path) -> None:
    file = tmp_path / "network.pkl"
    file.write_bytes(pickle.dumps(network.empty(VGG16)))
    script = (
        "import pickle, sys; network = pickle.load(open(sys.argv[1], 'rb'));"
        "assert 'torchvision' not in sys.modules; print(*network.state_dict())"
    )
    command = [sys.executable, "-c", script, str(file)]
    assert subprocess.check_output(command, text=True).split() == [*state]
