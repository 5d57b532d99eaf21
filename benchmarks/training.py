"""Training speed of a plain DCGAN loop, of featgan, and of the limit, in one run.

    python benchmarks/training.py            some minutes on two CPU cores
    python benchmarks/training.py --long     whole epochs, more rounds: up to an hour
    python benchmarks/training.py --gans     other GANs and stabilisers against DCGAN

All three train the same networks on batches of the same size. *Plain* is a common loop:
DataLoader, fp32, NCHW, separate passes, `.item()` at every step, cuDNN's fastest algorithms, and
two loading workers for a GPU. The *limit* is forward, backward and update of featgan's networks
on one fixed batch, with featgan's precision and deterministic algorithms, and on a GPU one
replayed CUDA graph. Rounds alternate; ratios are medians over rounds, speeds the best round's.
On one CPU thread, time is CPU time, which other work on the machine disturbs less. Memory is that
of a fresh process that only trains.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from featgan import precision
from featgan.batches import Images
from featgan.gans.cuda_graph import CudaGraph
from featgan.gans.dcgan import FromPoint, ToPoint
from featgan.gans.registry import build
from featgan.gans.settings import GanSettings
from featgan.settings import TrainingSettings
from featgan.staging.stages import plan
from featgan.trainer import StagedTrainer, set_process_flags

IMAGES = 512
RATE, BETAS = 2e-4, (0.5, 0.999)
MIB = 2**20


class Work(NamedTuple):
    """Sizes of a training step, and the steps of an epoch."""

    size: int
    width: int
    batch: int
    steps: int


WORK = {32: Work(32, 16, 32, 16), 64: Work(64, 32, 64, 4), 128: Work(128, 64, 32, 1)}
"""By image size. A step at 128 pixels takes seconds on a CPU, so epochs have few steps."""

Steps = Callable[[int], object]
"""Train a number of steps, a multiple of an epoch's."""


class Noise:
    """Random uint8 images in memory, read as an image pack's are."""

    def __init__(self, size: int) -> None:
        self.size = size
        shape = (IMAGES, 3, size, size)
        self.pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def __len__(self) -> int:
        return IMAGES

    def rows(self, rows: np.ndarray) -> np.ndarray:
        return self.pixels[rows]


class Transformed(Dataset):
    """The same images through torchvision's usual transforms."""

    def __init__(self, images: Images) -> None:
        self.pixels = images.rows(np.arange(len(images))).transpose(0, 2, 3, 1)
        steps = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.pixels[index])


class NoScore:
    """Stands where the score would: the trainer is never asked for one here."""

    class settings:  # noqa: N801
        count = 2


