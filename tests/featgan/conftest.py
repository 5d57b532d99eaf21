"""A run small enough to train in a test; only its size is not real."""

import numpy as np
import pytest
import torch

from featgan.gans.settings import GanSettings
from featgan.scores.metrics.statistics import FeatureStatistics
from featgan.scores.score import Score
from featgan.scores.settings import ScoreSettings
from featgan.settings import TrainingSettings
from featgan.staging.settings import PacingSettings, StageSettings
from featgan.staging.stages import plan
from featgan.trainer import StagedTrainer


class ArrayImages:
    """Images in memory, with the interface of an image pack."""

    def __init__(self, images):
        self.images, self.size = images, images.shape[-1]

    def __len__(self):
        return len(self.images)

    def rows(self, rows):
        return self.images[rows]


class LinearClassifier:
    """A fixed random linear map of the pixels: fast, and sensitive to every pixel."""

    name, classes, dtype, digest = "linear", 5, torch.float32, "0" * 64
    feature_network = None

    def __init__(self, device="cpu"):
        self.device = device

    def features_and_logits(self, images):
        pixels = images.to(self.device).float().flatten(1) / 255
        weights = torch.randn((pixels.shape[1], 5), generator=torch.Generator().manual_seed(0))
        return pixels, pixels @ weights.to(self.device) / 4


@pytest.fixture
def one_thread():
    """Use one thread: tensors this small gain nothing from more, and waiting threads spin."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_trainer(one_thread):
    def make(
        mode="ascending",
        size=32,
        seed=0,
        count=20,
        score_count=24,
        precision="fp32",
        width=2,
        device="cpu",
        staging=None,
        pacing=None,
        metrics=(),
        gan=None,
        left_out=0,
        **training,
    ):
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
        groups = (np.arange(count) % 3 + 1) * (np.arange(count) >= left_out)
        settings = {
            "stage_epochs": 4,
            "evaluate_every": 1,
            "batch_size": 8,
            "learning_rate": 0.02,
            "precision": precision,
            **training,
        }
        settings = TrainingSettings(**settings)
        staging = StageSettings(**staging or {})
        classifier = LinearClassifier(device)
        score = Score(
            classifier,
            ScoreSettings(
                classifier="trained",
                count=score_count,
                splits=2,
                batch_size=10,
                metrics=list(metrics),
            ),
            FeatureStatistics(classifier.features_and_logits(torch.from_numpy(images))[0])
            if metrics
            else None,
        )
        return StagedTrainer(
            ArrayImages(images),
            groups,
            plan(mode, 3, settings.stage_epochs, staging.change),
            score,
            gan=GanSettings(**{"width": width, "latent": 4} | (gan or {})),
            training=settings,
            seed=seed,
            device=torch.device(device),
            staging=staging,
            pacing=PacingSettings(**pacing or {}),
            image_values=np.arange(count),
            labels=np.array(["round", "square"])[np.arange(count) % 2],
        )

    return make


@pytest.fixture
def outcome():
    """Return a function from a trainer to its state without timings."""

    def of(trainer):
        state = trainer.state()
        for evaluation in state["evaluations"]:
            del evaluation["images_per_second"]
        del state["seconds"]
        return state

    return of


@pytest.fixture
def same():
    """Return a function that compares two nested states bit by bit."""

    def compare(a, b):
        if isinstance(a, torch.Tensor):
            return torch.equal(a.cpu(), b.cpu()) and a.dtype == b.dtype
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(compare(a[key], b[key]) for key in a)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(compare, a, b))
        return a == b or (a != a and b != b)

    return compare
