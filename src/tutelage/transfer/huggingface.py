"""Rows from a data set of the Hugging Face `datasets` library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa

from tutelage.errors import DataError, MissingExtra
from tutelage.paths import resolve_path
from tutelage.transfer.arrow import Roles, as_names, rows_of
from tutelage.transfer.base import Rows, Source
from tutelage.transfer.saved_sets import require_saved_set
from tutelage.transfer.splits import split_name

__all__ = ["HuggingFaceDataset"]

_SPLIT = "__split__"


class HuggingFaceDataset(Source):
    """A `datasets.Dataset` or `DatasetDict`, in memory or in a folder that `save_to_disk` wrote.

    The splits of a `DatasetDict` are kept: train, validation (as development) and test. Names of a `ClassLabel` become
    the classes. A split `unlabelled` or `unsupervised` is for training; a split without the label column has no labels.

    Args:
        dataset: The folder, or the data set itself.
        text: Column of texts, or two for pairs of texts.
        inputs: Columns of numbers or categories. Those of plain numbers become one float32 matrix `[N, F]` in this
            order, or what `data.tabular` makes of them, of missing ones and of categories; one of lists or arrays
            stands for itself.
        categories: Which of the inputs are categories (texts, numbers, truth values, dates); those that are not among
            the inputs follow them.
        image: Column of images.
        label: Column of the label, or several of numbers.
        group: Column that names groups whose rows must stay in one split.
        classes: Names of the classes, in the order of the model's outputs. Those of a `ClassLabel` are found by name,
            whatever their numbers are in each split; other names, as many, are given to its numbers in turn.
        values: Labels are values to be predicted, not classes. None: as the task of the recipe says.
        unlabelled: What stands for a missing label, beside an empty cell and NaN, such as -1.
        teacher_columns: Columns that are no inputs of the student but are kept for the teacher: answers that are there
            already (`ColumnTeacher`), or what a teacher that reads raw columns sees beyond the student.
        max_gb: Gigabytes that the data set of a folder may take; a larger one is refused before it is read.
    """

    incidental: ClassVar[tuple[str, ...]] = ("max_gb",)

    def __init__(
        self,
        dataset: Any,
        text: str | list[str] | None = None,
        *,
        inputs: list[str] | None = None,
        categories: list[str] | None = None,
        image: str | None = None,
        label: str | list[str] | None = None,
        group: str | None = None,
        classes: list[str] | None = None,
        values: bool | None = None,
        unlabelled: str | int | None = None,
        teacher_columns: list[str] | None = None,
        max_gb: float = 32.0,
    ) -> None:
        self.dataset = dataset
        self.text = text
        self.inputs = inputs
        self.categories = categories
        self.image = image
        self.label = label
        self.group = group
        self.classes = classes
        self.values = values
        self.unlabelled = unlabelled
        self.teacher_columns = teacher_columns
        self.max_gb = max_gb
        self._roles(None, ())

    def _roles(self, split: str | None, classes: tuple[str, ...]) -> Roles:
        return Roles(
            text=as_names(self.text),
            inputs=as_names(self.inputs),
            categories=as_names(self.categories),
            image=self.image,
            label=as_names(self.label),
            group=self.group,
            split=split,
            classes=as_names(self.classes) or classes,
            values=self.values,
            unlabelled=self.unlabelled,
            teacher_columns=as_names(self.teacher_columns),
        )

    def load(self) -> Rows:
        """See `Source.load`."""
        dataset = self._open()
        if hasattr(dataset, "data") and hasattr(dataset.data, "table"):
            names = self._check(dataset, "the data set")
            numbering = Numbering.of({"the data set": names}, as_names(self.classes))
            return rows_of(self._by_name(_table(dataset), names, numbering), self._roles(None, numbering.classes))
        labelled = [name for name, part in dataset.items() if set(as_names(self.label)) <= set(part.column_names)]
        named = {str(name): self._check(dataset[name], str(name)) for name in labelled or dataset}
        numbering = Numbering.of(named, as_names(self.classes))
        tables = []
        for name, part in dataset.items():
            split = split_name(str(name), "data.source: split of the DatasetDict")
            table = _table(part)
            if labelled and name not in labelled:
                table = _without_labels(table, as_names(self.label))
                self._roles(None, ()).check(table.column_names, str(name))
            else:
                table = self._by_name(table, named[str(name)], numbering)
            table = table.select(self._roles(None, ()).columns)
            tables.append(table.append_column(_SPLIT, pa.array([split] * len(part), pa.string())))
        table = pa.concat_tables(tables, promote_options="permissive")
        rows = rows_of(table, self._roles(_SPLIT, numbering.classes))
        return replace(rows, notes=[*numbering.notes, *rows.notes])

    def _by_name(self, table: pa.Table, names: tuple[str, ...], numbering: Numbering) -> pa.Table:
        """The table with class names in the place of their numbers in this split; a negative number is no label."""
        if not numbering.classes or self.values or len(as_names(self.label)) != 1:
            return table
        (label,) = as_names(self.label)
        if not pa.types.is_integer(table[label].type) or not (names or numbering.is_named):
            return table
        texts = numbering.texts(table[label].to_pylist(), names)
        return table.set_column(table.column_names.index(label), label, pa.array(texts, pa.string()))

    def _open(self) -> Any:
        if not isinstance(self.dataset, str):
            return self.dataset
        try:
            import datasets
        except ImportError as error:
            raise MissingExtra("datasets", "datasets", "reading a Hugging Face data set") from error
        folder = resolve_path(self.dataset, key="data.source.dataset")
        require_saved_set(folder, self.max_gb)
        try:
            return datasets.load_from_disk(str(folder))
        except Exception as error:  # of a damaged folder the library raises whatever its parts do
            raise DataError(
                "data.source.dataset",
                expected="a folder that `Dataset.save_to_disk` wrote",
                found=f"`{self.dataset}`: {next(iter(str(error).splitlines()), type(error).__name__)[:400]}",
                mend="save the data set with save_to_disk, or use Table for Parquet files",
            ) from error

    def _check(self, dataset: Any, where: str) -> tuple[str, ...]:
        """Refuses unknown columns; gives the class names of a `ClassLabel`."""
        self._roles(None, ()).check(dataset.column_names, where)
        label = as_names(self.label)
        names = getattr(dataset.features[label[0]], "names", None) if len(label) == 1 else None
        return tuple(names or ())


@dataclass(frozen=True, kw_only=True)
class Numbering:
    """The classes of a data set whose splits may number them differently.

    Attributes:
        classes: All of them, in the order of the model's outputs; empty where they have no names.
        is_named: Whether a split has a `ClassLabel`, by which its numbers have names.
        renamed: The names that the data has for `classes`, number by number, where the recipe has others; else empty.
        notes: What the user should know.
    """

    classes: tuple[str, ...]
    is_named: bool
    renamed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, named: Mapping[str, tuple[str, ...]], given: tuple[str, ...]) -> Numbering:
        """The numbering of splits whose `ClassLabel` has these names, where the recipe gives `classes` or none.

        Raises:
            DataError: The order is open, or the recipe's names are partly those of the data.
        """
        known = {split: names for split, names in named.items() if names}
        lists = list(dict.fromkeys(known.values()))
        every = set().union(*lists)
        if given:
            if every <= set(given):
                return cls(classes=given, is_named=bool(known))
            if len(lists) == 1 and len(given) == len(lists[0]) and not every & set(given):
                return cls(classes=given, is_named=True, renamed=lists[0])
            raise _other_names(known, f"the names of the data, or {len(every)} others for them", sorted(every))
        if len(lists) < 2:
            return cls(classes=lists[0] if lists else (), is_named=bool(known))
        first = sorted(known, key=lambda split: "train" not in split)
        whole = next((split for split in first if set(known[split]) == every), None)
        if whole is None:
            raise _other_names(known, "an order of the classes: no split has all of them", sorted(every))
        order = ", ".join(known[whole])
        note = f"the splits number their classes differently: rows are read by name, in the order of `{whole}`: {order}"
        return cls(classes=known[whole], is_named=True, notes=(note,))

    def texts(self, numbers: Sequence[int | None], names: tuple[str, ...]) -> list[str | None]:
        """The names of class numbers as a split with these names has them; None where there is no label.

        Raises:
            DataError: The split has no names for them, or not for all.
        """
        names = self.classes if self.renamed else names
        wrong = next((row for row, n in enumerate(numbers) if n is not None and n >= len(names)), None)
        if wrong is not None:
            raise DataError(
                f"data.source.label, row {wrong}",
                expected=f"a number below {len(names)}"
                if names
                else "a `ClassLabel` in every split, as others have one",
                found=f"class number {numbers[wrong]}",
                harm="a number may mean another class in each split",
                mend="give the splits the same features (Dataset.cast)",
            )
        return [None if number is None or number < 0 else names[number] for number in numbers]


def _other_names(known: Mapping[str, tuple[str, ...]], expected: str, every: Sequence[str]) -> DataError:
    shown = "; ".join(f"{split}: {', '.join(names[:12])}" for split, names in known.items())
    return DataError(
        "data.source.classes",
        expected=expected,
        found=shown,
        harm="rows of one class would become another",
        mend=f"write classes: [{', '.join(every[:40])}], in the order of the model's outputs",
    )


def _without_labels(table: pa.Table, names: tuple[str, ...]) -> pa.Table:
    """The table with empty columns in the place of those of the label."""
    for name in names:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table)))
    return table


def _table(dataset: Any) -> pa.Table:
    """The Arrow table behind a data set, with a selection or shuffle applied."""
    flat = dataset if dataset._indices is None else dataset.flatten_indices()
    table: pa.Table = flat.data.table
    return table
