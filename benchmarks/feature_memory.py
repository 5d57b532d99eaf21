"""Memory of feature counting as the number of images grows.

    python benchmarks/feature_memory.py [COUNT ...]     1,000 and 50,000 images: some minutes
    python benchmarks/feature_memory.py --long          up to a million images

Counts files of 16 px with a network of one convolution instead of VGG16, since the pipeline around
it is measured. Prints the peak memory of the driver and of its counting actors, without what they
share with other processes (Ray's object store has a fixed size), and the driver's bytes for each
additional image.
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

from featgan.features import network
from featgan.features.settings import FeatureSettings
from featgan.weights import State
from harness.counting.build import DataSetBuilder
from harness.sources import FolderSource
from harness.storage.store import Store

SIDE = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", type=int, nargs="*")
    parser.add_argument("--long", action="store_true", help="up to a million images")
    parser.add_argument("--alone", action="store_true", help="one count, in this process")
    options = parser.parse_args()
    long = [1_000, 10_000, 100_000, 1_000_000]
    options.counts = options.counts or (long if options.long else [1_000, 50_000])
    if options.alone:
        print(json.dumps(peaks(options.counts[0])))
        return
    print("| images | seconds | driver MB | actors MB |\n|---:|---:|---:|---:|", flush=True)
    drivers = []
    for count in options.counts:
        command = [sys.executable, __file__, "--alone", str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        found = json.loads(done.stdout)
        actors = ", ".join(f"{peak:.0f}" for peak in found["actors"])
        driver = f"{found['before']:.0f} to {found['driver']:.0f}"
        print(f"| {count:,} | {found['seconds']:.0f} | {driver} | {actors} |", flush=True)
        drivers.append(found["driver"])
    more = options.counts[-1] - options.counts[0]
    growth = (drivers[-1] - drivers[0]) * 2**20 / max(more, 1)
    print(f"each additional image costs the driver {growth:.0f} bytes")


def peaks(count: int) -> dict[str, object]:
    """Return peak megabytes of the driver (and before it began) and of each actor, and seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        draw(count, Path(scratch, "images"))
        import ray  # after harness, which sets its environment

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
        before = unshared(os.getpid())
        start = time.perf_counter()
        threading.Thread(target=watch, args=(found,), daemon=True).start()
        DataSetBuilder(
            "noise",
            FolderSource(source="folder", path=f"{scratch}/images"),
            FeatureSettings(weights="random", input_size=32),
            SIDE,
            Store(f"{scratch}/store"),
            actors=2,
            gpu=False,
            max_rejected=0,
            progress=lambda *_: None,
        ).build()
        seconds = time.perf_counter() - start
        highest = found.copy()
        ray.shutdown()
    driver = highest.pop(str(os.getpid()))
    actors = sorted(highest.values())
    return {"before": before, "driver": driver, "actors": actors, "seconds": seconds}


def draw(count: int, folder: Path) -> None:
    """Write noise as PPM files, a thousand in a folder; no two are equal."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE * SIDE * 3), np.uint8)
    for index, image in enumerate(pixels):
        home = folder / f"{index // 1000:03d}"
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{index:06d}.ppm").write_bytes(b"P6 %d %d 255\n" % (SIDE, SIDE) + image.tobytes())


def tiny_network() -> None:
    """Put a stand-in in VGG16's place, in the driver and in every worker."""
    network.load = lambda settings: {"0.weight": torch.randn(4096, 3, 8, 8) / 10}  # type: ignore[assignment]
    network.build = _tiny  # type: ignore[assignment]


def _tiny(settings: FeatureSettings, state: State) -> torch.nn.Module:
    tiny = torch.nn.Sequential(torch.nn.Conv2d(3, 4096, 8, 32, bias=False), torch.nn.Flatten())
    tiny.load_state_dict(state)
    return tiny


def watch(found: dict[str, float]) -> None:
    """Keep the peaks of this process and of its counting actors."""
    while True:
        time.sleep(0.05)
        for process in [str(os.getpid()), *actors()]:
            found[process] = max(found.get(process, 0.0), unshared(process))


def actors() -> list[str]:
    """Return this driver's counting actors: children of the raylet that is its child."""
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
    """Return a process' resident megabytes that no other shares; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
