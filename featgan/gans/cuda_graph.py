"""Work on a GPU that is recorded once and then replayed: a CUDA graph.

A step of small networks is hundreds of kernels, each done sooner than the host can ask for the
next one. A replay asks for all of them at once. It runs the same kernels in the same order, so
its numbers are those of the work itself (tests/featgan/test_gpu.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3
"""Calls before the recording: libraries and optimizers set themselves up in the first ones."""


class Recorded:
    """Calls of always the same work on a GPU, replayed after the first few.

    What the work reads and changes besides its inputs must stay at the same addresses, and what
    it decides must always be decided alike; otherwise a new `Recorded` has to begin anew.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        """Run and record on `stream`: not the default one, which cannot be recorded."""
        self._calls = 0
        self._beside = stream
        self._graph: torch.cuda.CUDAGraph | None = None
        self._random: torch.Generator | None = None
        self._inputs: list[Tensor] = []
        self._output = torch.empty(0)

    def __call__(
        self, work: Callable[..., Tensor], random: torch.Generator, *inputs: Tensor
    ) -> Tensor:
        """What `work(random, *inputs)` returns, until the next call overwrites it.

        The inputs keep their shapes, and `random` is always the same generator, seeded at will.
        """
        if self._graph is None and self._calls < WARM_UP:
            self._calls += 1
            return self._called(work, random, *inputs)
        if self._graph is None:
            self._graph = self._record(work, random, *inputs)
        if random is not self._random:
            raise ValueError("recorded with another generator")
        for fixed, given in zip(self._inputs, inputs, strict=True):
            fixed.copy_(given)
        self._graph.replay()
        return self._output

    def _called(self, work: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """One call as it is, where the recording will be made."""
        here = torch.cuda.current_stream()
        self._beside.wait_stream(here)
        with torch.cuda.stream(self._beside):
            output = work(*arguments)
        here.wait_stream(self._beside)
        return output

    def _record(
        self, work: Callable[..., Tensor], random: torch.Generator, *inputs: Tensor
    ) -> torch.cuda.CUDAGraph:
        self._random, self._inputs = random, [torch.empty_like(given) for given in inputs]
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(random)
        with torch.cuda.graph(graph, stream=self._beside, capture_error_mode="thread_local"):
            self._output = work(random, *self._inputs)
        return graph
