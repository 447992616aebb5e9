"""One gather over columns that lie in several memory maps."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

__all__ = ["Windows"]

Array = np.ndarray[Any, Any]

LARGE = 4096
"""Numbers from which on torch gathers them faster than NumPy, which starts faster."""


class Windows:
    """Rows of several `[n_s, width]` arrays of one dtype, reached by one index.

    They are seen as one array `w` whose row `p` is the `width` entries from entry `p` on, counted from the lowest
    address: its rows overlap, and `w[starts[s] + i · width]` is row `i` of array `s`. Indexing reads only where it is
    pointed, so what lies between the arrays is never touched. No index may be made but from `starts`.

    Args:
        arrays: C-contiguous, each at an address that is a multiple of its item size. Their memory has to stay.
    """

    def __init__(self, arrays: Sequence[Array]) -> None:
        self.width = arrays[0].shape[1]
        dtype = arrays[0].dtype
        assert all(a.flags.c_contiguous and a.dtype == dtype and a.shape[1] == self.width for a in arrays)
        addresses = [int(a.__array_interface__["data"][0]) for a in arrays]
        assert all(address % dtype.itemsize == 0 for address in addresses)
        filled = [(address, a.nbytes) for address, a in zip(addresses, arrays, strict=True) if a.nbytes]
        low = min((address for address, _ in filled), default=0)
        high = max((address + size for address, size in filled), default=0)
        self.starts = np.array([(address - low) // dtype.itemsize for address in addresses], dtype=np.int64)
        count = max((high - low) // dtype.itemsize - self.width + 1, 0)
        self._all = np.asarray(_Span(low, count, self.width, dtype)) if filled else np.zeros((0, self.width), dtype)
        self._alive = list(arrays)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of memory that can't be written; nothing here writes
            self._tensor = torch.from_numpy(self._all.view(f"i{dtype.itemsize}"))

    def take(self, places: Array) -> Array:
        """Copies of the rows at these places, `[n, width]`."""
        if places.size * self.width < LARGE:
            copies: Array = self._all[places]
            return copies
        found: Array = torch.index_select(self._tensor, 0, torch.from_numpy(places)).numpy()
        return found.view(self._all.dtype)


class _Span:
    """What NumPy reads of an object to make an array of memory that lies elsewhere."""

    def __init__(self, address: int, count: int, width: int, dtype: np.dtype[Any]) -> None:
        self.__array_interface__ = {
            "data": (address, True),  # not to be written
            "shape": (count, width),
            "strides": (dtype.itemsize, dtype.itemsize),
            "typestr": dtype.str,
            "version": 3,
        }
