"""Memory of the feature process as images grow: `python benchmarks/feature_memory.py [COUNT …]`.

Counts so many files of 16 px with a network of one convolution in VGG16's place, for the
pipeline around it is what is measured. Prints the peaks of the driver and of its counting actors,
without what they share with other processes (images on their way lie in Ray's object store, whose
size is fixed), and what an image more costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from featgan.features import vgg
from featgan.features.settings import FeatureSettings

SIDE = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--alone", action="store_true", help="one count, in this very process")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(peaks(options.counts[0])))
        return
    print("| images | seconds | driver MB | actors MB |\n|---:|---:|---:|---:|")
    drivers = []
    for count in options.counts:
        command = [sys.executable, __file__, "--alone", str(count)]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        actors = ", ".join(f"{peak:.0f}" for peak in told["actors"])
        driver = f"{told['before']:.0f} to {told['driver']:.0f}"
        print(f"| {count:,} | {told['seconds']:.0f} | {driver} | {actors} |", flush=True)
        drivers.append(told["driver"])
    more = options.counts[-1] - options.counts[0]
    growth = (drivers[-1] - drivers[0]) * 2**20 / max(more, 1)
    print(f"an image more costs the driver {growth:.0f} bytes")


def peaks(count: int) -> dict[str, object]:
    """Peak megabytes of the driver (and before it began) and of each actor, and seconds."""
    from harness.counting.build import prepare
    from harness.sources.base import FolderSource
    from harness.storage.store import Store

    with tempfile.TemporaryDirectory() as scratch:
        draw(count, Path(scratch, "images"))
        import ray

        ray.init(
            address="local",
            num_cpus=2,
            log_to_driver=False,
            logging_level="ERROR",
            include_dashboard=False,
            object_store_memory=500_000_000,
            runtime_env={"worker_process_setup_hook": tiny_network},
        )
        tiny_network()

        found: dict[str, float] = {}
        done = threading.Event()
        watcher = threading.Thread(target=watch, args=(found, done))
        before = unshared(os.getpid())
        start = time.perf_counter()
        watcher.start()
        prepare(
            "noise",
            FolderSource(source="folder", path=f"{scratch}/images"),
            FeatureSettings(weights="random", input_size=32),
            SIDE,
            Store(f"{scratch}/store"),
            actors=2,
            gpu=False,
            max_rejected=0,
            progress=lambda *_: None,
        )
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        ray.shutdown()
    driver = found.pop(str(os.getpid()))
    actors = sorted(found.values())
    return {"before": before, "driver": driver, "actors": actors, "seconds": seconds}


def draw(count: int, folder: Path) -> None:
    """Noise as PPM files, a thousand in a folder; no two are equal."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE * SIDE * 3), np.uint8)
    for index, image in enumerate(pixels):
        home = folder / f"{index // 1000:03d}"
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{index:06d}.ppm").write_bytes(b"P6 %d %d 255\n" % (SIDE, SIDE) + image.tobytes())


def tiny_network() -> None:
    """Put a stand-in in VGG16's place, in the driver and in every worker."""
    vgg.load = lambda weights, seed: {"0.weight": torch.randn(4096, 3, 8, 8) / 10}  # type: ignore[assignment]
    vgg.vgg16_to_fc1 = _tiny  # type: ignore[assignment]


def _tiny(state: vgg.State) -> torch.nn.Module:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4096, 8, 32, bias=False), torch.nn.Flatten())
    network.load_state_dict(state)
    return network


def watch(found: dict[str, float], done: threading.Event) -> None:
    """Keep the peaks of this process and of its counting actors until `done`."""
    while not done.wait(0.05):
        for process in [str(os.getpid()), *actors()]:
            found[process] = max(found.get(process, 0.0), unshared(process))


def actors() -> list[str]:
    """This driver's counting actors: children of the raylet that is its child."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            counts = (entry / "cmdline").read_bytes().startswith(b"ray::MapWorker")
            if counts and parent(parent(entry.name)) == str(os.getpid()):
                found.append(entry.name)
        except OSError:  # it has ended
            continue
    return found


def parent(process: str) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]


def unshared(process: str | int) -> float:
    """Resident megabytes that no other process shares; 0 for one that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
