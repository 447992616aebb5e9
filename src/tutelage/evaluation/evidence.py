"""The raw evidence: what every model said about every row, so that anyone can compute each metric again.

An evidence file is Parquet (zstd). One row a sample; one column of fixed-size lists for each model; the shapes, the
task and the class names are JSON in the schema's metadata under `tutelage`. Reading one back gives the same bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.errors import DataError, SignalError
from tutelage.evaluation.table import fixed_lists, from_fixed_lists, read_table, write_table

__all__ = ["Evidence", "Floats", "PairEvidence", "Task", "read_evidence", "shipped"]

Task = Literal["classification", "multilabel", "regression", "embedding"]
Floats = NDArray[np.float64]
Labels = NDArray[np.int64] | NDArray[np.float32] | NDArray[np.float64]

ROLE = re.compile(r"teacher|untrained|(student|baseline)(@\d+)?")
"""Names of models: `student@1` is the student of another seed, number 1."""
ENDS = ("left_id", "right_id")


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What the models said about the `N` rows of an evaluation set.

    Attributes:
        set: The name of the evaluation set; `test` is the held-out split.
        task: What the outputs are.
        rows: Row numbers in the data set, `[N]` int64.
        digests: A digest of each row's input: the same digest is the same input.
        outputs: By model, `[N, ...]` float32: logits, values or embeddings. `teacher` and `student` are required;
            `baseline` (the same student without distillation) and `untrained` (the student before training) are not;
            `student@1` and `baseline@1` are those of seed 1, when `seed` is another.
        labels: `[N]` int64 classes; `[N, C]` of 0 and 1 for multilabel; `[N]` or `[N, K]` values. None: no labels.
        labelled: `[N]` bool; where it is False the label means nothing. None exactly when `labels` is.
        classes: Names of the classes.
        groups: `[N]` int64: rows of one number came together (sentences of an article) and are not independent, so
            intervals resample whole groups. None: each row by itself.
        seed: The number of the seed whose `student` and `baseline` these are: the shipped one.

    Raises:
        SignalError: Shapes, types or model names do not fit.
    """

    set: str
    task: Task
    rows: NDArray[np.int64]
    digests: list[str]
    outputs: dict[str, NDArray[np.float32]]
    labels: Labels | None = None
    labelled: NDArray[np.bool_] | None = None
    classes: list[str] | None = None
    groups: NDArray[np.int64] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        where = f"evidence of `{self.set}`"
        if self.task not in get_args(Task):
            raise SignalError(where, expected=f"a task of {', '.join(get_args(Task))}", found=repr(self.task))
        check_models(where, self.outputs)
        lengths = {"rows": len(self.rows), "digests": len(self.digests)}
        lengths |= {model: output.shape[0] if output.ndim else -1 for model, output in self.outputs.items()}
        lengths |= {name: len(v) for name in ("labels", "labelled", "groups") if (v := getattr(self, name)) is not None}
        if len(set(lengths.values())) > 1 or 0 in lengths.values():
            raise SignalError(where, expected="the same number of rows everywhere, at least one", found=str(lengths))
        if (self.labels is None) != (self.labelled is None):
            raise SignalError(where, expected="`labels` and `labelled` together or neither", found="one of them")
        kinds: list[tuple[str, NDArray[Any] | None, tuple[type[Any], ...]]] = [
            ("rows", self.rows, (np.int64,)),
            ("labels", self.labels, (np.int64, np.float32, np.float64)),
            ("labelled", self.labelled, (np.bool_,)),
            ("groups", self.groups, (np.int64,)),
            *((f"outputs of {model}", output, (np.float32,)) for model, output in self.outputs.items()),
        ]
        for name, array, allowed in kinds:
            if array is not None and (array.dtype not in allowed or not array.size):
                names = " or ".join(kind.__name__ for kind in allowed)
                found = f"{array.dtype} of shape {array.shape}"
                raise SignalError(f"{name} in the {where}", expected=f"an array of {names}", found=found)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_labels(self) -> bool:
        """Whether at least one row has a label."""
        return self.labelled is not None and bool(self.labelled.any())

    @property
    def same_width(self) -> bool:
        """Whether the outputs of teacher and student have one shape."""
        return self.outputs["teacher"].shape == self.outputs["student"].shape

    def only(self, chosen: NDArray[np.bool_]) -> Evidence:
        """The evidence on some of the rows."""
        return replace(
            self,
            rows=self.rows[chosen],
            digests=[digest for digest, kept in zip(self.digests, chosen.tolist(), strict=True) if kept],
            outputs={model: output[chosen] for model, output in self.outputs.items()},
            labels=None if self.labels is None else self.labels[chosen],
            labelled=None if self.labelled is None else self.labelled[chosen],
            groups=None if self.groups is None else self.groups[chosen],
        )

    def write(self, path: Path | str) -> None:
        """Writes the evidence as Parquet, atomically."""
        columns: dict[str, Any] = {"row": self.rows, "digest": self.digests}
        if self.labels is not None and self.labelled is not None:
            columns["label"] = fixed_lists(self.labels) if self.labels.ndim > 1 else self.labels
            columns["labelled"] = self.labelled
        if self.groups is not None:
            columns["group"] = self.groups
        columns |= {model: fixed_lists(output) for model, output in self.outputs.items()}
        about = {
            "kind": "evidence",
            "set": self.set,
            "task": self.task,
            "shapes": {model: list(output.shape[1:]) for model, output in self.outputs.items()},
            "label_shape": None if self.labels is None else list(self.labels.shape[1:]),
            "classes": self.classes,
            "grouped": self.groups is not None,
            "seed": self.seed,
        }
        write_table(Path(path), columns, about)

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """The inverse of `write`.

        Raises:
            DataError: The file is missing or is not an evidence file.
        """
        table, about = read_table(Path(path), "evidence")
        labelled = about["label_shape"] is not None
        return cls(
            set=about["set"],
            task=about["task"],
            rows=table["row"].to_numpy(),
            digests=table["digest"].to_pylist(),
            outputs={model: from_fixed_lists(table[model], shape) for model, shape in about["shapes"].items()},
            labels=from_fixed_lists(table["label"], about["label_shape"]) if labelled else None,
            labelled=table["labelled"].to_numpy() if labelled else None,
            classes=about["classes"],
            groups=table["group"].to_numpy() if about.get("grouped") else None,
            seed=about["seed"],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PairEvidence:
    """Pairs of texts that people scored for similarity, and how similar each model's embeddings of them are.

    Attributes:
        set: The name of the set: `wordsim353`.
        score: The human score of each pair, `[N]` float64.
        similarities: By model (named as in `Evidence`): the cosine of the pair's embeddings, `[N]` float64.
        left_id: `[N]` int64: which text is the first of each pair. Pairs that share a text are not independent, so
            intervals resample texts. None (exactly when `right_id` is): pairs are taken to be independent.
        right_id: Which text is the second, in the same numbers.
        seed: The number of the shipped seed.

    Raises:
        SignalError: Shapes, types or model names do not fit.
    """

    set: str
    score: Floats
    similarities: dict[str, Floats]
    left_id: NDArray[np.int64] | None = None
    right_id: NDArray[np.int64] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        where = f"evidence of `{self.set}`"
        check_models(where, self.similarities)
        for name, array in {"score": self.score, **self.similarities}.items():
            if array.dtype != np.float64 or array.shape != (len(self.score),) or not len(array):
                raise SignalError(
                    f"{name} in the {where}",
                    expected=f"float64 of shape ({len(self.score)},), at least one pair",
                    found=f"{array.dtype} of shape {array.shape}",
                )
        if (self.left_id is None) != (self.right_id is None):
            raise SignalError(where, expected="`left_id` and `right_id` together or neither", found="one of them")
        for name, ids in (("left_id", self.left_id), ("right_id", self.right_id)):
            if ids is not None and (ids.dtype != np.int64 or ids.shape != self.score.shape):
                raise SignalError(
                    f"{name} in the {where}",
                    expected=f"int64 of shape ({len(self.score)},)",
                    found=f"{ids.dtype} of shape {ids.shape}",
                )

    def __len__(self) -> int:
        return len(self.score)

    @property
    def ends(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """The texts of each pair, or None where they are not known."""
        return None if self.left_id is None or self.right_id is None else (self.left_id, self.right_id)

    @classmethod
    def from_embeddings(
        cls,
        set: str,
        score: Floats,
        *,
        left: Mapping[str, NDArray[Any]],
        right: Mapping[str, NDArray[Any]],
        ends: tuple[ArrayLike, ArrayLike] | None = None,
        seed: int = 0,
    ) -> Self:
        """The evidence of pairs from the embeddings of their two sides, by model, `[N, D]` each.

        Args:
            set: The name of the set.
            score: The human scores, `[N]`.
            left: Embeddings of the first text of each pair.
            right: Embeddings of the second.
            ends: Numbers of the first and the second text of each pair, `[N]` each: the same number, the same text.
            seed: The number of the shipped seed.
        """
        ids = (None, None) if ends is None else tuple(np.asarray(side, np.int64) for side in ends)
        return cls(
            set=set,
            score=np.asarray(score, np.float64),
            similarities={model: cosine(left[model], right[model]) for model in left},
            left_id=ids[0],
            right_id=ids[1],
            seed=seed,
        )

    def write(self, path: Path | str) -> None:
        """Writes the evidence as Parquet, atomically."""
        about = {
            "kind": "pairs",
            "set": self.set,
            "models": list(self.similarities),
            "ends": self.ends is not None,
            "seed": self.seed,
        }
        ends = {} if self.ends is None else dict(zip(ENDS, self.ends, strict=True))
        write_table(Path(path), {"score": self.score, **ends, **self.similarities}, about)

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """The inverse of `write`.

        Raises:
            DataError: The file is missing or is not an evidence file of pairs.
        """
        table, about = read_table(Path(path), "pairs")
        similarities = {model: table[model].to_numpy() for model in about["models"]}
        ends = {name: table[name].to_numpy() for name in ENDS} if about.get("ends") else {}
        score = table["score"].to_numpy()
        return cls(set=about["set"], score=score, similarities=similarities, **ends, seed=about["seed"])


def read_evidence(path: Path | str) -> Evidence | PairEvidence:
    """Reads an evidence file of either kind; the file itself says which.

    Raises:
        DataError: The file is missing or holds no evidence.
    """
    _, about = read_table(Path(path))
    if about["kind"] not in {"evidence", "pairs"}:
        raise DataError(str(path), expected="evidence or pairs", found=f"a file of kind {about['kind']!r}")
    return Evidence.read(path) if about["kind"] == "evidence" else PairEvidence.read(path)


def shipped(model: str) -> bool:
    """Whether `model` is of the shipped seed, not one of another seed such as `student@1`."""
    return "@" not in model


def cosine(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Cosine of the rows of `a` and `b`, `[N, D]` each, in float64; 0 where one of them is the zero vector."""
    cosines: Floats = np.einsum("nd,nd->n", unit(a), unit(b))
    return cosines


def unit(x: NDArray[Any]) -> Floats:
    """The rows of `x` (all axes but the first flattened) at length 1, in float64; a zero row stays zero."""
    rows = x.reshape(len(x), -1).astype(np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return units


def check_models(where: str, models: Mapping[str, object]) -> None:
    """Refuses names that are no model's, and evidence without a teacher or a student."""
    for model in models:
        if not ROLE.fullmatch(model):
            raise SignalError(
                where, expected="teacher, student, baseline, untrained, student@N or baseline@N", found=repr(model)
            )
    if missing := {"teacher", "student"} - set(models):
        raise SignalError(where, expected="outputs of teacher and student", found=f"none of {', '.join(missing)}")
