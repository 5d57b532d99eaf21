"""The Ray side of the feature process: read, decode and count the images of a listing.

On a CPU one actor a core does all three: decoding is a hundredth of the work, and pixels never
leave the process. On GPUs, tasks on all cores decode and keep the counting actors fed.
Results arrive in any order; who asked joins them by index.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import time
import warnings
from collections.abc import Generator
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import torch
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

from featgan.errors import UserError, first_line
from featgan.features import network
from featgan.features.counter import FeatureCounter
from featgan.features.settings import FeatureSettings
from featgan.images.decode import BadImage, decode, square
from harness.counting.cache import NOT_COUNTED, Known
from harness.sources import SourceSettings
from harness.sources.folder import why_unreadable
from harness.storage.retry import OUTAGE_SECONDS, is_outage

Batch = dict[str, np.ndarray]

PER_GPU = 2
"""Actors of a GPU: one counts while the other is handed its next images."""
RETRIES = 3
"""How often images are tried again whose actor died: a machine may go, and not by their fault."""
PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EAGAIN, None}
"""What may be over in a moment; a bucket's errors have no number."""
PAUSES = (0.2, 1.0, 3.0)
"""Seconds before an image is read again."""


class Decoder:
    """Reads and decodes: `index`, `location` -> what a count and a pack need."""

    _waited: ClassVar[float] = 0.0
    """Seconds that this process has waited since an image could be read: Ray makes each task a
    decoder of its own."""

    def __init__(
        self, source: SourceSettings, input_size: int, image_size: int, known: Known
    ) -> None:
        self._read = source.reader()
        self._input_size, self._image_size, self._known = input_size, image_size, known

    def decode(self, batch: Batch) -> Batch:
        """A problem leaves black pixels and its reason behind."""
        rows = [self._one(location) for location in batch["location"]]
        sha256, problems, unreadable, counts, images, inputs = zip(*rows, strict=True)
        return {
            "index": batch["index"],
            "sha256": np.array(sha256, dtype=object),
            "problem": np.array(problems, dtype=object),
            "unreadable": np.array(unreadable),
            "count": np.array(counts, dtype=np.int32),
            "image": np.stack(images),
            "input": np.stack(inputs),
        }

    def problem(self, location: bytes) -> str:
        """Why there is no image at this location; empty if there is one."""
        return self._one(location)[1]

    def _one(self, location: bytes) -> tuple[str, str, bool, int, np.ndarray, np.ndarray]:
        digest, problem, unreadable = b"", "", False
        try:
            data = self._read_patiently(location, PAUSES)
            digest = hashlib.sha256(data).digest()
            image = decode(data)
            pixels = square(image, self._image_size), square(image, self._input_size)
        except BadImage as error:
            problem = str(error)
        except OSError as error:
            problem, unreadable = why_unreadable(error, location), True
        # a set or a bucket out of reach, whose client has errors of its own; too little memory
        except Exception as error:
            what = first_line(error)
            problem, unreadable = f"cannot be read: {what}", True
        if not problem:
            return digest.hex(), "", False, self._known.get(digest), *pixels
        black = _black(self._image_size), _black(self._input_size)
        return digest.hex(), problem, unreadable, NOT_COUNTED, *black

    def _read_patiently(self, location: bytes, pauses: tuple[float, ...]) -> bytes:
        """The bytes of an image; a storage that stumbles is asked again, for so long in a row."""
        try:
            data = self._read(location)
        except Exception as error:
            passing = is_outage(error) or getattr(error, "errno", "") in PASSING
            if not (pauses and passing and Decoder._waited < OUTAGE_SECONDS):
                raise
        else:
            Decoder._waited = 0.0
            return data
        time.sleep(pauses[0])
        Decoder._waited += pauses[0]
        return self._read_patiently(location, pauses[1:])


class Counter:
    """Counts what a Decoder made, or decodes first: an actor."""

    def __init__(
        self,
        settings: FeatureSettings,
        weights: list[ray.ObjectRef],
        decoder: Decoder | None,
        gpu: bool,
    ) -> None:
        """`weights` holds a reference to arrays in each machine's shared memory."""
        torch.set_num_threads(1)
        self._counter = counter(settings, weights, gpu)
        self._decoder = decoder

    def __call__(self, batch: Batch) -> Batch:
        """Fill in the counts of good images that are not known yet."""
        batch = self._decoder.decode(batch) if self._decoder else dict(batch)
        inputs, counts = batch.pop("input"), batch["count"].copy()
        new = (counts == NOT_COUNTED) & (batch["problem"] == "")
        counts[new] = self._counter.count(inputs[new])
        return batch | {"count": counts}


