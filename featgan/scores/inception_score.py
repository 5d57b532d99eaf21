"""The Inception Score (Salimans et al. 2016), a pure function of a classifier's logits."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor


class Diverged(Exception):
    """Something that must be finite is not: losses, weights, images or logits."""


def inception_score(logits: Tensor, splits: int) -> tuple[float, float]:
    """Return mean and standard deviation, over `splits`, of the score of `logits` [n, classes].

    The score of a split is exp(mean KL(p(y|x) ‖ p(y))), in float64. Rows are shuffled first, with
    a fixed seed and as torch-fidelity does, so that images sorted by class score the same. Raises
    `Diverged` if a logit is not finite.
    """
    n = len(logits)
    order = np.random.RandomState(2020).permutation(n)
    logits = logits[torch.from_numpy(order).to(logits.device)]
    edges = [i * n // splits for i in range(splits + 1)]
    scores = torch.stack([_split_score(logits[a:b]) for a, b in pairwise(edges)])
    if not scores.isfinite().all():
        raise Diverged("the classifier's logits are not finite")
    return scores.mean().item(), scores.std(correction=0).item()


def _split_score(logits: Tensor) -> Tensor:
    log_p = logits.double().log_softmax(dim=1)
    # the mean's logarithm in log space: a class of probability 0 stays finite
    log_mean = log_p.logsumexp(dim=0) - np.log(len(log_p))
    return (log_p.exp() * (log_p - log_mean)).sum(dim=1).mean().exp()
