"""Average pooling and bilinear interpolation from their definitions, in numpy."""

from __future__ import annotations

import math

import numpy as np
from loss_case import Array


def pool(x: Array, size: tuple[int, int]) -> Array:
    """Adaptive average pooling of `[B, C, H, W]`: cell i is the mean of floor(iH/h) up to ceil((i+1)H/h)."""
    H, W = x.shape[2:]
    out = np.zeros((*x.shape[:2], *size))
    for i, j in np.ndindex(*size):
        rows = slice(i * H // size[0], math.ceil((i + 1) * H / size[0]))
        columns = slice(j * W // size[1], math.ceil((j + 1) * W / size[1]))
        out[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    return out


def matrix(source: int, target: int) -> Array:
    """Linear interpolation along one axis, pixel centres at half integers, clamped at the border."""
    weights = np.zeros((target, source))
    for i in range(target):
        place = min(max((i + 0.5) * source / target - 0.5, 0), source - 1)
        low = int(place)
        high = min(low + 1, source - 1)
        weights[i, low] += 1 - (place - low)
        weights[i, high] += place - low
    return weights


def interpolate(x: Array, size: tuple[int, int]) -> Array:
    """Bilinear interpolation of `[B, C, H, W]`."""
    return np.einsum("ih,bchw,jw->bcij", matrix(x.shape[2], size[0]), x, matrix(x.shape[3], size[1]))
