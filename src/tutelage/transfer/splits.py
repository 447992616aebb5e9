"""Which rows train, which steer the training and which judge it: decided by content, so the three can't overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from tutelage.errors import DataError, RecipeError, did_you_mean
from tutelage.transfer.hashing import Digests, mixed

__all__ = ["SPLITS", "SplitName", "Splits", "assign", "split_name"]

SplitName = Literal["train", "development", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
TRAIN, DEVELOPMENT, TEST, NONE = 0, 1, 2, -1
"""Codes of the splits in `assign`'s answer; NONE is a row that was dropped."""

_NOUNS = ("training", "development", "test")
_PER_GROUP = 3
"""Tells the draw of `per_group` from others of the same seed."""
_SYNONYMS = {
    "training": "train",
    "dev": "development",
    "valid": "development",
    "validation": "development",
    "val": "development",
    "eval": "development",
    "testing": "test",
    "unlabelled": "train",
    "unlabeled": "train",
    "unsupervised": "train",
}


@dataclass(kw_only=True)
class Splits:
    """Shares of the splits that the source does not give itself.

    A row goes where the digest of its group (or, without groups, of its content) says: `u = hash(seed, digest) / 2^64`
    is in test below `test`, in development below `test + development`, else in train. So duplicates stay together,
    and no row moves when others are added. A split that the source gives is kept as it is; one that it lacks is drawn
    from the rows that it leaves open or, if it leaves none open, from its training rows.

    Attributes:
        development: Share of the rows that choose the best checkpoint.
        test: Share of the rows that judge the result.
        seed: Another seed draws other splits.
        per_group: How many rows of one group development and test keep each, chosen by content; the others are dropped,
            for their group can't be learnt from. None: all. An interval over groups of unlike size rests on the few
            largest; beyond some hundred rows a group adds time and next to no knowledge.
    """

    development: float = 0.1
    test: float = 0.1
    seed: int = 0
    per_group: int | None = None

    def __post_init__(self) -> None:
        for name in ("development", "test"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise RecipeError(f"data.splits.{name}", expected="a share from 0 to below 1", found=str(share))
        if self.development + self.test >= 1:
            raise RecipeError(
                "data.splits",
                expected="development + test below 1",
                found=f"{self.development} + {self.test}",
                harm="no row would be left to train on",
            )
        if self.per_group is not None and self.per_group < 1:
            raise RecipeError(
                "data.splits.per_group", expected="at least 1 row, or null for all", found=str(self.per_group)
            )


def split_name(word: str | None, key: str) -> str:
    """The split that a source means by `word`: "train", "development", "test", or "" where it says nothing.

    Raises:
        DataError: It is none of the usual names.
    """
    name = (word or "").strip().lower()
    name = _SYNONYMS.get(name, name)
    if name not in (*SPLITS, ""):
        raise DataError(
            key,
            expected="train, development (or validation), test, or nothing",
            found=f"`{word}`",
            mend=did_you_mean(name, [*SPLITS, *_SYNONYMS]),
        )
    return name


def assign(
    content: Digests, group: Digests | None, split: Sequence[str] | None, splits: Splits
) -> tuple[np.ndarray[Any, np.dtype[np.int8]], list[str]]:
    """The split of each row, and notes on what was dropped.

    After the assignment no content and no group stands in two splits: development rows that also stand in test are
    dropped, and training rows that also stand in test or development.

    Args:
        content: `[N]` digest of what each row says.
        group: `[N]` digest of each row's group, or None.
        split: `[N]` what the source says ("" leaves it open), or None.
        splits: The shares.

    Returns:
        `[N]` int8 codes (0 train, 1 development, 2 test, -1 dropped), and a sentence for each kind of drop.
    """
    codes = _draw(content if group is None else group, split, splits)
    _refuse_empty(codes, splits)
    notes = []
    for code, above in ((DEVELOPMENT, (TEST,)), (TRAIN, (TEST, DEVELOPMENT))):
        for other in above:
            for what, digests in (("they also stand", content), ("their group also stands", group)):
                if digests is None:
                    continue
                mine = codes == code
                taken = mine & np.isin(digests, digests[codes == other])
                if taken.any():
                    codes[taken] = NONE
                    notes.append(
                        f"{taken.sum():,} of {mine.sum():,} {_NOUNS[code]} rows dropped: {what} in {SPLITS[other]}"
                    )
    _refuse_empty(codes, splits, notes)
    return codes, notes + _keep_per_group(codes, content, group, splits)


def _draw(keys: Digests, split: Sequence[str] | None, splits: Splits) -> np.ndarray[Any, np.dtype[np.int8]]:
    """Each row's split before overlaps are removed."""
    given = np.asarray([""] * len(keys) if split is None else split, dtype=object)
    codes = np.full(len(keys), TRAIN, dtype=np.int8)
    codes[given == "development"] = DEVELOPMENT
    codes[given == "test"] = TEST
    pool = given == ""
    if not pool.any():
        pool = given == "train"
    test = 0.0 if (codes == TEST).any() else splits.test
    development = 0.0 if (codes == DEVELOPMENT).any() else splits.development
    u = mixed(splits.seed, keys) / 2.0**64
    codes[pool & (u < test + development)] = DEVELOPMENT
    codes[pool & (u < test)] = TEST
    return codes


def _keep_per_group(
    codes: np.ndarray[Any, np.dtype[np.int8]], content: Digests, group: Digests | None, splits: Splits
) -> list[str]:
    """Drops the rows of development and test above `per_group`, in place."""
    if splits.per_group is None or group is None:
        return []
    notes = []
    for code in (DEVELOPMENT, TEST):
        rows = np.flatnonzero(codes == code)
        rows = rows[np.lexsort((mixed(splits.seed, np.array([_PER_GROUP]), content[rows]), group[rows]))]
        _, first, size = np.unique(group[rows], return_index=True, return_counts=True)
        rank = np.arange(len(rows)) - np.repeat(first, size)
        if (rank >= splits.per_group).any():
            codes[rows[rank >= splits.per_group]] = NONE
            kept = int((rank < splits.per_group).sum())
            notes.append(
                f"{kept:,} of {len(rows):,} {_NOUNS[code]} rows used: at most {splits.per_group:,} of each of "
                f"{len(size):,} groups (data.splits.per_group)"
            )
    return notes


def _refuse_empty(codes: np.ndarray[Any, np.dtype[np.int8]], splits: Splits, dropped: Sequence[str] = ()) -> None:
    wanted = {TRAIN: 1.0, DEVELOPMENT: splits.development, TEST: splits.test}
    for code, share in wanted.items():
        if share > 0 and not (codes == code).any():
            raise DataError(
                f"data.splits: {SPLITS[code]}",
                expected="at least one row",
                found=f"none of {len(codes):,} rows{''.join(f'; {why}' for why in dropped)}",
                harm="nothing could be trained, chosen or judged on it",
                mend="take rows that stand in two splits out of one of them: a row that is learnt can't judge"
                if dropped
                else "use more rows (or more groups), a larger share or another seed",
            )
