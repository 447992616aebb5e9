"""Rows of the recipes that no file holds as they are."""

from __future__ import annotations

from dataclasses import replace

from tutelage.transfer import Digits, Rows, Source

__all__ = ["DigitsWithParity", "OddDigits"]


class DigitsWithParity(Source):
    """scikit-learn's digits with a column `odd`, to be named in `data.tasks`: whether the digit is odd."""

    def load(self) -> Rows:
        """See `Source.load`."""
        rows = Digits().load()
        assert rows.labels is not None
        return replace(rows, columns={**rows.columns, "odd": rows.labels % 2})


class OddDigits(Source):
    """scikit-learn's digits, labelled with whether they are odd: another task than telling which digit it is."""

    def load(self) -> Rows:
        """See `Source.load`."""
        rows = Digits().load()
        assert rows.labels is not None
        return replace(rows, labels=rows.labels % 2, classes=("even", "odd"))
