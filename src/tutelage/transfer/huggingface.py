"""Rows from a data set of the Hugging Face `datasets` library."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tutelage.errors import DataError, MissingExtra
from tutelage.paths import resolve_path
from tutelage.transfer.arrow import Roles, as_names, rows_of
from tutelage.transfer.base import Rows, Source
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
        classes: Names of the classes, in the order of the model's outputs.
        values: Whole-number labels are values to be predicted, not class numbers.
    """

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
        values: bool = False,
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
        )

    def load(self) -> Rows:
        """See `Source.load`."""
        dataset = self._open()
        if hasattr(dataset, "data") and hasattr(dataset.data, "table"):
            classes = self._check(dataset, "the data set")
            return rows_of(_table(dataset), self._roles(None, classes))
        tables, classes = [], ()
        labelled = [name for name, part in dataset.items() if set(as_names(self.label)) <= set(part.column_names)]
        for name, part in dataset.items():
            split = split_name(str(name), "data.source: split of the DatasetDict")
            table = _table(part)
            if labelled and name not in labelled:
                table = _without_labels(table, as_names(self.label))
                self._roles(None, ()).check(table.column_names, str(name))
            else:
                classes = self._check(part, str(name))
            table = table.select(self._roles(None, ()).columns)
            tables.append(table.append_column(_SPLIT, pa.array([split] * len(part), pa.string())))
        return rows_of(pa.concat_tables(tables, promote_options="permissive"), self._roles(_SPLIT, classes))

    def _open(self) -> Any:
        if not isinstance(self.dataset, str):
            return self.dataset
        try:
            import datasets
        except ImportError as error:
            raise MissingExtra("datasets", "datasets", "reading a Hugging Face data set") from error
        folder = resolve_path(self.dataset, key="data.source.dataset")
        try:
            return datasets.load_from_disk(str(folder))
        except (OSError, ValueError) as error:
            raise DataError(
                "data.source.dataset",
                expected="a folder that `Dataset.save_to_disk` wrote",
                found=f"`{self.dataset}`: {str(error).splitlines()[0]}",
                mend="save the data set with save_to_disk, or use Table for Parquet files",
            ) from error

    def _check(self, dataset: Any, where: str) -> tuple[str, ...]:
        """Refuses unknown columns; gives the class names of a `ClassLabel`."""
        self._roles(None, ()).check(dataset.column_names, where)
        label = as_names(self.label)
        names = getattr(dataset.features[label[0]], "names", None) if len(label) == 1 else None
        return tuple(names or ())


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
