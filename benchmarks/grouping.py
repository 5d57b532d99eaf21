"""Seconds to group and assign ten million feature counts: `python benchmarks/grouping.py`."""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np

from featgan.features.groups import FeatureGroups
from featgan.features.settings import GroupSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    counts = draw.normal(1900, 400, options.count).clip(0, 4096).astype(np.int16)
    print(f"{options.count:,} counts of {len(np.unique(counts)):,} values; medians of turns")
    print("| method | k | group, s | assign, s |\n|---|--:|--:|--:|")
    for method in ("kmeans", "quantile", "balanced"):
        for k in (3, 10, 64):
            settings = GroupSettings(method=method, k=k)
            seconds = [once(counts, settings) for _ in range(options.turns)]
            group, assign = (median(part) for part in zip(*seconds, strict=True))
            print(f"| {method} | {k} | {group:.2f} | {assign:.2f} |", flush=True)


def once(counts: np.ndarray, settings: GroupSettings) -> tuple[float, float]:
    start = time.perf_counter()
    groups = FeatureGroups.fit(counts, settings)
    middle = time.perf_counter()
    groups.assign(counts)
    return middle - start, time.perf_counter() - middle


if __name__ == "__main__":
    main()
