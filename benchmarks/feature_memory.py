"""Speed and memory of feature counting as the number of images grows.

    python benchmarks/feature_memory.py [COUNT ...]     1,000 and 20,000 images: some minutes
    python benchmarks/feature_memory.py --source tar    the same from tar shards; or parquet
    python benchmarks/feature_memory.py --long          up to a million images

Counts images of 16 px with a network of one convolution instead of VGG16, since the pipeline around
it is measured. Prints images a second from Ray's start to the finished data set, the seconds that
do not depend on their number, the bytes written for an image, the peak memory of the driver and of
its counting actors, without what they share with other processes (Ray's object store has a fixed
size), and the driver's bytes for each additional image.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from featgan.features import network
from featgan.features.settings import FeatureSettings
from featgan.weights import State
from harness.counting.build import DataSetBuilder
from harness.sources import ArchiveSource, FolderSource, ParquetSource, SourceSettings
from harness.storage.store import Store

SIDE = 16
SHARD = 10_000
"""Images in a Parquet or tar file."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", type=int, nargs="*")
    parser.add_argument("--long", action="store_true", help="up to a million images")
    parser.add_argument("--source", choices=["folder", "parquet", "tar"], default="folder")
    parser.add_argument("--alone", action="store_true", help="one count, in this process")
    options = parser.parse_args()
    long = [1_000, 10_000, 100_000, 1_000_000]
    options.counts = options.counts or (long if options.long else [1_000, 20_000])
    if options.alone:
        print(json.dumps(peaks(options.counts[0], options.source)))
        return
    print("| images | images/s | start, end s | written | driver MB | actors MB |")
    print("|---:|---:|---:|---:|---:|---:|", flush=True)
    drivers = []
    for count in options.counts:
        command = [sys.executable, __file__, "--alone", str(count), "--source", options.source]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        found = json.loads(done.stdout)
        actors = ", ".join(f"{peak:.0f}" for peak in found["actors"])
        driver = f"{found['before']:.0f} to {found['driver']:.0f}"
        rate, ends = count / found["seconds"], f"{found['start']:.1f}, {found['end']:.1f}"
        written = f"{found['written'] / count:.0f} B/image"
        print(f"| {count:,} | {rate:.0f} | {ends} | {written} | {driver} | {actors} |", flush=True)
        drivers.append(found["driver"])
    more = options.counts[-1] - options.counts[0]
    growth = (drivers[-1] - drivers[0]) * 2**20 / max(more, 1)
    print(f"each additional image costs the driver {growth:.0f} bytes")


def peaks(count: int, kind: str) -> dict[str, object]:
    """Return peak megabytes of the driver (and before it began) and of each actor, and seconds."""
    counted: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as scratch:
        source = draw(count, Path(scratch, "images"), kind)
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
            source,
            FeatureSettings(weights="random", input_size=32),
            SIDE,
            Store(f"{scratch}/store"),
            actors=2,
            gpu=False,
            max_rejected=0,
            progress=lambda _, done, __: counted.append((time.perf_counter(), done)),
        ).build()
        end = time.perf_counter()
        first = next(at for at, done in counted if done)
        written = sum(file.stat().st_size for file in Path(scratch, "store").rglob("*.*"))
        last = max(at for at, done in counted if done)
        highest = found.copy()
        ray.shutdown()
    driver = highest.pop(str(os.getpid()))
    actors = sorted(highest.values())
    times = {"seconds": end - start, "start": first - start, "end": end - last}
    return {"before": before, "driver": driver, "actors": actors, "written": written} | times


def draw(count: int, folder: Path, kind: str) -> SourceSettings:
    """Write noise as PPM files, in folders of a thousand or in shards; no two are equal."""
    folder.mkdir()
    random, header = np.random.default_rng(0), b"P6 %d %d 255\n" % (SIDE, SIDE)
    for start in range(0, count, SHARD):
        numbers = range(start, min(start + SHARD, count))
        pixels = random.integers(0, 256, (len(numbers), SIDE * SIDE * 3), np.uint8)
        images = {
            f"{n:08d}.ppm": header + image.tobytes()
            for n, image in zip(numbers, pixels, strict=True)
        }
        if kind == "parquet":
            table = pa.table({"image": list(images.values())})
            pq.write_table(table, folder / f"{start:08d}.parquet", row_group_size=1000)
        elif kind == "tar":
            with tarfile.open(folder / f"{start:08d}.tar", "w") as archive:
                for name, content in images.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        else:
            for name, content in images.items():
                (folder / name[:5]).mkdir(exist_ok=True)
                (folder / name[:5] / name).write_bytes(content)
    if kind == "parquet":
        return ParquetSource(source="parquet", path=str(folder))
    if kind == "tar":
        return ArchiveSource(source="archive", path=str(folder))
    return FolderSource(source="folder", path=str(folder))


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
