"""A table with missing numbers and categories, and what teachers of tables are told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tutelage.teachers import TransferFacts
from tutelage.transfer import Data, Table, Tabular, TransferSet

N = 300
NUMBERS = ["size", "age"]
CATEGORIES = ["kind", "zone"]
CLASSES = {2: ["no", "yes"], 3: ["high", "low", "mid"]}


def frame(classes: int = 2) -> pd.DataFrame:
    """`size`, `age`, `kind` (texts), `zone` (whole numbers) with holes; `label` (texts), `value`, `other`."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"size": rng.normal(0, 1, N), "age": rng.normal(40, 9, N)})
    kind, zone = rng.choice(["ant", "bee", "cow"], N), rng.choice([3, 7, 11], N)
    score = table["size"] + (kind == "bee") - (zone == 7) + 0.3 * rng.normal(size=N)
    table["kind"], table["zone"] = kind, pd.array(zone, dtype="Int64")
    names = CLASSES[classes]
    table["label"] = np.array(names)[np.digitize(score, np.quantile(score, np.arange(1, classes) / classes))]
    table["value"], table["other"] = score.astype(np.float32), (2 * score + 1).astype(np.float32)
    table.loc[::5, "size"] = np.nan
    table.loc[::7, "kind"] = None
    table.loc[::11, "zone"] = pd.NA
    return table


def pandas_rows(classes: int = 2) -> pd.DataFrame:
    """The same rows as a user of the libraries has them: categories of pandas."""
    table = frame(classes)[NUMBERS + CATEGORIES]
    table["kind"] = pd.Categorical(table["kind"], categories=["ant", "bee", "cow"])
    table["zone"] = pd.Categorical(
        table["zone"].astype(object).where(table["zone"].notna(), None), categories=[3, 7, 11]
    )
    return table


def loaded(
    folder: Path,
    kind: str = "parquet",
    *,
    classes: int = 2,
    label: Any = "label",
    names: list[str] | None = None,
    **more: Any,
) -> TransferSet:
    """The table through a file, as a recipe has it."""
    folder.mkdir(parents=True, exist_ok=True)
    path, table = folder / f"rows-{classes}.{kind}", frame(classes)
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    roles = {"inputs": NUMBERS, "categories": CATEGORIES, "label": label, "classes": names} | more
    return Data(source=Table(str(path), **roles), tabular=Tabular()).load()


def facts(data: TransferSet) -> TransferFacts:
    """What the plan tells a teacher."""
    return TransferFacts(
        inputs=data.inputs_fingerprint,
        rows=len(data),
        classes=data.classes,
        labelled=lambda: data.batch(data.labelled_rows),
    )