def shared_weights(settings: FeatureSettings) -> list[ray.ObjectRef]:
    """A reference to the network's weights, which lie once in each machine's shared memory."""
    arrays = {name: tensor.numpy() for name, tensor in network.load(settings).items()}
    return [ray.put(arrays)]


def counter(settings: FeatureSettings, weights: list[ray.ObjectRef], gpu: bool) -> FeatureCounter:
    """A counter on shared weights: inside of an actor."""
    with warnings.catch_warnings():
        # all actors of a machine share them, and no one writes to them
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        state = {name: torch.from_numpy(array) for name, array in ray.get(weights[0]).items()}
    return FeatureCounter(settings, torch.device("cuda" if gpu else "cpu"), state)


def count(
    rows: pd.DataFrame,
    source: SourceSettings,
    settings: FeatureSettings,
    image_size: int,
    known: Known,
    actors: int | None,
    gpu: bool,
) -> Generator[Batch, None, None]:
    """Count the images of `rows` (`index`, `location`), a few at a time, in any order.

    Yields `index`, `sha256`, `problem` (empty, or why there is no count), `unreadable` (whether
    that may change while the image does not), `count` (int32) and `image` (uint8 [n, 3,
    image_size, image_size]). `actors` that find no room now start once the cluster has grown.
    """
    if rows.empty:
        return
    _quiet()
    actors, fit, share = _room(actors, gpu)
    decoder = Decoder(source, settings.input_size, image_size, known)
    weights = shared_weights(settings)
    blocks = _blocks(rows, actors, batch=256 if gpu else 8)
    actors = min(actors, len(blocks))
    # not from_arrow, which starts a task for each block to look at it
    data: Any = ray.data.from_blocks(blocks)
    del rows, blocks  # they lie in Ray's store now
    options: dict[str, Any] = {"num_cpus": 1}
    if gpu:
        data = data.map_batches(decoder.decode, batch_size=64, batch_format="numpy", num_cpus=1)
        options = {"num_cpus": 0, "num_gpus": share}
    data = data.map_batches(
        Counter,
        fn_constructor_args=(settings, weights, None if gpu else decoder, gpu),
        compute=_pool(actors, fit),
        batch_size=256 if gpu else 8,
        batch_format="numpy",
        max_task_retries=RETRIES,
        **options,
    )
    try:
        yield from data.iter_batches(batch_size=None, batch_format="numpy")
    except (RayActorError, WorkerCrashedError, NodeDiedError, OutOfMemoryError) as error:
        raise UserError(
            f"a process that counts features died {RETRIES + 1} times over the same images: memory "
            "is short (lower resources.feature_actors), or an image kills what decodes it; the "
            "parts that were counted are kept"
        ) from error


def _blocks(rows: pd.DataFrame, actors: int, batch: int) -> list[pa.Table]:
    """Rows in blocks of whole batches: enough to share out evenly, and no more.

    Each block takes 45 KB of the driver, however few rows it has.
    """
    length = batch * max(1, len(rows) // (batch * max(512, 32 * actors)))
    table = pa.table(
        {
            "index": pa.array(rows["index"], pa.int64()),
            "location": pa.array(rows["location"], pa.large_binary()),
        }
    )
    return [table.slice(start, length) for start in range(0, len(rows), length)]


def _pool(actors: int, fit: int) -> ActorPoolStrategy:
    """As many actors as there is room for; up to `actors` once the cluster has grown."""
    return ActorPoolStrategy(min_size=min(actors, fit), max_size=actors)


def _black(size: int) -> np.ndarray:
    return np.zeros((3, size, size), np.uint8)


def _room(asked: int | None, gpu: bool) -> tuple[int, int, float]:
    """Actors that are wanted, how many of them fit now, and the share of a GPU each gets.

    Two a GPU, or one a core, where nobody asks for less; Ray would put two halves on one GPU.
    """
    there = ray.cluster_resources()
    if not gpu:
        cores = max(1, int(there.get("CPU", 1)))
        return asked or cores, cores, 0.0
    gpus = max(1, int(there.get("GPU", 1)))
    if asked is not None and asked <= gpus:
        return asked, gpus, 1.0
    return asked or PER_GPU * gpus, PER_GPU * gpus, 1 / PER_GPU


def _quiet() -> None:
    """The screen is the caller's."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it raises is told by us
