"""Networks and layers other than VGG16's fc1, against torchvision's own modules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from featgan.errors import UserError
from featgan.features import network, vgg
from featgan.features.counter import FeatureCounter
from featgan.features.settings import FeatureSettings

CPU = torch.device("cpu")


def settings(**options: object) -> FeatureSettings:
    chosen = {"network": "resnet18", "layer": "layer1.0.bn1", "weights": "random", "input_size": 64}
    return FeatureSettings.model_validate(chosen | options)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), np.uint8)


def test_counts_are_the_positive_outputs_of_torchvisions_layer(images: np.ndarray) -> None:
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

    assert network.outputs(settings(layer="relu")) == 65_536
    assert network.outputs(FeatureSettings()) == 4096
    assert counter.count(images).dtype == np.int32


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_weights_of_a_file(tmp_path: Path, images: np.ndarray, kind: str) -> None:
    whole = get_model("resnet18", weights=None)
    path = tmp_path / f"resnet.{kind}"
    save_file(whole.state_dict(), path) if kind == "safetensors" else torch.save(
        whole.state_dict(), path
    )
    chosen = settings(weights=str(path))
    state = network.load(chosen)

    assert torch.equal(state["layer1.0.conv1.weight"], whole.layer1[0].conv1.weight)
    assert not any(name.startswith(("layer2", "fc")) for name in state)
    assert len(network.identity(chosen)) == 64
    with pytest.raises(UserError, match=r"is not of resnet34: layer1\.2"):
        network.load(settings(weights=str(path), network="resnet34", layer="layer3"))


def test_vgg16s_fc1_is_read_as_ever() -> None:
    chosen = FeatureSettings(weights="random", seed=3)

    assert torch.equal(
        network.load(chosen)["classifier.0.weight"], vgg.load("random", 3)["classifier.0.weight"]
    )
    assert network.identity(chosen) == vgg.identity("random", 3) == "random, seed 3"
    assert chosen.outputs == "VGG16 fc1"
    assert settings().outputs == "resnet18 layer1.0.bn1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "resnet81"}, r"features\.network: .*no classifier 'resnet81'; near: resnet18"),
        ({"layer": "layer1.0.bn9"}, r"features\.layer: no 'layer1\.0\.bn9'.*near: layer1\.0\.bn"),
        (
            {"network": "vit_b_16", "layer": "encoder.ln"},
            r"features\.input_size: vit_b_16 does not take 64 pixels",
        ),
    ],
)
def test_what_cannot_be_counted_is_told(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        network.outputs(settings(**options))
    assert "\n" not in str(caught.value)


def test_a_damaged_download_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"resnet18-f37072fd\.pth is damaged"):
        network.identity(settings(weights="imagenet"))