def ours(work: Work, device: torch.device, **gan: Any) -> Steps:
    """Return featgan's trainer, as a run uses it; `gan` are settings other than the width."""
    settings = TrainingSettings(batch_size=work.batch, learning_rate=RATE, epoch_steps=work.steps)
    trainer = StagedTrainer(
        Noise(work.size),
        np.ones(IMAGES),
        plan("conventional", 1, settings.stage_epochs),
        NoScore(),
        gan=GanSettings(width=work.width, **gan),
        training=settings,
        seed=0,
        device=device,
    )

    def train(steps: int) -> None:
        set_process_flags(True, trainer.gan.precision)
        trainer.train(steps // settings.epoch_steps)

    return train


def limit(work: Work, device: torch.device) -> Steps:
    """Forward, backward and update of our networks on a fixed batch, and nothing else."""
    gan = GanSettings(width=work.width)
    generator, discriminator = (
        network.to(device).to(memory_format=torch.channels_last)
        for network in build(gan, work.size, 0)
    )
    adam_g, adam_d = (
        torch.optim.Adam(
            network.parameters(), RATE, BETAS, fused=True, capturable=device.type == "cuda"
        )
        for network in (generator, discriminator)
    )
    latent = torch.randn((work.batch, gan.latent), device=device)
    real = torch.rand((work.batch, 3, work.size, work.size), device=device) * 2 - 1
    real = real.contiguous(memory_format=torch.channels_last)
    number = precision.resolve("auto", device)
    half = number != torch.float32

    def step() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            fake = generator(latent)
            on_real, on_fake = discriminator(real, fake.detach()).float().chunk(2)
        adam_d.zero_grad()
        (softplus(-on_real).mean() + softplus(on_fake).mean()).backward()
        adam_d.step()
        discriminator.requires_grad_(False)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            on_fake = discriminator(fake).float()
        adam_g.zero_grad()
        softplus(-on_fake).mean().backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        return on_fake

    if device.type == "cuda":
        graph = CudaGraph(torch.cuda.Stream())
        update = partial(graph, lambda _: step(), torch.Generator(device))
    else:
        update = step

    def train(steps: int) -> None:
        set_process_flags(True, number)
        for _ in range(steps):
            update()

    return train


def plain(work: Work, device: torch.device) -> Steps:
    """The well-known DCGAN loop around the same networks, made of plain layers."""
    generator, discriminator = build(GanSettings(width=work.width), work.size, 0)
    for layers in (generator.layers, discriminator.layers):
        for layer in layers:
            if isinstance(layer, FromPoint):
                layer.__class__ = nn.ConvTranspose2d
            elif isinstance(layer, ToPoint):
                layer.__class__ = nn.Conv2d
    generator, discriminator = generator.to(device), discriminator.to(device)
    adam_g = torch.optim.Adam(generator.parameters(), RATE, BETAS)
    adam_d = torch.optim.Adam(discriminator.parameters(), RATE, BETAS)
    loss = nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(work.batch, device=device), torch.zeros(work.batch, device=device)
    workers = 2 if device.type == "cuda" else 0  # of a CPU the one thread that is timed does all
    loader = DataLoader(
        Transformed(Noise(work.size)),
        work.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    batches = iter(loader)

    def step() -> float:
        nonlocal batches
        real = next(batches, None)
        if real is None:
            batches = iter(loader)
            real = next(batches)
        discriminator.zero_grad()
        loss_real = loss(discriminator(real.to(device)), ones)
        loss_real.backward()
        fake = generator(torch.randn(work.batch, 100, device=device))
        loss_fake = loss(discriminator(fake.detach()), zeros)
        loss_fake.backward()
        adam_d.step()
        generator.zero_grad()
        loss_g = loss(discriminator(fake), ones)
        loss_g.backward()
        adam_g.step()
        return loss_real.item() + loss_fake.item() + loss_g.item()

    def train(steps: int) -> None:
        set_process_flags(False, precision.resolve("auto", device))
        for _ in range(steps):
            step()

    return train


KINDS = {"plain": plain, "ours": ours, "limit": limit}
GANS: dict[str, dict[str, Any]] = {
    "dcgan": {},
    "dcgan, ema": {"ema": 0.999},
    "dcgan, augment": {"augment": ["color", "translation", "cutout"]},
    "dcgan, r1": {"r1": 1.0},
    "sngan": {"network": "sngan"},
    "wgan-gp": {"network": "wgan-gp"},
}


def compare(
    work: Work, device: torch.device, seconds: float, rounds: int
) -> dict[str, list[float]]:
    """Images a second of each kind in each round; a round takes each about `seconds`."""
    trained = {name: kind(work, device) for name, kind in KINDS.items()}
    counts = {}
    for name, steps in trained.items():
        taken = timed(steps, work.steps, device)
        if taken < seconds:  # the first steps are slower
            taken = timed(steps, work.steps, device)
        counts[name] = work.steps * max(1, round(seconds / taken))
    speeds: dict[str, list[float]] = {name: [] for name in trained}
    for _ in range(rounds):
        for name, steps in trained.items():
            taken = timed(steps, counts[name], device)
            speeds[name].append(counts[name] * work.batch / taken)
    return speeds


def timed(steps: Steps, count: int, device: torch.device) -> float:
    """Seconds that so many steps take; on one CPU thread, of CPU time."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    started = clock()
    steps(count)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def compare_gans(work: Work, device: torch.device, rounds: int) -> None:
    """Print each GAN's images a second, and its time for an image in DCGANs'."""
    # at least one update of G for the GANs that have one in five
    count = 40 if device.type == "cuda" else 5
    work = work._replace(steps=count)
    trained = {name: ours(work, device, **gan) for name, gan in GANS.items()}
    for steps in trained.values():
        steps(count)
    seconds = {name: [] for name in trained}
    for _ in range(rounds):
        for name, steps in trained.items():
            seconds[name].append(timed(steps, count, device))
    for name, taken in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(taken, seconds["dcgan"], strict=True))
        speed = count * work.batch / min(taken)
        print("| " + " | ".join([*map(str, work[:3]), name, f"{speed:.0f}", f"{ratio:.1f}"]) + " |")


def memory(kind: str, work: Work, threads: int) -> str:
    """Peak memory of a fresh process that trains a few steps: what PyTorch takes, and more."""
    command = [sys.executable, __file__, "--memory", kind, "--sizes", str(work.size)]
    command += ["--threads", str(threads)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def peak_memory(kind: str, work: Work, device: torch.device) -> str:
    """Train a few steps; this process' peak memory."""
    KINDS[kind](work._replace(steps=2), device)(2)
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_reserved() / MIB:.0f}"
    # Not getrusage's: that begins with the size of the process this one was started from.
    status = Path("/proc/self/status").read_text()
    return f"{int(status.partition('VmHWM:')[2].split()[0]) / 1024:.0f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="epochs of 512 images, more rounds")
    parser.add_argument("--sizes", type=int, nargs="+", choices=[*WORK])
    parser.add_argument("--threads", type=int, default=1, help="threads of a run (CPU)")
    parser.add_argument("--seconds", type=float, help="of each kind in each round")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--gans", action="store_true", help="compare GANs and stabilisers instead")
    parser.add_argument("--memory", choices=[*KINDS], help="print only this kind's peak memory")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sizes = options.sizes or ([32] if options.gans and not options.long else [*WORK])
    seconds = options.seconds or (4 if options.long else 2)
    rounds = options.rounds or (5 if options.long else 3)
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.memory:
        print(peak_memory(options.memory, WORK[sizes[0]], device))
        return
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU {torch.backends.cpu.get_cpu_capability()}, {options.threads} thread(s)"
    )
    number = precision.name(precision.resolve("auto", device))
    if options.gans:
        print(f"{where}; {number}; real images/s, and time for one in DCGANs'\n")
        print("| px | width | batch | GAN | images/s | time |")
        print("|---" * 6 + "|")
        for size in sizes:
            compare_gans(WORK[size], device, rounds)
        return
    print(f"{where}; ours and limit {number}, plain fp32; images/s, memory in MiB\n")
    print("| px | width | batch | plain | ours | limit | ours/limit | ours/plain | "
          "memory ours | memory plain |")  # fmt: skip
    print("|---" * 10 + "|")
    for size in sizes:
        work = WORK[size]
        if options.long:
            work = work._replace(steps=IMAGES // work.batch)
        speeds = compare(work, device, seconds, rounds)
        best = [f"{max(speeds[name]):.0f}" for name in KINDS]
        ratios = [
            statistics.median(a / b for a, b in zip(speeds["ours"], speeds[name], strict=True))
            for name in ("limit", "plain")
        ]
        cells = [*map(str, work[:3]), *best, *(f"{ratio:.2f}" for ratio in ratios)]
        cells += [memory(kind, work, options.threads) for kind in ("ours", "plain")]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
