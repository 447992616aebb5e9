"""What a server of the Open Inference Protocol says of its model and answers, held against what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tutelage.errors import ModelError, UserError, did_you_mean
from tutelage.ledger import Failure
from tutelage.teachers.tensor_values import DATATYPES

__all__ = [
    "class_numbers",
    "require_alike",
    "require_fixed_sizes",
    "require_names",
    "require_rows",
    "row_kind",
    "unusable_rows",
]

Array = np.ndarray[Any, Any]
MOST = 1.1
"""What probabilities of a row may come to: rounded ones to more than 1, independent ones to much more."""


def require_names(metadata: dict[str, Any], inputs: Sequence[str], output: str | None, who: str) -> None:
    """The inputs and the output that the recipe names are the model's.

    Raises:
        ModelError: They are not, or there are several outputs and none is named.
    """
    for kind, names in (("inputs", inputs), ("outputs", [output] if output else [])):
        known = [each["name"] for each in metadata[kind]]
        for name in names:
            if name not in known:
                raise ModelError(
                    f"{kind.removesuffix('s')} `{name}`",
                    expected=f"one of the {kind} of {who}: {', '.join(known)}",
                    found="no such name",
                    mend=did_you_mean(name, known),
                )
    if output is None and len(metadata["outputs"]) != 1:
        raise ModelError(
            "output",
            expected=f"the name of one of the outputs of {who}",
            found="none",
            mend=f"choose one of: {', '.join(each['name'] for each in metadata['outputs'])}",
        )
    for each in metadata["inputs"]:
        if each["datatype"] not in DATATYPES:
            raise ModelError(
                f"input `{each['name']}`", expected=f"one of {', '.join(DATATYPES)}", found=each["datatype"]
            )


def require_rows(values: Array, rows: int, gives: str) -> None:
    """An output is one for each row, of the kind that the recipe says.

    Raises:
        Failure: It is not.
    """
    if values.ndim < 1 or len(values) != rows:
        raise Failure("unusable", f"an output of shape {list(values.shape)} for {rows} rows", retry=True)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Failure("unusable", "NaN or infinity in the output", retry=True)
    if gives == "label" and (values.dtype.kind not in "iuOS" or values.size != rows):
        raise Failure(
            "unusable", f"labels of {values.dtype} and shape {list(values.shape)} for {rows} rows", retry=False
        )
    if gives == "probabilities" and (values.ndim != 2 or values.min() < 0 or values.sum(1).max() > MOST):
        better = "sigmoid" if values.min() >= 0 and values.max() <= 1 + 1e-6 else "logits"
        raise Failure("unusable", f"an output that is no probabilities of the classes; gives: {better}", retry=False)
    if gives == "sigmoid" and (values.min() < -1e-6 or values.max() > 1 + 1e-6):
        raise Failure("unusable", "an output that is no independent probabilities; gives: logits", retry=False)


def unusable_rows(
    values: Array, rows: int, gives: str, require: Callable[[Array], None]
) -> dict[int, Failure | UserError]:
    """The rows of an output that are of no use, with the reason; before any answer is stored.

    Args:
        values: The output.
        rows: How many rows were asked about.
        gives: Its kind, as the recipe says it.
        require: Refuses what can't be read.

    Raises:
        Failure: None is of use, or the rows can't be told apart.
        UserError: None is of use: it is the recipe that does not fit.
    """

    def judge(some: Array, count: int) -> Failure | UserError | None:
        try:
            require_rows(some, count, gives)
            require(some)
        except (Failure, UserError) as error:
            return error
        return None

    error = judge(values, rows)
    if error is None:
        return {}
    apart = values.ndim > 0 and len(values) == rows > 1
    bad = {row: found for row in range(rows) if (found := judge(values[row : row + 1], 1))} if apart else {}
    if not 0 < len(bad) < rows:
        raise error
    return bad


def require_fixed_sizes(values: Array, metadata: Sequence[int]) -> None:
    """An output has the sizes that the metadata fixes; metadata with another number of axes says nothing of rows.

    Raises:
        Failure: It has others.
    """
    if len(metadata) == values.ndim and any(
        fixed not in (-1, size) for fixed, size in zip(metadata[1:], values.shape[1:], strict=True)
    ):
        said = f"the model's metadata says {list(metadata)}"
        raise Failure("unusable", f"an output of shape {list(values.shape)}, where {said}", retry=False)


def row_kind(row: Array) -> str:
    """Shape and kind of a row of an output, in words."""
    kind = {"f": "floating", "i": "integer", "u": "integer", "b": "boolean"}.get(np.asarray(row).dtype.kind, "text")
    return f"{kind} values of shape {list(np.shape(row))}"


def require_alike(values: Sequence[Array], where: str) -> None:
    """Stored answers have one shape, as those of one model have.

    Raises:
        ModelError: They have several.
    """
    kinds = list(dict.fromkeys(map(row_kind, values)))
    if len(kinds) > 1:
        raise ModelError(
            f"the answers of {where}",
            expected="answers of one shape to all rows of a batch",
            found=" and ".join(kinds),
            harm="they are hardly those of one model, and the student would learn from two",
            mend="begin a new ledger",
        )


def class_numbers(values: Array, names: Sequence[str], who: str) -> Array:
    """Class numbers of class numbers or names.

    Args:
        values: The labels, `[B]`.
        names: The classes, in order.
        who: The teacher, for errors.

    Raises:
        ModelError: There are no names, or a label is none of them.
    """
    if not names:
        raise ModelError(
            f"labels of {who}",
            expected="names of the classes, from which their number is known",
            found="none, neither of the recipe nor of the data",
            mend="give `classes_in_order`",
        )
    if values.dtype.kind == "U":
        place = {name: number for number, name in enumerate(names)}
        strange = next((name for name in values.tolist() if name not in place), None)
        labels = np.array([place.get(name, -1) for name in values.tolist()], np.int64)
    else:
        labels = values.astype(np.int64)
        strange = next((int(label) for label in labels if not 0 <= label < len(names)), None)
    if strange is not None:
        raise ModelError(
            f"labels of {who}",
            expected=f"numbers from 0 to {len(names) - 1}, or names of {', '.join(names)}",
            found=repr(strange),
            harm="the student would learn another class",
            mend="give `classes_in_order` as the server has them",
        )
    return labels
