"""Scoring speed of the bare classifier, of featgan, and of torch-fidelity, in one run.

    python benchmarks/scoring.py [--weights FILE]     some minutes on two CPU cores
    python benchmarks/scoring.py --long               more images and rounds

All three score the same generator's images with the same weights, at the same batch size; rounds
alternate and the fastest of each counts. The limit is the bare network on one ready batch plus
the generator alone; loading is not timed. Without `--weights`, Inception-v3 has random weights:
the speed is the same. `off by` is the score over that of featgan in fp32, less 1. On a GPU the
others convolve in exact fp32, as featgan does; `--tf32` leaves PyTorch's default. With
`--threads 1` on a CPU, time is CPU time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3 as fidelity
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.generative_model_modulewrapper import GenerativeModelModuleWrapper
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.utils import get_featuresdict_from_generative_model

from featgan import precision
from featgan.gans.registry import build, to_uint8
from featgan.gans.settings import GanSettings
from featgan.scores.classifiers import Classifier, load_inception
from featgan.scores.score import Score
from featgan.scores.settings import ScoreSettings
from featgan.scores.small_cnn import load_trained, network, prepare, read_trained, train_classifier

SEED = 2020
"""torch-fidelity draws a generator's noise with it."""
SPLITS = 4
LATENT = 100


class Images(nn.Module):
    """A DCGAN generator whose images are as they would be saved."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.generator = build(GanSettings(width=width, latent=LATENT), size, seed=0)[0]
        # Untrained images are all but grey. Fitted norms and a stronger last layer vary them.
        with torch.no_grad():
            self.generator.layers[-2].weight *= 20
            for _ in range(20):
                self.generator(torch.randn(64, LATENT))
        self.eval()

    def forward(self, noise: Tensor) -> Tensor:
        return to_uint8(self.generator(noise))


class SmallCnn(FeatureExtractorBase):
    """The trained classifier's network as a torch-fidelity extractor, nothing folded."""

    def __init__(self, path: Path) -> None:
        super().__init__("small-cnn", ["logits"])
        header, tensors, _ = read_trained(path)
        self.model = nn.Sequential(*network(len(header["classes"]))).eval()
        self.model.load_state_dict(tensors)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.model(prepare(images)),)

    @staticmethod
    def get_provided_features_list() -> tuple[str]:
        return ("logits",)


def random_inception(images: Tensor) -> fidelity.FeatureExtractorInceptionV3:
    """Return torch-fidelity's extractor with random weights and classes that separate `images`."""
    with (
        mock.patch.object(fidelity.FeatureExtractorInceptionV3, "load_state_dict"),
        mock.patch.object(fidelity, "load_state_dict_from_url"),
    ):
        extractor = fidelity.FeatureExtractorInceptionV3("random", ["2048"])
    features = extractor(images)[0]
    mean = nn.functional.normalize(features.mean(0), dim=0)
    weight = extractor.fc.weight.detach()
    weight -= (weight @ mean)[:, None] * mean
    weight *= 2 / (features @ weight.T).std()
    return extractor


