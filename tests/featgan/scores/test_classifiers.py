import os
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch_fidelity
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3 as fidelity
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchvision.models import Inception3

from featgan.errors import UserError
from featgan.scores.classifiers import load_inception, load_torchvision, resize_like_tensorflow1
from featgan.scores.inception_score import Score, load_classifier
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


@pytest.fixture(scope="session")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "torchvision.pth"
    with torch.random.fork_rng():
        torch.save(randomised(Inception3(init_weights=False)), path)
    return path


def photographs(n: int, size: int = 32) -> Tensor:
    """Smooth random images, unlike each other."""
    random = torch.Generator().manual_seed(5)
    coarse = torch.rand(n, 3, 4, 4, generator=random) * 255
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear").to(torch.uint8)


@pytest.mark.parametrize("size", [32, 64, 100, 299, 400])
def test_resizing_equals_that_of_tensorflow_1(size: int) -> None:
    images = torch.randint(0, 256, (2, 3, size, size + 8)).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(images, (299, 299), align_corners=False)
    torch.testing.assert_close(resize_like_tensorflow1(images, 299), expected, rtol=0, atol=1e-3)


def test_inception_gives_torch_fidelitys_features_and_logits(inception_file: Path) -> None:
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


def test_the_score_equals_torch_fidelitys_end_to_end(inception_file: Path) -> None:
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
    ours = score.measure(lambda start, stop: images[start:stop])
    assert ours[0] > 2
    assert ours[0] == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert ours[1] == pytest.approx(theirs["inception_score_std"], abs=1e-5)


class Images(torch.utils.data.Dataset):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Tensor:
        return self.images[row]


def test_torchvisions_gives_its_own_logits(torchvision_file: Path) -> None:
    images = photographs(2, 48)
    with torch.random.fork_rng():
        theirs = Inception3(init_weights=False, transform_input=True).eval()
    theirs.load_state_dict(torch.load(torchvision_file, weights_only=True))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    large = torch.nn.functional.interpolate(images.float() / 255, 299, mode="bilinear")
    with torch.no_grad():
        expected = theirs((large - mean[:, None, None]) / deviation[:, None, None])
    ours = load_torchvision(str(torchvision_file), CPU)
    torch.testing.assert_close(
        ours(images), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item()
    )
    assert ours.classes == 1000


@pytest.mark.gpu
def test_a_gpu_gives_the_cpus_logits_and_keeps_its_flags(inception_file: Path) -> None:
    images, cudnn = photographs(8), torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    gpu = load_inception(str(inception_file), torch.device("cuda"))
    ours = gpu(images.cuda()).cpu()
    cpu = load_inception(str(inception_file), CPU)(images)
    torch.testing.assert_close(ours, cpu, rtol=1e-4, atol=1e-3)  # TF32 is off by 1e-2
    assert before == (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32)


def test_weights_that_are_not_the_published_show_in_the_name(inception_file: Path) -> None:
    classifier = load_inception(str(inception_file), CPU)
    assert classifier.name == f"inception-v3-compat-{classifier.digest[:6]}"
    assert classifier.classes == 1008


def test_loading_moves_no_global_generator(inception_file: Path) -> None:
    before = torch.get_rng_state()
    load_inception(str(inception_file), CPU)
    assert torch.equal(before, torch.get_rng_state())


class Malicious:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("owned",)


def test_a_malicious_pickle_is_refused_unrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": Malicious()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="no file of weights alone"):
        load_inception("evil.pth", CPU)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot read"), (b"not weights", "no file of weights alone")]
)
def test_a_file_that_is_no_weights_is_told_in_one_line(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "w.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load_inception(str(path), CPU)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_are_not_waited_for_at_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match="a pipe or a device, not a file"):
        load_inception(str(tmp_path / "pipe.pth"), CPU)


def test_weights_of_another_network_are_refused(inception_file: Path) -> None:
    with pytest.raises(UserError, match="does not fit"):
        load_torchvision(str(inception_file), CPU)


def test_weights_out_of_reach_are_told_with_the_way_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(fidelity, "URL_INCEPTION_V3", "http://127.0.0.1:9/inception-12345678.pth")
    with pytest.raises(UserError, match=r"fetch http://127\.0\.0\.1:9.*score\.weights") as error:
        load_inception(None, CPU)
    assert "\n" not in str(error.value)


@pytest.mark.guarantee(
    "Exposure",
    "Downloaded weights are verified by their published hash, also when kept",
)
def test_a_download_that_is_kept_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    kept = tmp_path / "checkpoints" / fidelity.URL_INCEPTION_V3.rsplit("/", 1)[1]
    kept.parent.mkdir()
    kept.write_bytes(b"half a fi")
    with pytest.raises(UserError, match="damaged: delete it"):
        load_inception(None, CPU)
