"""The threads of BLAS and OpenMP, of whatever library has loaded them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["limited_threads"]


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """So many threads for the pools of all loaded libraries (NumPy's, scikit-learn's), afterwards as many as before.

    Without threadpoolctl, which comes with scikit-learn, they are left alone.
    """
    try:
        pools = importlib.import_module("threadpoolctl")
    except ImportError:
        yield
        return
    with pools.threadpool_limits(limits=count):
        yield
