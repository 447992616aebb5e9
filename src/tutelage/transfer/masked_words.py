"""Texts of which words are masked, replaced or left out."""

from __future__ import annotations

from typing import Any

import numpy as np

from tutelage.errors import DataError, RecipeError
from tutelage.transfer.made import Column, Given, MadeRows, Maker, positions

__all__ = ["MaskedWords"]

Array = np.ndarray[Any, Any]

_LONGEST = 5
"""Words of the longest n-gram, as in the paper."""


class MaskedWords(Maker):
    """Texts with some words masked or replaced, or cut to a few words in a row.

    For each word a number is drawn evenly from [0, 1]: below `mask` the word is masked; from there to `mask + replace`
    it is replaced by a word drawn from all training texts, as often as it stands in them. Then, with probability
    `ngram`, the text is cut to `n` words in a row, with `n` drawn from 1 to 5. Where there are two columns of texts
    each is changed for itself; other columns stay as they are.

    The paper replaces a word by one of the same part of speech. That needs a tagger, so here any word may follow.

    Source: Tang, Lu, Liu, Mou, Vechtomova, Lin, "Distilling Task-Specific Knowledge from BERT into Simple Neural
    Networks", 2019, with its probabilities as defaults.

    Args:
        count: How many rows are made.
        mask: Probability that a word is masked.
        replace: Probability that it is replaced.
        ngram: Probability that a text is cut.
        mask_word: What stands in the place of a masked word. None: the tokenizer's own mask, or nothing where it has
            none.
        seed: Another seed makes others.
    """

    def __init__(
        self,
        count: int,
        mask: float = 0.1,
        replace: float = 0.1,
        ngram: float = 0.25,
        *,
        mask_word: str | None = None,
        seed: int = 0,
    ) -> None:
        self.count = count
        self.mask = mask
        self.replace = replace
        self.ngram = ngram
        self.mask_word = mask_word
        self.seed = seed

    def check(self, key: str) -> None:
        """Refuses a count below 1 and probabilities that are none, or that change nothing."""
        super().check(key)
        for name in ("mask", "replace", "ngram"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{key}.{name}", expected="a probability", found=str(getattr(self, name)))
        if self.mask + self.replace > 1 or self.mask + self.replace + self.ngram == 0:
            raise RecipeError(
                key,
                expected="mask + replace up to 1, and one of the three above 0",
                found=f"mask {self.mask}, replace {self.replace}, ngram {self.ngram}",
            )

    def make(self, given: Given) -> MadeRows:
        """See the class.

        Raises:
            DataError: No column holds texts.
        """
        random = self.random()
        parents = positions(len(given), self.count, random)
        texts = {name: column for name, column in given.columns.items() if isinstance(column, list)}
        if not texts:
            raise DataError(
                "data.made: MaskedWords",
                expected="a column of texts",
                found=", ".join(given.columns),
                mend="use Mixup or Noise for arrays and images, Munge for tables",
            )
        words = np.array([word for column in texts.values() for text in column for word in text.split()], dtype=object)
        mask = given.mask_word if self.mask_word is None else self.mask_word
        columns: dict[str, Column] = {}
        for name, column in given.columns.items():
            if isinstance(column, list):
                columns[name] = [self._changed(column[parent], words, mask, random) for parent in parents]
            else:
                columns[name] = column[parents]
        return MadeRows(columns=columns, parents=np.stack([parents, np.full_like(parents, -1)], axis=1))

    def _changed(self, text: str, words: Array, mask: str | None, random: np.random.Generator) -> str:
        """One text, changed. A text that would lose all its words keeps its first."""
        old = text.split()
        draws = random.random(len(old))
        others = words[random.integers(0, len(words), len(old))] if len(words) else old
        new = [
            mask if draw < self.mask else other if draw < self.mask + self.replace else word
            for word, other, draw in zip(old, others, draws, strict=True)
        ]
        kept = [word for word in new if word] or old[:1]
        if random.random() < self.ngram:
            length = min(int(random.integers(1, _LONGEST + 1)), len(kept))
            start = int(random.integers(0, len(kept) - length + 1))
            kept = kept[start : start + length]
        return " ".join(kept) or text
