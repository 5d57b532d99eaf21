"""Speed and memory of feature counting as the number of images grows.

    python benchmarks/feature_memory.py [COUNT ...]     1,000 and 20,000 images: some minutes
    python benchmarks/feature_memory.py --source tar    the same from tar shards; or parquet
    python benchmarks/feature_memory.py --long          up to a million images
    python benchmarks/feature_memory.py --kill          each count again, killed and continued

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
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from featgan.features import network
from featgan.features.settings import FeatureSettings
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
    parser.add_argument("--kill", action="store_true", help="each count again, killed on the way")
    parser.add_argument("--alone", type=Path, help="count the images in this folder, once")
    parser.add_argument("--ray-alone", action="store_true", help="start Ray Data with idle actors")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(peaks(options.alone, options.source)))
        return
    if options.ray_alone:
        print(json.dumps(ray_alone()))
        return
    idle = answer([sys.executable, __file__, "--ray-alone"])
    print(
        f"Ray alone: the first answer of two actors that do nothing after {idle['seconds']:.1f} s"
    )
    long = [1_000, 10_000, 100_000, 1_000_000]
    counts = options.counts or (long if options.long else [1_000, 20_000])
    print("| images | images/s | start, end s | written | driver MB | actors MB |")
    print("|---:|---:|---:|---:|---:|---:|", flush=True)
    drivers = []
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            draw(count, Path(scratch, "images"), options.source)
            command = [sys.executable, __file__, "--source", options.source, "--alone", scratch]
            found = answer(command)
            rate, ends = count / found["seconds"], f"{found['start']:.1f}, {found['end']:.1f}"
            driver = f"{found['before']:.0f} to {found['driver']:.0f}"
            actors = ", ".join(f"{peak:.0f}" for peak in found["actors"])
            written = f"{found['written'] / count:.0f} B/image"
            cells = f"{count:,} | {rate:.0f} | {ends} | {written} | {driver} | {actors}"
            print(f"| {cells} |", flush=True)
            drivers.append(found["driver"])
            if options.kill:
                Path(scratch, "store").rename(Path(scratch, "first"))
                print(killed(command, count, found), flush=True)
    more = counts[-1] - counts[0]
    growth = (drivers[-1] - drivers[0]) * 2**20 / max(more, 1)
    print(f"each additional image costs the driver {growth:.0f} bytes")


def answer(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def killed(command: list[str], count: int, whole: dict[str, Any]) -> str:
    """Kill a count at a random moment, start it again; say what it repeats."""
    blocks, at = Path(command[-1]), random.uniform(0.1, 0.9)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while len([*blocks.glob("store/features/*/blocks/*")]) < at * whole["blocks"]:
            time.sleep(0.1)
        started = actors(process.pid)
        process.send_signal(signal.SIGKILL)
    while any(unshared(actor) for actor in started):  # one may still finish its block
        time.sleep(0.1)
    kept = len([*blocks.glob("store/features/*/blocks/*")])
    again = answer(command)
    same = "the same" if again["digest"] == whole["digest"] else "ANOTHER"
    missing = whole["blocks"] - kept
    return (
        f"killed with {kept} of {whole['blocks']} blocks finished; the next start counted "
        f"{count - again['found']:,} images: the {missing} missing blocks, of which up to "
        f"{len(started)} were under way; {again['seconds']:.0f} s; {same} data set"
    )


def peaks(folder: Path, kind: str) -> dict[str, Any]:
    """Return peak megabytes of the driver (and before it began) and of each actor, and seconds."""
    counted: list[tuple[float, int]] = []
    start_ray()
    tiny_network()

    highest: dict[str, float] = {}
    before = unshared(os.getpid())
    start = time.perf_counter()
    threading.Thread(target=watch, args=(highest,), daemon=True).start()
    data = DataSetBuilder(
        "noise",
        source_of(folder / "images", kind),
        FeatureSettings(weights="random", input_size=32),
        SIDE,
        Store(str(folder / "store")),
        actors=2,
        gpu=False,
        max_rejected=0,
        progress=lambda _, done, total: total and counted.append((time.perf_counter(), done)),
    ).build()
    end = time.perf_counter()
    found = next(done for _, done in counted)
    first = next(at for at, done in counted if done > found)
    last = max(at for at, _ in counted)
    highest = highest.copy()
    files = list(folder.joinpath("store").rglob("*.*"))
    return {
        "before": before,
        "driver": highest.pop(str(os.getpid())),
        "actors": sorted(highest.values()),
        "written": sum(file.stat().st_size for file in files),
        "blocks": len([file for file in files if file.parent.name == "blocks"]),
        "found": found,
        "digest": data.digest,
        "seconds": end - start,
        "start": first - start,
        "end": end - last,
    }


def start_ray() -> None:
    import ray  # after harness, which sets its environment

    ray.init(
        address="local",
        num_cpus=2,
        log_to_driver=False,
        logging_level="ERROR",
        include_dashboard=False,
        object_store_memory=500_000_000,
    )


def ray_alone() -> dict[str, float]:
    """Return the seconds of Ray Data's own start, up to the first answer of two idle actors."""
    import ray.data

    start_ray()
    ray.data.DataContext.get_current().enable_progress_bars = False
    start = time.perf_counter()
    data = ray.data.from_blocks([pa.table({"number": [number]}) for number in range(8)])
    data = data.map_batches(Idle, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=1)
    next(iter(data.iter_batches(batch_size=None)))
    return {"seconds": time.perf_counter() - start}


class Idle:
    def __call__(self, batch: Any) -> Any:
        return batch


def draw(count: int, folder: Path, kind: str) -> None:
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


def source_of(folder: Path, kind: str) -> SourceSettings:
    if kind == "parquet":
        return ParquetSource(source="parquet", path=str(folder))
    if kind == "tar":
        return ArchiveSource(source="archive", path=str(folder))
    return FolderSource(source="folder", path=str(folder))


def tiny_network() -> None:
    """Put a stand-in in VGG16's place, which the driver gives to its workers."""
    with torch.device("meta"):
        layers = torch.nn.Conv2d(3, 4096, 8, 32, bias=False), torch.nn.Flatten()
    weights = torch.randn((4096, 3, 8, 8), generator=torch.Generator().manual_seed(0)) / 10
    network.load = lambda settings: {"0.weight": weights}  # type: ignore[assignment]
    network.empty = lambda settings: torch.nn.Sequential(*layers)  # type: ignore[assignment]


def watch(found: dict[str, float]) -> None:
    """Keep the peaks of this process and of its counting actors."""
    known, looked = [str(os.getpid())], 0.0
    while True:
        time.sleep(0.05)
        if time.monotonic() > looked + 2:
            known, looked = [str(os.getpid()), *actors(os.getpid())], time.monotonic()
        for process in known:
            found[process] = max(found.get(process, 0.0), unshared(process))


def actors(driver: int) -> list[str]:
    """Return a driver's counting actors: children of the raylet that is its child."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            counts = (entry / "cmdline").read_bytes().startswith(b"ray::MapWorker")
            if counts and parent(parent(entry.name)) == str(driver):
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
