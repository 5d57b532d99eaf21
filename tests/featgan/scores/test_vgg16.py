"""VGG16's features against torch-fidelity's, with random weights."""

import pytest
import torch
import torchvision
from torch import Tensor
from torch_fidelity import feature_extractor_vgg16 as fidelity
from torch_fidelity.metric_prc import prc_features_to_metric

from featgan.features import network
from featgan.features.settings import FeatureSettings
from featgan.scores.feature_networks import load_vgg16
from featgan.scores.metrics.statistics import FeatureStatistics
from featgan.scores.score import Score, load_classifier
from featgan.scores.settings import ScoreSettings
from featgan.scores.small_cnn import train_classifier

CPU = torch.device("cpu")


@pytest.fixture
def vgg16_extractor(monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """Return torch-fidelity's extractor; with it, `load_vgg16` has random weights."""
    settings = FeatureSettings(layer="classifier.4", weights="random")
    state = network.load(settings)
    monkeypatch.setattr(network, "load", lambda *_: state)
    monkeypatch.setattr(network, "identity", lambda _: "0123456789")
    whole = torchvision.models.vgg16(init_weights=False)
    whole.load_state_dict(state, strict=False)
    monkeypatch.setattr(fidelity, "torchvision_load_pretrained_vgg16", lambda **_: whole)
    return fidelity.FeatureExtractorVGG16("vgg16", ["fc2_relu"])


def images(count: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    level = torch.randint(40, 216, (count, 3, 1, 1), generator=random)
    detail = torch.randint(-40, 41, (count, 3, 16, 16), generator=random)
    return (level + detail).to(torch.uint8)


def test_published_precision_and_recall(vgg16_extractor, tmp_path) -> None:
    real, generated = images(8, 1), images(8, 8)  # a batch of each
    labels = [0, 1] * 4
    (tmp_path / "cnn").write_bytes(train_classifier(real.numpy(), labels, ["a", "b"], 0, 1))
    settings = ScoreSettings(
        classifier="trained",
        trained_on=["a"],
        metrics=["precision_recall", "fid"],
        features="vgg16",
        count=8,
        splits=1,
    )
    classifier = load_classifier(settings, CPU, tmp_path / "cnn")
    features, _ = classifier.features_and_logits(real)
    statistics = FeatureStatistics(features)
    score = Score(classifier, settings, statistics)
    found = score.evaluate(lambda start, stop: generated[start:stop]).metrics

    ours = classifier.feature_network.features(real)
    (theirs,) = vgg16_extractor(real)
    assert ours.shape == (8, 4096)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    expected = prc_features_to_metric(*vgg16_extractor(generated), theirs, verbose=False)
    theirs = expected["precision"], expected["recall"]
    assert (found["precision"], found["recall"]) == pytest.approx(theirs, abs=1e-6)
    names = "PRECISION_RECALL-k3 FID"
    assert score.metrics_protocol == f"{names} vgg16-fc2 n=8 real=8 width=4096 fp32"


def test_a_file_of_weights_is_named(vgg16_extractor) -> None:
    assert load_vgg16("mine.pth", CPU).name == "vgg16-fc2-012345"
