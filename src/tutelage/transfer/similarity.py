"""Pairs of texts whose similarity people have rated: sentence encoders are judged on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from tutelage.errors import DataError, RecipeError, did_you_mean
from tutelage.transfer.wikipedia import gensim_file

__all__ = ["Pairs", "SimilarityPairs"]

_FILES = {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt", "lee": "lee.cor"}
_LEE_RATINGS = "similarities0-1.txt"


class Pairs(NamedTuple):
    """Pairs of texts and what people said of them: the higher the score, the more alike."""

    text_a: list[str]
    text_b: list[str]
    scores: np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class SimilarityPairs:
    """A set of human-rated pairs, from gensim's test data.

    * `wordsim353`: 353 pairs of words by relatedness, 0 to 10 (Finkelstein et al., 2002).
    * `simlex999`: 999 pairs of words by similarity, 0 to 10 (Hill, Reichart and Korhonen, 2015).
    * `lee`: all 1,225 pairs of 50 short news items, 0 to 1 (Lee, Pincombe and Welsh, 2005); the longest are cut to the
      tokenizer's `max_length`.

    Attributes:
        name: Which set.
    """

    name: Literal["wordsim353", "lee", "simlex999"]

    def __post_init__(self) -> None:
        if self.name not in _FILES:
            raise RecipeError(
                "similarity set", expected="a known name", found=f"`{self.name}`", mend=did_you_mean(self.name, _FILES)
            )

    def load(self) -> Pairs:
        """Reads the pairs.

        Raises:
            DataError: gensim is not installed, or the file is not as expected.
        """
        purpose = f"similarity pairs `{self.name}`"
        path = gensim_file(_FILES[self.name], purpose)
        if self.name == "lee":
            return _lee(path, gensim_file(_LEE_RATINGS, purpose))
        return _word_pairs(path)


def _word_pairs(path: Path) -> Pairs:
    """Lines of two words and a score between tabs; `#` begins a comment. The files are Latin-1."""
    lines = [line.split("\t") for line in path.read_text(encoding="latin-1").splitlines()]
    rows = [fields for fields in lines if len(fields) == 3 and not fields[0].startswith("#")]
    if not rows:
        raise DataError(str(path), expected="lines `word, word, score`", found="none")
    first, second, scores = zip(*rows, strict=True)
    return Pairs(list(first), list(second), np.array(scores, dtype=np.float64))


def _lee(documents: Path, ratings: Path) -> Pairs:
    """Every pair i < j of the documents, with its entry of the matrix of ratings."""
    texts = [line.strip() for line in documents.read_text(encoding="latin-1").splitlines() if line.strip()]
    matrix = np.loadtxt(ratings, dtype=np.float64)
    if matrix.shape != (len(texts), len(texts)):
        raise DataError(
            str(ratings), expected=f"a rating for each pair of {len(texts)} documents", found=f"shape {matrix.shape}"
        )
    i, j = np.triu_indices(len(texts), k=1)
    return Pairs([texts[k] for k in i], [texts[k] for k in j], matrix[i, j])
