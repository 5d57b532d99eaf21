"""Images a second of the feature count, as ratios in one run.

    python benchmarks/features.py DIR            some minutes on two CPU cores
    python benchmarks/features.py DIR --long     five times the images

The limit is the bare forward pass on pixels in memory, by one-thread processes on all cores, or
on the GPU. It takes turns, piece by piece, with a plain PyTorch loop and with Keras (`--keras
PYTHON` names an interpreter that has tensorflow-cpu). Keras' random VGG16 is saved as `.h5` and
counts the same pixels, so that the counts are compared too. Then the whole pipeline counts
`--count` images between two more turns of the limit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import vgg16

from featgan.features import network
from featgan.features.counter import FeatureCounter
from featgan.features.settings import FeatureSettings
from featgan.images.decode import decode, square
from harness.cluster import connect
from harness.counting.build import DataSetBuilder
from harness.sources import FolderSource
from harness.storage.store import Store

LIMIT, PLAIN, KERAS = "limit: bare forward pass", "plain PyTorch loop", "Keras predict"
CORES = os.cpu_count() or 1
GPU = torch.cuda.is_available()
RANDOM = FeatureSettings(weights="random")

Contender = Callable[[list[Path]], float]
"""Count these files and return the seconds it took."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="JPEGs")
    parser.add_argument("--long", action="store_true", help="five times the images and turns")
    parser.add_argument("--count", type=int, default=300, help="images of the pipeline's run")
    parser.add_argument("--pieces", type=int, default=2, help="turns of the limit and its peers")
    parser.add_argument("--piece", type=int, default=32, help="images of a turn")
    parser.add_argument("--keras", help="an interpreter that can import tensorflow")
    options = parser.parse_args()
    if options.long:
        options.count, options.pieces = 5 * options.count, 5 * options.pieces
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    files = sorted(path for path in options.folder.rglob("*") if path.suffix in (".jpg", ".jpeg"))
    starts = range(0, options.pieces * options.piece, options.piece)
    pieces = [files[start : start + options.piece] for start in starts]
    with ExitStack() as stack, tempfile.TemporaryDirectory() as scratch:
        turns: dict[str, Contender] = {LIMIT: stack.enter_context(limit()), PLAIN: plain_loop()}
        if options.keras:
            turns[KERAS] = stack.enter_context(keras(options.keras, Path(scratch)))
        print(
            f"{options.count} images ({options.pieces * options.piece} for the peers), 224x224, "
            f"fp32, {torch.cuda.get_device_name() if GPU else f'{CORES} cores'}; "
            f"ratios: medians of turns\n"
            f"| {'':40} | images/s | of the limit |\n|{'-' * 42}|---------:|-------------:|"
        )
        seconds = [{name: count(piece) for name, count in turns.items()} for piece in pieces]
        for name in turns:
            rate = median(options.piece / turn[name] for turn in seconds)
            row(name, rate, median(turn[LIMIT] / turn[name] for turn in seconds))
        same = same_counts(pieces, Path(scratch)) if options.keras else ""
        around = [turns[LIMIT](pieces[0])]
        whole, steady, busy = ours((files * (1 + options.count // len(files)))[: options.count])
        around.append(turns[LIMIT](pieces[0]))
    bound = 2 * options.piece / sum(around)
    row("the limit before and after featgan", bound, 1.0)
    row("featgan, steady state", steady, steady / bound)
    row("featgan with start, table and pack", whole, whole / bound)
    if GPU:
        print(f"the GPU was busy {busy:.0%} of the steady state, by its driver's counter")
    print(same)


def row(name: str, rate: float, share: float) -> None:
    print(f"| {name:40} | {rate:8.2f} | {share:12.2f} |")


def squares(files: list[Path]) -> np.ndarray:
    return np.stack([square(decode(file.read_bytes()), 224) for file in files])


@contextmanager
def limit() -> Iterator[Contender]:
    """Forward passes in processes that hold their network, each over its share of the pixels."""
    processes = 1 if GPU else CORES
    with multiprocessing.get_context("spawn").Pool(processes, _hold_network) as pool:

        def count(files: list[Path]) -> float:
            shares = np.array_split(squares(files), processes)
            return max(pool.map(_forward, shares, chunksize=1))

        yield count


def _hold_network() -> None:
    global _network
    torch.set_num_threads(1)
    _network = network.build(RANDOM, network.load(RANDOM)).to("cuda" if GPU else "cpu")


@torch.inference_mode()
def _forward(pixels: np.ndarray) -> float:
    """Seconds of the passes alone, in our batches."""
    size = 128 if GPU else 8
    layout = torch.contiguous_format if GPU else torch.channels_last
    images = torch.from_numpy(pixels).to("cuda" if GPU else "cpu").float()
    images = images.contiguous(memory_format=layout)
    with torch.backends.cudnn.flags(True, False, deterministic=True, allow_tf32=False):
        _network(images[:size]).sum().item()
        start = time.perf_counter()
        counts = [(_network(batch) > 0).sum(1) for batch in images.split(size)]
        torch.cat(counts).tolist()
        return time.perf_counter() - start


def plain_loop() -> Contender:
    """As most people write it: torchvision's transforms, batches of 16, all threads."""
    device = "cuda" if GPU else "cpu"
    plain = vgg16(weights=None, init_weights=False).eval().to(device)
    plain.load_state_dict(network.load(RANDOM), strict=False)
    plain.classifier = plain.classifier[:1]
    prepare = transforms.Compose(
        [
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    @torch.no_grad()
    def count(files: list[Path]) -> float:
        start = time.perf_counter()
        for index in range(0, len(files), 16):
            images = [Image.open(file).convert("RGB") for file in files[index : index + 16]]
            batch = torch.stack([prepare(image) for image in images]).to(device)
            (plain(batch) > 0).sum(1).tolist()
        return time.perf_counter() - start

    return count


KERAS_LOOP = """
import sys, time
import numpy as np, keras
folder = sys.argv[1]
keras.utils.set_random_seed(0)
whole = keras.applications.VGG16(weights=None)
whole.save(f"{folder}/vgg16.h5")
model = keras.Model(whole.input, whole.get_layer("fc1").output)
for name in map(str.strip, sys.stdin):
    images = np.load(f"{folder}/{name}.npy").transpose(0, 2, 3, 1).astype("float32")
    images = keras.applications.vgg16.preprocess_input(images)
    model.predict(images[:16], batch_size=16, verbose=0)
    start = time.perf_counter()
    outputs = model.predict(images, batch_size=16, verbose=0)
    seconds = time.perf_counter() - start
    np.save(f"{folder}/{name}-counts.npy", (outputs > 0).sum(1))
    print("seconds", seconds, flush=True)
"""


@contextmanager
def keras(python: str, folder: Path) -> Iterator[Contender]:
    """Yield Keras' `predict`, in a process that leaves its weights and counts in `folder`."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    with subprocess.Popen(
        [python, "-c", KERAS_LOOP, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | quiet,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def count(files: list[Path]) -> float:
            np.save(folder / f"{files[0].stem}.npy", squares(files))
            print(files[0].stem, file=process.stdin, flush=True)
            answer = next(line for line in process.stdout if line.startswith("seconds"))
            return float(answer.split()[1])

        yield count
        process.stdin.close()


def same_counts(pieces: list[list[Path]], folder: Path) -> str:
    """Compare Keras' counts with featgan's, made with the file that Keras saved."""
    settings = FeatureSettings(weights=str(folder / "vgg16.h5"), preprocessing="keras")
    counter = FeatureCounter(settings, torch.device("cuda" if GPU else "cpu"))
    names = [piece[0].stem for piece in pieces]
    ours = np.concatenate([counter.count(np.load(folder / f"{name}.npy")) for name in names])
    theirs = np.concatenate([np.load(folder / f"{name}-counts.npy") for name in names])
    differ = np.abs(ours - theirs)
    return (
        f"Keras' counts: {(differ == 0).sum()} of {len(ours)} equal ours, the others differ by at "
        f"most {differ.max()}; counts {theirs.min()} to {theirs.max()}"
    )


def ours(files: list[Path]) -> tuple[float, float, float]:
    """Return the pipeline's images a second with start-up and without, and the GPU's busy share.

    Table and pack are written.
    """
    done_at: list[tuple[float, int]] = []
    used: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        folder.mkdir()
        for number, file in enumerate(files):  # different bytes, so that every copy is counted
            data = file.read_bytes() + number.to_bytes(4, "big")
            (folder / f"{number:06d}.jpg").write_bytes(data)
        if GPU:
            threading.Thread(target=watch, args=(used,), daemon=True).start()
        start = time.perf_counter()
        connect.connect()
        DataSetBuilder(
            "photos",
            FolderSource(source="folder", path=str(folder)),
            FeatureSettings(weights="random"),
            64,
            Store(f"{scratch}/store"),
            actors=None,
            gpu=GPU,
            max_rejected=0,
            progress=lambda _, done, __: done_at.append((time.perf_counter(), done)),
        ).build()
        whole = len(files) / (time.perf_counter() - start)
        connect.shutdown()
    # steady: all actors have delivered, and none has run out
    middle = [(at, done) for at, done in done_at if 0.1 * len(files) <= done <= 0.9 * len(files)]
    (begun, first), (over, last) = middle[0], middle[-1]
    shares = [share for at, share in used if begun <= at <= over]
    busy = sum(shares) / (100 * max(1, len(shares)))
    return whole, (last - first) / (over - begun), busy


def watch(used: list[tuple[float, int]]) -> None:
    """Note what percentage of the time before a moment the GPU was at work."""
    while True:
        time.sleep(0.2)
        used.append((time.perf_counter(), torch.cuda.utilization()))


if __name__ == "__main__":
    main()
