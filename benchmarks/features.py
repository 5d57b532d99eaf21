"""Images a second of the feature count, as ratios in one run: `python benchmarks/features.py DIR`.

The limit is the bare forward pass on pixels in memory, with as many one-thread processes as
cores. `--keras PYTHON` names an interpreter with tensorflow-cpu: it makes a random VGG16, saves
it as `.h5`, and counts the same pixels, which also compares the counts. `--memory` shows that
the driver and the actors do not grow with the number of images.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import vgg16

from featgan import vgg
from featgan.features import FeatureCounter, FeatureSettings
from featgan.images import decode, square

KERAS = """
import json, sys, time
import numpy as np, keras
pixels, weights, counts = sys.argv[1:]
images = np.load(pixels).transpose(0, 2, 3, 1).astype("float32")
keras.utils.set_random_seed(0)
whole = keras.applications.VGG16(weights=None)
whole.save(weights)
model = keras.Model(whole.input, whole.get_layer("fc1").output)
images = keras.applications.vgg16.preprocess_input(images)
model.predict(images[:16], batch_size=16, verbose=0)
start = time.perf_counter()
outputs = model.predict(images, batch_size=16, verbose=0)
seconds = time.perf_counter() - start
np.save(counts, (outputs > 0).sum(1))
print(json.dumps({"seconds": seconds}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="JPEGs")
    parser.add_argument("--count", type=int, default=300, help="images to count")
    parser.add_argument("--size", type=int, default=224, help="input size")
    parser.add_argument("--keras", help="an interpreter that can import tensorflow")
    parser.add_argument("--memory", action="store_true", help="only memory, with a tiny network")
    options = parser.parse_args()
    if options.memory:
        memory()
        return
    files = sorted(path for path in options.folder.rglob("*") if path.suffix in (".jpg", ".jpeg"))
    files = (files * (1 + options.count // len(files)))[: options.count]
    pixels = np.stack([square(decode(file.read_bytes()), options.size) for file in files])
    rates = {"limit: bare forward, one process a core": limit(pixels)}
    rates["plain PyTorch loop, all cores"] = plain_loop(files, options.size)
    if options.keras:
        rates["Keras predict, batches of 16"] = keras(options.keras, pixels)
    rates |= ours(files, options.size)
    print(f"{len(files)} images at {options.size}x{options.size}, {os.cpu_count()} cores, fp32")
    print(f"| {'':42} | images/s | of the limit |\n|{'-' * 44}|---------:|-------------:|")
    first = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"| {name:42} | {rate:8.2f} | {rate / first:12.2f} |")


def limit(pixels: np.ndarray) -> float:
    """Forward passes of one-thread processes, each over its share, from a common start."""
    cores = os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(cores)
    results = context.Queue()
    shares = np.array_split(pixels, cores)
    workers = [context.Process(target=_forward, args=(s, barrier, results)) for s in shares]
    for worker in workers:
        worker.start()
    seconds = max(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    return len(pixels) / seconds


def _forward(pixels: np.ndarray, barrier: object, results: object) -> None:
    torch.set_num_threads(1)
    network = vgg.vgg16_to_fc1(vgg.load("random", 0))
    images = torch.from_numpy(pixels).float()
    with torch.inference_mode():
        network(images[:8])
        barrier.wait()  # type: ignore[attr-defined]
        start = time.perf_counter()
        for batch in images.split(8):
            (network(batch) > 0).sum(1)
        results.put(time.perf_counter() - start)  # type: ignore[attr-defined]


def plain_loop(files: list[Path], size: int) -> float:
    """As most people write it: torchvision's transforms, batches of 16, all threads."""
    network = vgg16(weights=None).eval()
    network.classifier = network.classifier[:1]
    prepare = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    def load(file: Path) -> torch.Tensor:
        return prepare(Image.open(file).convert("RGB"))

    counts = []
    with torch.no_grad():
        network(torch.zeros(16, 3, size, size))
        start = time.perf_counter()
        for index in range(0, len(files), 16):
            batch = torch.stack([load(file) for file in files[index : index + 16]])
            counts.extend((network(batch) > 0).sum(1).tolist())
    return len(files) / (time.perf_counter() - start)


def keras(python: str, pixels: np.ndarray) -> float:
    """Keras' rate; prints how many of its counts ours equal, from the very file it saved."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{name}" for name in ("pixels.npy", "vgg16.h5", "counts.npy")]
        np.save(paths[0], pixels)
        done = subprocess.run(
            [python, "-c", KERAS, *paths],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
        )
        settings = FeatureSettings(weights=paths[1], preprocessing="keras", input_size=224)
        theirs = np.load(paths[2])
        mine = FeatureCounter(settings, torch.device("cpu")).count(pixels).astype(int)
    differ = np.abs(mine - theirs)
    print(
        f"Keras' counts: {(differ == 0).sum()} of {len(pixels)} equal ours, the others differ by "
        f"at most {differ.max()}; counts {theirs.min()} to {theirs.max()}"
    )
    return len(pixels) / json.loads(done.stdout.splitlines()[-1])["seconds"]


def ours(files: list[Path], size: int) -> dict[str, float]:
    """The whole pipeline, table and pack written: from first to last result, and with start-up."""
    from harness import cluster
    from harness.features import prepare
    from harness.sources import FolderSource
    from harness.store import Store

    cluster.environment()
    told: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        folder.mkdir()
        for number, file in enumerate(files):  # not links: every copy is its own image
            data = file.read_bytes() + number.to_bytes(4, "big")  # nor equal bytes: none is known
            (folder / f"{number:06d}.jpg").write_bytes(data)
        cluster.connect()
        start = time.perf_counter()
        prepare(
            "photos",
            FolderSource(source="folder", path=str(folder)),
            FeatureSettings(weights="random", input_size=size),
            64,
            Store(f"{scratch}/store"),
            actors=None,
            gpu=False,
            max_rejected=0,
            progress=lambda _, done, __: told.append((time.perf_counter(), done)),
        )
        whole = len(files) / (time.perf_counter() - start)
        cluster.shutdown()
    # steady: both actors have delivered, and neither has run out
    middle = [(at, done) for at, done in told if 0.1 * len(files) <= done <= 0.9 * len(files)]
    steady = (middle[-1][1] - middle[0][1]) / (middle[-1][0] - middle[0][0])
    return {"ours, steady state": steady, "ours, start-up, table and pack counted": whole}


def memory() -> None:
    """Peak memory of driver and actors for 1,000, 10,000 and 100,000 small images."""
    for count in (1_000, 10_000, 100_000):
        command = [sys.executable, __file__, "--one-size", str(count)]
        subprocess.run(command, check=True)


def one_size(count: int) -> None:
    """Count `count` drawn digits with a network of one convolution, and print peak memory."""
    import ray

    from harness.features import prepare
    from harness.sources import IdxSource
    from harness.store import Store

    images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
    with tempfile.TemporaryDirectory() as scratch:
        header = b"\0\0\x08\x03" + np.array(images.shape, ">u4").tobytes()
        Path(scratch, "images").write_bytes(header + images.tobytes())
        ray.init(
            num_cpus=2,
            log_to_driver=False,
            logging_level="ERROR",
            include_dashboard=False,
            object_store_memory=500_000_000,
            runtime_env={"worker_process_setup_hook": tiny_network},
        )
        tiny_network()
        peaks: dict[str, float] = {}

        def watch(name: str, done: int, total: int | None) -> None:
            for process, megabytes in _actors(os.getpid()):
                peaks[process] = max(peaks.get(process, 0), megabytes)

        start = time.perf_counter()
        prepare(
            "noise",
            IdxSource(source="idx", images=f"{scratch}/images"),
            FeatureSettings(weights="random", input_size=32),
            32,
            Store(f"{scratch}/store"),
            actors=2,
            gpu=False,
            max_rejected=0,
            progress=watch,
        )
        seconds = time.perf_counter() - start
        ray.shutdown()
    held = ", ".join(f"{name} {peak:.0f} MB" for name, peak in sorted(peaks.items()))
    print(f"{count:7} images in {seconds:4.0f} s; peaks of memory not shared: {held}", flush=True)


def tiny_network() -> None:
    """Put a stand-in in VGG16's place: the pipeline around it is what is measured."""
    vgg.load = lambda weights, seed: {"0.weight": torch.randn(4096, 3, 8, 8) / 10}  # type: ignore[assignment]
    vgg.vgg16_to_fc1 = _tiny  # type: ignore[assignment]


def _tiny(state: vgg.State) -> Callable[[torch.Tensor], torch.Tensor]:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4096, 8, 32, bias=False), torch.nn.Flatten())
    network.load_state_dict(state)
    return network


def _actors(driver: int) -> list[tuple[str, float]]:
    """Unshared resident megabytes of the driver and of each of its counting actors, by name."""
    found = [("driver", _unshared(driver))]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                worker = (entry / "cmdline").read_bytes().startswith(b"ray::MapWorker")
                if worker and _parent(_parent(int(entry.name))) == driver:  # the raylet's parent
                    found.append((f"actor {entry.name}", _unshared(int(entry.name))))
            except OSError:  # it has ended
                continue
    return found


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _unshared(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one-size"]:
        one_size(int(sys.argv[2]))
    else:
        main()
