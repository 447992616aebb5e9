"""Mixup: rows between two rows."""

from __future__ import annotations

import numpy as np

from tutelage.errors import DataError, RecipeError
from tutelage.transfer.made import Column, Given, MadeRows, Maker, positions

__all__ = ["Mixup"]


class Mixup(Maker):
    """`λ x_i + (1 - λ) x_j` with `λ ~ Beta(α, α)` and two training rows drawn at random, for arrays and images.

    The paper mixes the labels too; here the teacher says what it sees in the mix. Images stay 8-bit: a mix is rounded
    to whole grey levels. A row is drawn as a first parent as often as the others, up to once.

    Source: Zhang, Cissé, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", 2018.

    Args:
        count: How many rows are made.
        alpha: `α`: 1 spreads `λ` evenly, less keeps it near 0 and 1, more near a half.
        seed: Another seed makes others.
    """

    def __init__(self, count: int, alpha: float = 1.0, *, seed: int = 0) -> None:
        self.count = count
        self.alpha = alpha
        self.seed = seed

    def check(self, key: str) -> None:
        """Refuses a count below 1 and an `alpha` that is not positive."""
        super().check(key)
        if not 0 < self.alpha < float("inf"):
            raise RecipeError(f"{key}.alpha", expected="a positive number", found=str(self.alpha))

    def make(self, given: Given) -> MadeRows:
        """See the class.

        Raises:
            DataError: There is a single row, or a column of texts or whole numbers.
        """
        if len(given) < 2:
            raise DataError("data.made: Mixup", expected="at least 2 training rows", found=str(len(given)))
        random = self.random()
        first = positions(len(given), self.count, random)
        second = (first + random.integers(1, len(given), self.count)) % len(given)
        share = random.beta(self.alpha, self.alpha, self.count)
        columns: dict[str, Column] = {}
        for name, column in given.columns.items():
            if isinstance(column, list) or given.is_nominal(name):
                raise DataError(
                    f"data.made: Mixup: column `{name}`",
                    expected="images or numbers with a fraction",
                    found="texts" if isinstance(column, list) else "categories or whole numbers",
                    harm="a mix of two words or categories is neither",
                    mend="use MaskedWords for texts, Munge for tables",
                )
            weight = share.reshape(-1, *[1] * (column.ndim - 1))
            mixed = weight * column[first] + (1 - weight) * column[second]
            columns[name] = (np.rint(mixed) if column.dtype == np.uint8 else mixed).astype(column.dtype)
        return MadeRows(columns=columns, parents=np.stack([first, second], axis=1))
