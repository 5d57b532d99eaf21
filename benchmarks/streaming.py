"""Speed of training on more images than memory holds, against the same images in memory.

    python benchmarks/streaming.py               60,000 images of 64 px: some minutes
    python benchmarks/streaming.py --long        a million: 12 GB on disk, and in memory

Writes noise into shards as counting does, in an order that has nothing to do with the table's, and
reads it once, so that the page cache is warm. Then epochs of 64 images a batch stream from the
memory-mapped shards, and afterwards from memory: by the loader alone, and in training steps of a
DCGAN of width 32. On a CPU everything runs on one thread, and time is CPU time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np
import torch

from featgan import batches
from featgan.gans.settings import GanSettings
from featgan.images.pack import ImagePack, shard_bytes
from featgan.settings import TrainingSettings
from featgan.staging.stages import plan
from featgan.trainer import StagedTrainer, set_process_flags
from harness.counting.shards import block_length

SIDE, BATCH, STEPS = 64, 64, 1000
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
clock = time.process_time if DEVICE.type == "cpu" else time.perf_counter


class NoScore:
    """Stands where the score would: the trainer is never asked for one here."""

    class settings:  # noqa: N801
        count = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="a million images")
    parser.add_argument("--folder", help="where the shards are written (default: /tmp)")
    options = parser.parse_args()
    count = 1_000_000 if options.long else 60_000
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        pack = write(count, Path(folder))
        rates = dict[str, tuple[float, float]]()
        for name, room in (("from shards", 0), ("in memory", 2**40)):
            batches.RESIDENT_BYTES, batches.RESIDENT_SHARE = room, 1.0 if room else 0.0
            rates[name] = loader(pack), training(pack)
            print(f"{count:,} images {name}: loader {rates[name][0]:.0f} images/s, ", end="")
            print(f"training {rates[name][1]:.1f}", flush=True)
    shards, memory = rates.values()
    print(f"ratio: loader {shards[0] / memory[0]:.2f}, training {shards[1] / memory[1]:.2f}")


def write(count: int, folder: Path) -> ImagePack:
    random, length = np.random.default_rng(0), block_length(count, SIDE)
    paths, lengths = list[Path](), list[int]()
    for start in range(0, count, length):
        lengths.append(min(length, count - start))
        pixels = random.integers(0, 256, (lengths[-1], 3, SIDE, SIDE), np.uint8)
        paths.append(folder / f"{start:08d}.npy")
        paths[-1].write_bytes(shard_bytes(pixels))
    return ImagePack(paths, lengths, random.permutation(count))


def loader(pack: ImagePack) -> float:
    """Return the images a second of an epoch's batches, after a first epoch."""
    settings = TrainingSettings(batch_size=BATCH)
    groups, stage = np.ones(len(pack)), plan("conventional", 1, settings.stage_epochs)[0]
    loaded = batches.Batches(pack, groups, settings, 0, DEVICE)
    for epoch in (0, 1):
        start = clock()
        last = deque(loaded.epoch(stage, epoch), 1)
        last[0][0].sum().item()
    return len(pack) / (clock() - start)


def training(pack: ImagePack) -> float:
    """Return the images a second of training steps, after as many others."""
    steps = STEPS if DEVICE.type == "cuda" else STEPS // 50
    settings = TrainingSettings(batch_size=BATCH, epoch_steps=steps)
    trainer = StagedTrainer(
        pack,
        np.ones(len(pack)),
        plan("conventional", 1, settings.stage_epochs),
        NoScore(),  # type: ignore[arg-type]
        gan=GanSettings(width=32),
        training=settings,
        seed=0,
        device=DEVICE,
    )
    set_process_flags(True, trainer.gan.precision)
    trainer.train(1)
    start = clock()
    trainer.train(1)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return steps * BATCH / (clock() - start)


if __name__ == "__main__":
    main()
