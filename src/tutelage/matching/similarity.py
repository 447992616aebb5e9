"""How alike layers are, and which pairing of two sequences of layers is the best."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import SignalError
from tutelage.losses.reduce import visible
from tutelage.signals import Batch, Request
from tutelage.taps import observe

__all__ = ["best_pairing", "centred_gram", "cka", "grams_of"]

PIECE = 32
"""Rows in one forward pass."""
PLACES = 4
"""Maps are averaged down to at most this height and width before they are compared."""


def centred_gram(features: Tensor) -> Tensor:
    """The U-centred Gram matrix `K̃` of features `[n, p]`: `[n, n]` in float64, its diagonal 0.

    `K̃_ij = K_ij - Σ_l K_il/(n-2) - Σ_k K_kj/(n-2) + Σ_kl K_kl/((n-1)(n-2))` for `i ≠ j`, where `K = X Xᵀ` without its
    diagonal. Then `<K̃, L̃>/(n(n-3))` is the unbiased estimate of HSIC.

    Args:
        features: One row a sample, at least 4.
    """
    x = features.double()
    x = x - x.mean(0)  # changes nothing but the rounding: what all samples share cancels anyway
    n = len(x)
    gram = (x @ x.T).fill_diagonal_(0)
    rows = gram.sum(1) / (n - 2)
    centred = gram - rows[:, None] - rows[None, :] + gram.sum() / ((n - 1) * (n - 2))
    return centred.fill_diagonal_(0)


def cka(a: Tensor, b: Tensor) -> float:
    """Linear CKA of two layers from their centred Gram matrices: `<K̃, L̃> / (‖K̃‖_F ‖L̃‖_F)`.

    It is 1 for features that differ by a rotation and a factor, and about 0 for features that have nothing in common,
    however wide: HSIC is estimated without bias. The biased estimate nears 1 for any two layers that are much wider
    than there are samples. A layer that says the same of all samples is like no other: 0.

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", 2019; the unbiased estimate as
    in Nguyen et al., "Do Wide and Deep Networks Learn the Same Things?", 2021, on all samples at once.
    """
    lengths = float(a.norm()) * float(b.norm())
    return float((a * b).sum()) / lengths if lengths > 0 else 0.0


def grams_of(module: nn.Module, batch: Batch, paths: list[str], *, model: str) -> dict[str, Tensor]:
    """The centred Gram matrix of each layer over the rows of a batch. The module has to be in eval mode.

    Args:
        module: The model.
        batch: The rows.
        paths: Layers with maps, tokens or vectors.
        model: How to name the model in messages.

    Raises:
        SignalError: A layer's output is not finite.
    """
    pieces: dict[str, list[Tensor]] = {path: [] for path in paths}
    for start in range(0, len(batch), PIECE):
        part = batch.map(lambda tensor, start=start: tensor[start : start + PIECE])  # type: ignore[misc]
        with torch.no_grad():
            says = observe(module, part.inputs, Request(features=frozenset(paths)), model=model)
        for path in paths:
            pieces[path].append(_small(says.features[path], part).cpu())
    grams = {path: centred_gram(torch.cat(of_path)) for path, of_path in pieces.items()}
    for path, gram in grams.items():
        if not torch.isfinite(gram).all():
            raise SignalError(
                f"layer `{path}` of the {model}",
                expected="finite numbers",
                found=f"NaN or infinity on {len(batch)} training rows",
                harm="how alike it is to another layer can't be said",
                mend="look at the inputs' scale and at the weights, or match layers by depth",
            )
    return grams


def _small(features: Tensor, batch: Batch) -> Tensor:
    """`[B, p]`: what is compared of a layer, where `p` does not grow with the size of maps or the length of sequences.

    Of tokens it is the mean over those that count. All positions one after the other would compare the lengths of the
    texts and the words at each place, which layers of any depth have in common: see docs/experiments.md.
    """
    features = features.float()
    if features.dim() == 4:
        size = (min(features.shape[2], PLACES), min(features.shape[3], PLACES))
        return F.adaptive_avg_pool2d(features, size).flatten(1)
    if features.dim() == 3 and batch.mask is not None and features.shape[:2] == batch.mask.shape:
        return visible(features, batch).sum(1) / batch.mask.sum(1, keepdim=True).clamp(min=1)
    return features.mean(1) if features.dim() == 3 else features


def best_pairing(scores: list[list[float]], count: int) -> list[tuple[int, int]]:
    """The `count` pairs `(i, j)`, rising in both, whose scores have the largest sum; an empty list if there are none.

    Dynamic programming over prefixes: the best `k` pairs among the first `i` and `j` leave out `i`, leave out `j`, or
    pair them. Of equal sums it takes the one whose pairs come later.

    Args:
        scores: `[n][m]`; `-inf` forbids a pair.
        count: How many pairs.
    """
    n, m = len(scores), len(scores[0]) if scores else 0
    best = [[[0.0 if k == 0 else -math.inf for k in range(count + 1)] for _ in range(m + 1)] for _ in range(n + 1)]
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            for k in range(1, count + 1):
                paired = best[i - 1][j - 1][k - 1] + scores[i - 1][j - 1]
                best[i][j][k] = max(paired, best[i - 1][j][k], best[i][j - 1][k])
    if best[n][m][count] == -math.inf:
        return []
    pairs: list[tuple[int, int]] = []
    i, j, k = n, m, count
    while k:
        if best[i][j][k] == best[i - 1][j - 1][k - 1] + scores[i - 1][j - 1]:
            i, j, k = i - 1, j - 1, k - 1
            pairs.append((i, j))
        elif best[i][j][k] == best[i - 1][j][k]:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
