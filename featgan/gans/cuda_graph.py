"""CUDA graphs: work on a GPU that is captured once and then replayed.

A step of small networks is hundreds of kernels, each of which ends before the host can launch the
next one. A replay launches all of them at once. It runs the same kernels in the same order, so its
results are those of the work itself (tests/featgan/test_gpu.py).
"""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3
"""Calls before the capture: libraries and optimizers initialise themselves in the first ones."""


class CudaGraph:
    """Repeated calls of the same work on a GPU; after the first few they are replays.

    What the work reads and changes besides its inputs must keep its addresses, and the work must
    take the same branches in every call; where that ends, a new `CudaGraph` is needed.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        """Run and capture on `stream`, not the default one, which cannot be captured."""
        self._calls = 0
        self._stream = stream
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._output = torch.empty(0)

    def __call__(
        self, work: Callable[..., Tensor], random: torch.Generator, *inputs: Tensor
    ) -> Tensor:
        """Return `work(random, *inputs)`; the next call overwrites it.

        The inputs keep their shapes. `random` is always the same generator, but may be seeded
        between calls.
        """
        if self._graph is None and self._calls < WARM_UP:
            self._calls += 1
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                output = work(random, *inputs)
            current.wait_stream(self._stream)
            return output
        if self._graph is None:
            self._inputs = [torch.empty_like(given) for given in inputs]
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(random)
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._output = work(random, *self._inputs)
            self._graph = graph
        for fixed, given in zip(self._inputs, inputs, strict=True):
            fixed.copy_(given)
        self._graph.replay()
        return self._output
