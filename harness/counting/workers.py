"""The Ray side of counting: read, decode, count and pack the blocks of a listing.

On a CPU one actor per core does all of it: decoding is a hundredth of the work. On GPUs, tasks on
all cores decode, write the shards and keep the counting actors fed. Pixels never reach the driver.
"""

import hashlib
import logging
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from featgan.errors import UserError
from featgan.features import network
from featgan.features.counter import FeatureCounter
from featgan.features.settings import FeatureSettings
from featgan.images.decode import BadImage, decode, pixel_digest, square
from featgan.images.pack import shard_bytes
from harness.counting.cache import NOT_COUNTED, EarlierCounts
from harness.counting.shards import Block
from harness.records.data_set import Shard
from harness.sources import SourceSettings
from harness.sources.folder import why_unreadable
from harness.storage.store import Store

PER_GPU = 2
"""Actors of a GPU: one counts while the other receives its next images."""
RETRIES = 3
"""Further tries of a block whose actor died: a machine may go, and not by the images' fault."""


@dataclass(frozen=True)
class Job:
    """The data set to count and the settings of the count, for every worker."""

    store: Store
    key: str
    source: SourceSettings
    features: FeatureSettings
    image_size: int
    maker: dict[str, str]
    """Device and library versions."""


def decode_block(batch: pa.Table, job: Job, earlier: list[ray.ObjectRef]) -> pa.Table:
    """Read and decode the images of one block (`block`, `locations`), and write its shard.

    Returns `block` as JSON, without new counts, and the `inputs` of the network for these.
    """
    source, known = job.source, ray.get(earlier[0])
    read = source.corrupt.reader(source.read) if source.corrupt else source.read
    sizes = job.image_size, job.features.input_size
    block = Block(key=job.key, number=batch["block"][0].as_py(), digests=[], counts=[])
    pixels, inputs = list[np.ndarray](), list[np.ndarray]()
    for place, location in enumerate(batch["locations"][0].as_py()):
        digest, count, problem = b"", NOT_COUNTED, ""
        try:
            image = decode(read(location))
            digest = pixel_digest(image)
            packed, seen = (square(image, size) for size in sizes)
        except BadImage as error:
            problem = str(error)
        # a bucket's client has errors of its own; memory may be short
        except Exception as error:
            problem = why_unreadable(error, location)
            block.unreadable.append(place)
        if problem:
            block.problems[place] = problem
        else:
            count = known.get(digest)
            pixels.append(packed)
            if count == NOT_COUNTED:
                inputs.append(seen)
        block.digests.append(digest.hex())
        block.counts.append(count)
    shard = None
    if pixels:
        file = shard_bytes(np.stack(pixels))
        sha256 = hashlib.sha256(file).hexdigest()
        # named by its content: the data set that is there stays whole until this one is
        name = f"{block.number:05d}-{sha256[:12]}.npy"
        job.store.put(f"{job.key}/pack/{name}", file)
        shard = Shard(name, len(pixels), sha256)
    makers = known.makers if len(inputs) < len(pixels) else []
    block = block.model_copy(update={"shard": shard, "makers": makers})
    content = np.stack(inputs).tobytes() if inputs else b""
    return pa.table({"block": [block.to_json()], "inputs": pa.array([content], pa.large_binary())})


