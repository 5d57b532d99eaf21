import os
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch_fidelity
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3 as fidelity
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from featgan.errors import UserError
from featgan.scores.classifiers import load_inception, resize_like_tensorflow1
from featgan.scores.score import Score, load_classifier
from featgan.scores.settings import ScoreSettings

CPU = torch.device("cpu")


def randomised(network: nn.Module) -> dict[str, Tensor]:
    """Random weights; no batch norm is the identity."""
    random = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=random)
        elif isinstance(module, nn.BatchNorm2d):
            for tensor, mean in (
                (module.weight, 1.0),
                (module.bias, 0.0),
                (module.running_mean, 0.0),
                (module.running_var, 1.0),
            ):
                nn.init.normal_(tensor, mean, 0.05, generator=random)
    nn.init.normal_(network.fc.weight, generator=random)
    nn.init.normal_(network.fc.bias, generator=random)
    return network.state_dict()


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    extractor = fidelity.FeatureExtractorInceptionV3
    with (
        torch.random.fork_rng(),
        mock.patch.object(extractor, "load_state_dict"),
        mock.patch.object(fidelity, "load_state_dict_from_url"),
    ):
        network = extractor("random", ["2048"])
        randomised(network)
        # Random features are nearly the same for all images, and so would their classes be:
        # the last layer looks at what differs.
        features = network(photographs(4))[0]
        mean = torch.nn.functional.normalize(features.mean(0), dim=0)
        weight = network.fc.weight.detach()
        weight -= (weight @ mean)[:, None] * mean
        weight *= 2 / (features @ weight.T).std()
        torch.save(network.state_dict(), path)
    return path


def photographs(n: int, size: int = 32) -> Tensor:
    """Smooth random images, unlike each other."""
    random = torch.Generator().manual_seed(5)
    coarse = torch.rand(n, 3, 4, 4, generator=random) * 255
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear").to(torch.uint8)


@pytest.mark.parametrize("size", [32, 64, 100, 299, 400])
def test_resizing_equals_tensorflow_1(size: int) -> None:
    images = torch.randint(0, 256, (2, 3, size, size + 8)).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(images, (299, 299), align_corners=False)
    torch.testing.assert_close(resize_like_tensorflow1(images, 299), expected, rtol=0, atol=1e-3)


def test_features_and_logits_equal_torch_fidelity(inception_file: Path) -> None:
    images = photographs(2)
    theirs = fidelity.FeatureExtractorInceptionV3(
        "theirs", ["2048", "logits_unbiased"], feature_extractor_weights_path=inception_file
    )
    with torch.no_grad():
        features, logits = theirs(images)
    ours = load_inception(str(inception_file), CPU).features_and_logits(images)
    scale = features.abs().max().item()
    torch.testing.assert_close(ours[0], features, rtol=1e-5, atol=1e-6 * scale)
    torch.testing.assert_close(ours[1], logits, rtol=1e-5, atol=1e-4)  # std 2


def test_the_score_equals_torch_fidelity(inception_file: Path) -> None:
    images = photographs(8)
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(images),
        isc=True,
        isc_splits=2,
        cuda=False,
        verbose=False,
        cache=False,
        save_cpu_ram=True,
        batch_size=4,
        feature_extractor_weights_path=str(inception_file),
    )
    settings = ScoreSettings(weights=str(inception_file), count=8, splits=2, batch_size=3)
    score = Score(load_classifier(settings, CPU), settings)
    ours = score.evaluate(lambda start, stop: images[start:stop])
    assert ours.score > 2
    assert ours.score == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert ours.score_std == pytest.approx(theirs["inception_score_std"], abs=1e-5)


class Images(torch.utils.data.Dataset):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Tensor:
        return self.images[row]


@pytest.mark.gpu
def test_a_gpu_has_the_cpus_logits_and_keeps_flags(inception_file: Path) -> None:
    images, cudnn = photographs(8), torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    gpu = load_inception(str(inception_file), torch.device("cuda"))
    ours = gpu(images.cuda()).cpu()
    cpu = load_inception(str(inception_file), CPU)(images)
    torch.testing.assert_close(ours, cpu, rtol=1e-4, atol=1e-3)  # TF32 is off by 1e-2
    assert before == (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32)


def test_other_weights_are_named_by_their_digest(inception_file: Path) -> None:
    classifier = load_inception(str(inception_file), CPU)
    assert classifier.name == f"inception-v3-compat-{classifier.digest[:6]}"
    assert classifier.head.out_features == 1008


def test_loading_does_not_touch_the_random_generator(inception_file: Path) -> None:
    before = torch.get_rng_state()
    load_inception(str(inception_file), CPU)
    assert torch.equal(before, torch.get_rng_state())


class Malicious:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("owned",)


def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": Malicious()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"^score\.weights: .* cannot be read as weights"):
        load_inception("evil.pth", CPU)
    assert not (tmp_path / "owned").exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"^score\.weights: .*other\.pth does not fit") as error:
        load_inception(str(tmp_path / "other.pth"), CPU)
    assert "\n" not in str(error.value)
