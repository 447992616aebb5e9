"""How a model that keeps no names of its categories had them written: found by asking it.

CatBoost keeps hashes of texts. A whole number is "1" for it, or "1.0" where its user turned a column with gaps into
texts; a spelling that it was not fitted on counts, without a word, as a category that it has never seen. So each
spelling is compared with a text that no table holds: what the model knows moves its answers away from that text's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.categories import MISSING_WORDS, spellings
from tutelage.errors import ModelError

__all__ = ["Spelling"]

Array = np.ndarray[Any, Any]
Ask = Callable[[dict[str, list[str]]], Array]
"""Answers `[N, ...]` of the model for rows whose columns of categories are replaced by these texts."""

_ENOUGH = 16
"""Cells of a column, of two values at least, that can't all be new to a model by chance."""
_ROWS = 256
"""Rows that are asked about, beside some with missing cells."""
_LOOKS = 8
"""Batches that are looked at, at most: a column that none of them tells about stays as it is."""
_MATTERS = 1.0
"""Per cent of a model's importance from which on a column without a known category is no teacher's column."""
_NOTHING = "\x00 in no table \x00"


class Spelling:
    """The spelling of each column of categories; a column keeps the one that was found first.

    Args:
        model: How to name it in messages.
        missing: The text that stands for a missing category.
    """

    def __init__(self, model: str, missing: str) -> None:
        self._model = model
        self._missing = missing
        self._found: dict[str, int] = {}
        self._whole: set[str] = set()
        self._left = _LOOKS

    def wants(self, columns: Mapping[str, Sequence[Any]]) -> Array:
        """Which rows of a batch to look at; none where all is known."""
        if not self._left or self._whole.issuperset(columns):
            return np.arange(0)
        self._left -= 1
        missing = [np.flatnonzero([cell is None for cell in cells])[:_ENOUGH] for cells in columns.values()]
        count = len(next(iter(columns.values())))
        return np.unique(np.concatenate([np.arange(min(count, _ROWS)), *missing]))

    def written(self, name: str, cells: Sequence[Any]) -> list[str]:
        """A column as texts, in the spelling that was found for it."""
        place = self._found.get(name, 0)
        return [self._missing if cell is None else spellings(cell)[place] for cell in cells]

    def look(self, columns: Mapping[str, Sequence[Any]], importance: Mapping[str, float], ask: Ask) -> None:
        """Finds the spelling of each column of which some rows tell it.

        Args:
            columns: The columns of categories, None where one is missing.
            importance: Of each column for the model, in per cent.
            ask: Asks the model about the same rows.

        Raises:
            ModelError: The model knows none of many cells of a column that matters to it, in no spelling, or it knows
                another text for missing ones.
        """
        for name, cells in columns.items():
            if name in self._whole:
                continue
            texts = {each: self.written(each, column) for each, column in columns.items()}
            there = np.array([cell is not None for cell in cells])
            unknown = ask(texts | {name: [_NOTHING] * len(cells)})

            def knows(column: list[str], unknown: Array = unknown, name: str = name, texts: Any = texts) -> Array:
                differs = ask(texts | {name: column}) != unknown
                return np.asarray(differs.reshape(len(column), -1).any(axis=1))

            if name not in self._found:
                self._choose(name, cells, there, knows, importance[name])
            if name in self._found and not there.all():
                self._check_missing(name, there, knows, self.written(name, cells))
                self._whole.add(name)

    def _choose(
        self, name: str, cells: Sequence[Any], there: Array, knows: Callable[[list[str]], Array], importance: float
    ) -> None:
        forms = [spellings(cell) if cell is not None else (_NOTHING,) * 9 for cell in cells]
        columns = list(dict.fromkeys(zip(*forms, strict=True)))
        known = [int(knows(list(column))[there].sum()) for column in columns]
        if any(known):
            best = columns[int(np.argmax(known))]
            self._found[name] = list(zip(*forms, strict=True)).index(best)
            return
        kinds = list(dict.fromkeys(cell for cell in cells if cell is not None))
        if importance >= _MATTERS and there.sum() >= _ENOUGH and len(kinds) > 1:
            raise ModelError(
                f"column `{name}` of the data",
                expected=f"categories that {self._model} was fitted on",
                found="none of them in any spelling, but " + ", ".join(map(repr, kinds[:5])),
                harm="the model would take each row for one of a category that it has never seen",
                mend="write the categories as in the rows that the model was fitted on, or fit it anew",
            )

    def _check_missing(self, name: str, there: Array, knows: Callable[[list[str]], Array], column: list[str]) -> None:
        """Refuses a text for missing cells that is new to the model, where it knows a usual one."""

        def asked(word: str) -> bool:
            texts = [text if has else word for text, has in zip(column, there, strict=True)]
            return bool(knows(texts)[~there].any())

        if asked(self._missing):
            return
        known = [word for word in (*MISSING_WORDS[::-1], "none", "missing", "unknown", "Missing", "?") if asked(word)]
        if known:
            raise ModelError(
                "teacher.missing_category",
                expected=f"the text that stood for a missing category where {self._model} was fitted",
                found=f"`{self._missing}`, which it does not know in column `{name}`; it knows `{known[0]}`",
                harm="the model would take each row without a category for one that it has never seen",
                mend=f'missing_category: "{known[0]}"',
            )