class Counter:
    """An actor that counts the images of blocks; without a GPU, it decodes them first."""

    def __init__(
        self, job: Job, weights: list[ray.ObjectRef], earlier: list[ray.ObjectRef], gpu: bool
    ) -> None:
        """`weights` and `earlier` hold a reference to arrays in each machine's shared memory."""
        torch.set_num_threads(1)
        self._job, self._earlier, self._decodes = job, earlier, not gpu
        self._counter = counter(job.features, weights, gpu)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Count the good images that have no count yet, and write the block's file."""
        if self._decodes:
            batch = decode_block(batch, self._job, self._earlier)
        block = Block.model_validate_json(batch["block"][0].as_py())
        if pixels := batch["inputs"][0].as_buffer():
            side = self._job.features.input_size
            inputs = np.frombuffer(pixels, np.uint8).reshape(-1, 3, side, side)
            new = iter(self._counter.count(inputs).tolist())
            counts = [
                next(new) if count == NOT_COUNTED and place not in block.problems else count
                for place, count in enumerate(block.counts)
            ]
            makers = [m for m in block.makers if m != self._job.maker] + [self._job.maker]
            block = block.model_copy(update={"counts": counts, "makers": makers})
        return pa.table({"block": [block.put(self._job.store)]})


def shared_weights(settings: FeatureSettings) -> list[ray.ObjectRef]:
    """Put the network and its weights once into each machine's shared memory."""
    arrays = {name: tensor.numpy() for name, tensor in network.load(settings).items()}
    return [ray.put((network.empty(settings), arrays))]


def counter(settings: FeatureSettings, weights: list[ray.ObjectRef], gpu: bool) -> FeatureCounter:
    """Return a counter on shared weights, in an actor."""
    network.EMPTY[settings], arrays = ray.get(weights[0])
    with warnings.catch_warnings():
        # all actors of a machine share them, and no one writes to them
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return FeatureCounter(settings, torch.device("cuda" if gpu else "cpu"), state)


def count(
    job: Job, blocks: pa.Table, earlier: EarlierCounts, actors: int | None, gpu: bool
) -> Generator[Block, None, None]:
    """Count and pack blocks (`block`, `locations`); yield each as it is finished, in any order.

    `actors` that find no room now start once the cluster has grown.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its errors are reported here
    actors, fit, share = _room(actors, gpu)
    weights, known = shared_weights(job.features), [ray.put(earlier)]
    # a Ray block costs the driver 45 KB, however few rows it has
    length = max(1, len(blocks) // max(512, 32 * actors))
    parts = [blocks.slice(start, length) for start in range(0, len(blocks), length)]
    most = min(actors, len(parts))
    # not from_arrow, which starts a task for each part to look at it
    data: Any = ray.data.from_blocks(parts)
    del blocks, parts  # they lie in Ray's store now
    pa.default_memory_pool().release_unused()
    options: dict[str, Any] = {"num_cpus": 1}
    if gpu:
        options = {"num_cpus": 0, "num_gpus": share}
        data = data.map_batches(
            decode_block, fn_args=(job, known), batch_size=1, batch_format="pyarrow", num_cpus=1
        )
    data = data.map_batches(
        Counter,
        fn_constructor_args=(job, weights, known, gpu),
        compute=ActorPoolStrategy(min_size=min(most, fit), max_size=most),
        batch_size=1,
        batch_format="pyarrow",
        max_task_retries=RETRIES,
        **options,
    )
    try:
        for batch in data.iter_batches(batch_size=None, batch_format="pyarrow"):
            for content in batch["block"].to_pylist():
                yield Block.model_validate_json(content)
    except (RayActorError, WorkerCrashedError, NodeDiedError, OutOfMemoryError) as error:
        raise UserError(
            f"a process that counts features died {RETRIES + 1} times over the same images: memory "
            "is short (lower resources.feature_actors), or an image kills what decodes it; the "
            "blocks that were counted are kept"
        ) from error
    except RayTaskError as error:
        if isinstance(error.cause, OSError | UserError):  # a full disk, for example
            raise error.cause from None
        raise


def _room(asked: int | None, gpu: bool) -> tuple[int, int, float]:
    """Return how many actors are wanted, how many fit now, and each one's share of a GPU or core.

    By default two a GPU, or one a core; for two actors Ray would put two halves on one GPU.
    """
    there = max(1, int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1)))
    each = PER_GPU if gpu and (asked is None or asked > there) else 1
    return asked or each * there, each * there, 1 / each
