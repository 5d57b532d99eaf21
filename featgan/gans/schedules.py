"""What changes during a run: R3GAN's burn-in, Adam that follows it, and the k of top-k training.

All are functions of the number of steps, and tensors, so that a CUDA graph reads what they are now.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from featgan.gans.settings import Optimizer

EMA_HALF_LIFE = 0.025
"""Of R3GAN's running average at the end, as a share of the burn-in (FFHQ's)."""


@dataclass(frozen=True)
class RunLength:
    """The length of a run, in steps."""

    steps: int = 1
    """Of the whole run as planned; a criterion may end it earlier."""
    epoch: int = 1
    """Of one pass over the data set."""


def top_k(least: float, epochs: int, images: int) -> int:
    """Return how many of `images` G is updated by after so many epochs (Sinha et al. 2020)."""
    return max(1, math.floor(round(images * max(least, 0.99**epochs), 6)))


def burn_in(share: float) -> float:
    """Return the progress of the burn-in, from 0 to 1 on a cosine, at this share of a run."""
    return (1 - math.cos(math.pi * min(share, 1.0))) / 2


class BurnIn:
    """R3GAN's schedules (Huang et al. 2024, appendix), stretched over the steps of a run.

    The learning rate falls to a quarter, γ and 1 - β₂ to a tenth; the half-life of the running
    average rises from 0.
    """

    def __init__(self, start: Optimizer, gamma: float, steps: int, device: torch.device) -> None:
        self._start, self._gamma, self._steps = start, gamma, steps
        self.learning_rate, self.beta2, self.gamma = (
            torch.empty((), dtype=dtype, device=device)
            for dtype in (torch.float64, torch.float64, torch.float32)
        )
        self.decay = 0.0
        """Decay of the running average in a step."""
        self.follow(0)

    def follow(self, steps: int) -> None:
        """Set all values for the step after `steps` steps."""
        done = burn_in(steps / self._steps)
        self.learning_rate.fill_(self._start.learning_rate * (1 - 0.75 * done))
        self.beta2.fill_(1 - (1 - self._start.beta2) * (1 - 0.9 * done))
        self.gamma.fill_(self._gamma * (1 - 0.9 * done))
        half_life = EMA_HALF_LIFE * self._steps * done
        self.decay = 0.5 ** (1 / half_life) if half_life else 0.0


class ScheduledAdam(torch.optim.Adam):
    """Adam with the learning rate and β₂ of a burn-in; PyTorch's captures β₂ as a constant."""

    def __init__(self, burn_in: BurnIn, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._burn_in = burn_in

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update the parameters by their gradients (Kingma and Ba 2015, algorithm 1)."""
        assert closure is None
        (group,) = self.param_groups
        beta1, rate, beta2 = group["betas"][0], self._burn_in.learning_rate, self._burn_in.beta2
        for parameter in (p for p in group["params"] if p.grad is not None):
            gradient, state = parameter.grad, self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"] += 1
            state["exp_avg"].lerp_(gradient, 1 - beta1)
            state["exp_avg_sq"].mul_(beta2).add_(gradient.square() * (1 - beta2))
            mean = state["exp_avg"] * (rate / (1 - beta1 ** state["step"]))
            square = state["exp_avg_sq"] / (1 - beta2 ** state["step"])
            parameter.sub_(mean / (square.sqrt() + group["eps"]))
