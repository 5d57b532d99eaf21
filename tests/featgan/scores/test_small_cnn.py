import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featgan.errors import UserError
from featgan.gans.gan import Gan
from featgan.gans.settings import GanSettings
from featgan.scores import small_cnn
from featgan.scores.inception_score import Score
from featgan.scores.settings import ScoreSettings
from featgan.scores.small_cnn import Training, load_trained, network, pack, train_classifier, unpack
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


def test_it_learns_and_measures_on_images_held_out(trained: bytes) -> None:
    training, digest, _ = unpack(trained, "c")
    assert training.accuracy > 0.9
    assert (training.images, training.held_out, training.image_size) == (240, 36, 32)
    assert training.classes == tuple(CLASSES)
    assert len(digest) == 64


def test_the_score_of_a_generator_does_not_depend_on_the_batch_size(
    trained: bytes, tmp_path: Path
) -> None:
    (tmp_path / "c.safetensors").write_bytes(trained)
    classifier = load_trained(tmp_path / "c.safetensors", CPU)
    gan = Gan(GanSettings(width=8, latent=16), TrainingSettings(), 32, 0, CPU)
    with torch.no_grad():
        for weights in gan.generator.parameters():
            weights.mul_(6)  # untrained, it is grey whatever the noise
    latent = torch.randn((300, 16), generator=torch.Generator().manual_seed(0))
    scores = [
        Score(classifier, ScoreSettings(count=300, splits=3, batch_size=size)).measure(
            lambda start, stop: gan.generate(latent[start:stop])
        )
        for size in (1, 7, 64, 300)
    ]
    assert scores[0][0] > 1.005
    for score in scores[1:]:
        assert score == pytest.approx(scores[0], rel=1e-6, abs=1e-6)


def test_labels_without_meaning_are_not_learnt() -> None:
    images, labels = coloured(240)
    data = train_classifier(images, labels[::-1].copy(), CLASSES, seed=0, epochs=3)
    assert unpack(data, "c")[0].accuracy < 0.6


@pytest.mark.parametrize(("classes", "epochs"), [(2, 14), (60, 30)])
def test_more_classes_are_learnt_for_longer(classes: int, epochs: int) -> None:
    images = np.zeros((4, 3, 32, 32), np.uint8)
    data = train_classifier(images, np.arange(4) % 2, [*map(str, range(classes))], seed=0)
    assert unpack(data, "c")[0].epochs == epochs


def test_images_of_which_none_can_be_held_out_train_no_classifier() -> None:
    with pytest.raises(UserError, match=r"^score\.trained_on: 3 images .* 4 or more"):
        train_classifier(np.zeros((3, 3, 32, 32), np.uint8), np.arange(3) % 2, CLASSES, seed=0)


def test_the_file_is_a_function_of_the_arguments_alone(trained: bytes) -> None:
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    with torch.no_grad():
        again = train_classifier(*coloured(240), CLASSES, seed=3, epochs=3)
    assert again == trained
    other = train_classifier(*coloured(240), CLASSES, seed=4, epochs=3)
    assert unpack(other, "c")[1] != unpack(trained, "c")[1]


def test_training_leaves_no_trace() -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train_classifier(*coloured(40), CLASSES, seed=0, epochs=1, threads=threads + 1)
    assert torch.equal(before, torch.get_rng_state())
    assert threads == torch.get_num_threads()


def test_the_loaded_classifier_gives_the_logits_of_the_trained_one(
    trained: bytes, tmp_path: Path
) -> None:
    (tmp_path / "c.safetensors").write_bytes(trained)
    classifier = load_trained(tmp_path / "c.safetensors", CPU)
    model = nn.Sequential(*network(4))
    model.load_state_dict(unpack(trained, "c")[2])
    images = torch.from_numpy(coloured(20, seed=1)[0])
    with torch.no_grad():
        expected = model.eval()(images.float() / 127.5 - 1)
    torch.testing.assert_close(classifier(images), expected, rtol=1e-5, atol=1e-5)
    assert classifier.classes == 4
    assert classifier.name == f"trained-cnn2-{unpack(trained, 'c')[1][:6]}"
    assert "204 images of 4 classes" in classifier.description


def test_bf16_moves_the_logits_a_little(trained: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.safetensors").write_bytes(trained)
    images = torch.from_numpy(coloured(20, seed=1)[0])
    exact = load_trained(tmp_path / "c.safetensors", CPU)(images)
    half = load_trained(tmp_path / "c.safetensors", CPU, torch.bfloat16)(images)
    assert half.dtype == torch.float32
    assert 0 < ((half - exact).norm() / exact.norm()).item() < 0.03


@pytest.mark.parametrize("size", [16, 64, 128])
def test_images_of_other_sizes_are_averaged_to_32(
    trained: bytes, tmp_path: Path, size: int
) -> None:
    (tmp_path / "c.safetensors").write_bytes(trained)
    classifier = load_trained(tmp_path / "c.safetensors", CPU)
    grey: Tensor = torch.full((2, 3, size, size), 77, dtype=torch.uint8)
    expected = classifier(torch.full((2, 3, 32, 32), 77, dtype=torch.uint8))
    torch.testing.assert_close(classifier(grey), expected)


def damaged(data: bytes) -> list[bytes]:
    return [b"", b"short", data[:-100], data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]]


@pytest.mark.parametrize("case", range(4))
def test_a_damaged_file_is_refused(trained: bytes, tmp_path: Path, case: int) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(damaged(trained)[case])
    with pytest.raises(UserError, match=r"c\.safetensors: .*delete it") as error:
        load_trained(path, CPU)
    assert "\n" not in str(error.value)


def test_a_classifier_of_another_version_is_refused(
    trained: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, _, tensors = unpack(trained, "c")
    monkeypatch.setattr(small_cnn, "METADATA", "trained classifier 1")
    (tmp_path / "c.safetensors").write_bytes(pack(training, tensors))
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"c\.safetensors: .*another version.*delete it"):
        load_trained(tmp_path / "c.safetensors", CPU)


def test_a_missing_file_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"c\.safetensors: cannot be read \(No such file"):
        load_trained(tmp_path / "c.safetensors", CPU)


def test_what_is_packed_is_what_is_unpacked() -> None:
    training = Training(("a", "b"), 32, 10, 2, 0.5, 7, 1)
    data = pack(training, {"x": torch.arange(3.0)})
    assert unpack(data, "c")[0] == training
    assert torch.equal(unpack(data, "c")[2]["x"], torch.arange(3.0))
