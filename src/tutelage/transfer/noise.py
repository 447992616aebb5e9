"""Rows with noise added."""

from __future__ import annotations

import numpy as np

from tutelage.errors import DataError, RecipeError
from tutelage.transfer.made import Column, Given, MadeRows, Maker, positions

__all__ = ["Noise"]


class Noise(Maker):
    """`x + scale · σ · ε` with `ε ~ N(0, 1)` for each number, and `σ` that feature's spread over the training rows.

    Images have one `σ`, that of all their pixels, and are rounded and cut to 0 to 255. Whole numbers, which may be
    categories, and texts stay as they are.

    Args:
        count: How many rows are made.
        scale: Strength, in standard deviations.
        seed: Another seed makes others.
    """

    def __init__(self, count: int, scale: float = 0.1, *, seed: int = 0) -> None:
        self.count = count
        self.scale = scale
        self.seed = seed

    def check(self, key: str) -> None:
        """Refuses a count below 1 and a scale that is not positive."""
        super().check(key)
        if not 0 < self.scale < float("inf"):
            raise RecipeError(f"{key}.scale", expected="a positive number", found=str(self.scale))

    def make(self, given: Given) -> MadeRows:
        """See the class.

        Raises:
            DataError: No column holds images or numbers with a fraction.
        """
        random = self.random()
        parents = positions(len(given), self.count, random)
        columns: dict[str, Column] = {}
        changed = False
        for name, column in given.columns.items():
            if isinstance(column, list):
                columns[name] = [column[parent] for parent in parents]
                continue
            rows = column[parents]
            if not given.is_nominal(name):
                image = column.dtype == np.uint8
                spread = np.nanstd(column, axis=None if image else 0, dtype=np.float64)
                noisy = rows + self.scale * spread * random.standard_normal(rows.shape)
                rows = (np.rint(noisy).clip(0, 255) if image else noisy).astype(column.dtype)
                changed = True
            columns[name] = rows
        if not changed:
            raise DataError(
                "data.made: Noise",
                expected="a column of images or of numbers with a fraction",
                found=", ".join(given.columns),
                harm="every made row would be a copy",
                mend="use MaskedWords for texts, Munge for tables of categories",
            )
        return MadeRows(columns=columns, parents=np.stack([parents, np.full_like(parents, -1)], axis=1))