def peak_memory(device: torch.device) -> float:
    """Peak of this process's memory in MB (of the device's on a GPU) since it was reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def seconds(work: Callable[[], object], device: torch.device) -> float:
    own = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if own else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def compare(
    title: str,
    classifier: Classifier,
    theirs: FeatureExtractorBase,
    size: int,
    width: int,
    count: int,
    batch: int,
    rounds: int,
    half: Callable[[], Classifier],
) -> None:
    """Print the table's rows of one classifier."""
    device = classifier.device
    images = Images(size, width).to(device).to(memory_format=torch.channels_last)
    noise = torch.from_numpy(np.random.RandomState(SEED).randn(count, LATENT)).float().to(device)
    theirs = theirs.to(device)

    def generate(start: int, stop: int) -> Tensor:
        with torch.inference_mode():
            return images(noise[start:stop])

    settings = ScoreSettings(count=count, splits=SPLITS, batch_size=batch)
    ready = classifier.prepare(generate(0, batch)).to(
        classifier.dtype, memory_format=classifier.layout
    )
    scores: dict[str, float] = {}

    def bare() -> None:
        with torch.inference_mode():
            for _ in range(0, count, batch):
                classifier.head(classifier.body(ready).float())

    def generator_alone() -> None:
        for start in range(0, count, batch):
            generate(start, min(start + batch, count))

    def ours(classifier: Classifier = classifier, name: str = "featgan") -> None:
        scores[name] = Score(classifier, settings).evaluate(generate).score

    def peer() -> None:
        model = GenerativeModelModuleWrapper(images, LATENT, "normal", 0, cuda=False)
        features = get_featuresdict_from_generative_model(
            model, theirs, count, batch, device.type == "cuda", SEED, verbose=False
        )
        score = isc_features_to_metric(next(iter(features.values())), SPLITS)
        scores["torch-fidelity"] = score["inception_score_mean"]

    works: dict[str, Callable[[], object]] = {
        "bare classifier": bare,
        "generator alone": generator_alone,
        "featgan": ours,
        "torch-fidelity": peer,
    }
    low = half()
    works["featgan bf16"] = lambda: ours(low, "featgan bf16")
    times: dict[str, list[float]] = {name: [] for name in works}
    memory: dict[str, float] = {}
    for round_ in range(rounds):
        for name, work in works.items():
            if round_ and name.endswith("bf16") and not precision.has_bf16(device):
                continue  # emulated: its deviation counts, its speed does not
            reset_peak_memory(device)
            times[name].append(seconds(work, device))
            memory[name] = max(memory.get(name, 0), peak_memory(device))
    best = {name: min(values) for name, values in times.items()}
    limit = best["bare classifier"] + best["generator alone"]
    print(f"\n{title}: {size} px, {count} images in batches of {batch}, {device}")
    print("| | images/s | of the limit | against torch-fidelity | peak MB | score | off by |")
    print("|---|---|---|---|---|---|---|")
    print(f"| bare classifier | {count / best['bare classifier']:.1f} | | | | | |")
    print(f"| generator alone | {count / best['generator alone']:.1f} | | | | | |")
    print(f"| the limit: both | {count / limit:.1f} | 1.00 | | | | |")
    for name, score in scores.items():
        print(
            f"| {name} | {count / best[name]:.1f} | {limit / best[name]:.2f} "
            f"| {best['torch-fidelity'] / best[name]:.2f} | {memory[name]:.0f} | {score:.7f} "
            f"| {score / scores['featgan'] - 1:+.1e} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--long", action="store_true", help="three times the images and rounds")
    parser.add_argument("--count", type=int, default=32, help="images for Inception-v3")
    parser.add_argument("--small-count", type=int, default=2000, help="images for the small CNN")
    parser.add_argument("--batch", type=int, default=16, help="batch size for Inception-v3")
    parser.add_argument("--small-batch", type=int, default=50, help="batch size for the small CNN")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--tf32", action="store_true", help="let all but featgan round fp32 to TF32 on a GPU"
    )
    parser.add_argument("--weights", help="torch-fidelity's Inception weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.long:
        options.count, options.rounds = 3 * options.count, 3 * options.rounds
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = options.tf32
    device = torch.device(options.device)
    if not precision.has_bf16(device):
        print(f"{device} has no bf16 instructions: what bf16 changes is shown, not its speed")

    with tempfile.TemporaryDirectory() as folder:
        noise = torch.from_numpy(np.random.RandomState(SEED).randn(16, LATENT)).float()
        with torch.inference_mode():
            sample = Images(64, 32)(noise)
        path = options.weights or str(Path(folder, "inception.pth"))
        if options.weights is None:
            torch.save(random_inception(sample).state_dict(), path)
        compare(
            "Inception-v3",
            load_inception(path, device),
            fidelity.FeatureExtractorInceptionV3(
                "theirs", ["logits_unbiased"], feature_extractor_weights_path=path
            ),
            size=64,
            width=32,
            count=options.count,
            batch=options.batch,
            rounds=options.rounds,
            half=lambda: load_inception(path, device, torch.bfloat16),
        )

        digits = load_digits()
        images = np.kron(digits.images * 15.9, np.ones((1, 4, 4))).astype(np.uint8)
        small = Path(folder, "small.safetensors")
        started = time.process_time()
        small.write_bytes(
            train_classifier(
                np.repeat(images[:1200, None], 3, axis=1),
                digits.target[:1200],
                [str(digit) for digit in range(10)],
                seed=0,
            )
        )
        print(
            f"\nThe CNN, trained in {time.process_time() - started:.1f} s of one thread:", end=" "
        )
        print(f"{read_trained(small)[0]['accuracy']:.0%} right on held-out digits")
        compare(
            "trained CNN",
            load_trained(small, device),
            SmallCnn(small),
            size=32,
            width=16,
            count=options.small_count,
            batch=options.small_batch,
            rounds=2 * options.rounds,
            half=lambda: load_trained(small, device, torch.bfloat16),
        )


if __name__ == "__main__":
    main()
