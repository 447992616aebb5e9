"""Convolutions from their definition, in numpy."""

from __future__ import annotations

import numpy as np
from loss_case import Array, Numbers


def convolve(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Of `[B, C, H, W]` with an odd square kernel, stride 1, zeros around it so that the size stays."""
    edge = weight.shape[2] // 2
    H, W = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    out = np.zeros((len(x), len(weight), H, W))
    for i, j in np.ndindex(*weight.shape[2:]):
        out += np.einsum("oc,bchw->bohw", weight[:, :, i, j], padded[:, :, i : i + H, j : j + W])
    return out if bias is None else out + bias[:, None, None]


def projected(n: Numbers, path: str) -> Array:
    """A layer of the student through its projector, if there is one: maps, tokens or vectors."""
    x, key = n.student[path], f"projectors.{path.replace('.', '/')}"
    if f"{key}.weight" not in n.trained:
        return x
    weight, bias = n.trained[f"{key}.weight"], n.trained[f"{key}.bias"]
    return convolve(x, weight, bias) if x.ndim == 4 else x @ weight.T + bias
