import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featgan.errors import UserError
from featgan.gans.gan import Gan
from featgan.gans.settings import GanSettings
from featgan.scores.score import Score
from featgan.scores.settings import ScoreSettings
from featgan.scores.small_cnn import load_trained, network, read_trained, train_classifier
from featgan.settings import TrainingSettings

CPU = torch.device("cpu")
CLASSES = ["red", "green", "blue", "dark"]


def coloured(n: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images of four colours; learnt within seconds."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 4, n)
    images = draw.integers(0, 120, (n, 3, size, size))
    for row, label in enumerate(labels):
        images[row, label % 3] += 100 * (label < 3)
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def trained() -> bytes:
    return train_classifier(*coloured(240), CLASSES, seed=3, epochs=3)


@pytest.fixture
def path(trained: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "c.safetensors"
    path.write_bytes(trained)
    return path


def training_of(data: bytes, folder: Path) -> dict[str, Any]:
    (folder / "other.safetensors").write_bytes(data)
    return read_trained(folder / "other.safetensors")[0]


def test_accuracy_is_measured_on_held_out_images(path: Path) -> None:
    training, _, digest = read_trained(path)
    assert training["accuracy"] > 0.9
    assert (training["images"], training["held_out"], training["image_size"]) == (240, 36, 32)
    assert training["classes"] == CLASSES
    assert len(digest) == 64


def test_scores_do_not_depend_on_the_batch_size(path: Path) -> None:
    classifier = load_trained(path, CPU)
    gan = Gan(GanSettings(width=8, latent=16), TrainingSettings(), 32, 0, CPU)
    with torch.no_grad():
        for weights in gan.generator.parameters():
            weights.mul_(6)  # untrained, it is grey for all noise
    latent = torch.randn((300, 16), generator=torch.Generator().manual_seed(0))
    scores = [
        Score(classifier, ScoreSettings(count=300, splits=3, batch_size=size))
        .evaluate(lambda start, stop: gan.generate(latent[start:stop]))
        .score
        for size in (1, 7, 64, 300)
    ]
    assert scores[0] > 1.005
    for score in scores[1:]:
        assert score == pytest.approx(scores[0], rel=1e-6, abs=1e-6)


def test_random_labels_are_not_learnt(tmp_path: Path) -> None:
    images, labels = coloured(240)
    data = train_classifier(images, labels[::-1].copy(), CLASSES, seed=0, epochs=3)
    assert training_of(data, tmp_path)["accuracy"] < 0.6


@pytest.mark.parametrize(("classes", "epochs"), [(2, 14), (60, 30)])
def test_more_classes_train_longer(tmp_path: Path, classes: int, epochs: int) -> None:
    images = np.zeros((4, 3, 32, 32), np.uint8)
    data = train_classifier(images, np.arange(4) % 2, [*map(str, range(classes))], seed=0)
    assert training_of(data, tmp_path)["epochs"] == epochs


def test_too_few_images_to_hold_one_out_are_refused() -> None:
    with pytest.raises(UserError, match=r"^score\.trained_on: 3 labelled images .* 4 or more"):
        train_classifier(np.zeros((3, 3, 32, 32), np.uint8), np.arange(3) % 2, CLASSES, seed=0)


def test_the_file_depends_on_the_arguments_alone(trained: bytes) -> None:
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    with torch.no_grad():
        again = train_classifier(*coloured(240), CLASSES, seed=3, epochs=3)
    assert again == trained
    assert train_classifier(*coloured(240), CLASSES, seed=4, epochs=3) != trained


def test_training_restores_random_state_and_threads() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        before = torch.get_rng_state()
        train_classifier(*coloured(40), CLASSES, seed=0, epochs=1)
        assert torch.equal(before, torch.get_rng_state())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_the_loaded_classifier_has_the_trained_logits(path: Path) -> None:
    classifier = load_trained(path, CPU)
    _, tensors, digest = read_trained(path)
    model = nn.Sequential(*network(4))
    model.load_state_dict(tensors)
    images = torch.from_numpy(coloured(20, seed=1)[0])
    with torch.no_grad():
        expected = model.eval()(images.float() / 127.5 - 1)
    torch.testing.assert_close(classifier(images), expected, rtol=1e-5, atol=1e-5)
    assert classifier.head.out_features == 4
    assert classifier.name == f"trained-cnn2-{digest[:6]}"


def test_bf16_moves_the_logits_a_little(path: Path) -> None:
    images = torch.from_numpy(coloured(20, seed=1)[0])
    exact = load_trained(path, CPU)(images)
    half = load_trained(path, CPU, torch.bfloat16)(images)
    assert half.dtype == torch.float32
    assert 0 < ((half - exact).norm() / exact.norm()).item() < 0.03


@pytest.mark.parametrize("size", [16, 64, 128])
def test_images_of_other_sizes_are_averaged_to_32(path: Path, size: int) -> None:
    classifier = load_trained(path, CPU)
    grey: Tensor = torch.full((2, 3, size, size), 77, dtype=torch.uint8)
    expected = classifier(torch.full((2, 3, 32, 32), 77, dtype=torch.uint8))
    torch.testing.assert_close(classifier(grey), expected)


@pytest.mark.parametrize("damage", ["cut", "another version", "missing"])
def test_unusable_files_are_refused_in_one_line(
    trained: bytes, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "c.safetensors"
    if damage != "missing":
        older = trained.replace(b"classifier 2", b"classifier 1")
        path.write_bytes(older if damage == "another version" else trained[:-100])
    with pytest.raises(UserError, match=r"c\.safetensors: cannot be read .*; delete it") as error:
        load_trained(path, CPU)
    assert "\n" not in str(error.value)
