"""What a server makes of raw columns is what the student was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_transfer_tabular import data, source, written
from test_transfer_text import save_tokenizer

from tutelage.signals import Inputs
from tutelage.transfer import Arrays, Data, ImageFolder, Images, Splits, Text, TransferSet

ROWS = np.array([11, 0, 7, 39])
RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(40, 3))
PIXELS = RNG.integers(0, 256, size=(40, 6, 5, 3), dtype=np.uint8)
TEXTS = [" ".join("abcdefgh"[: 1 + row % 8]) for row in range(40)]


def loaded(columns: Any, **more: Any) -> TransferSet:
    return Data(source=Arrays(columns), splits=Splits(development=0, test=0), **more).load()


def folder_of_images(folder: Path) -> TransferSet:
    from PIL import Image

    for row in range(40):
        path = folder / "ab"[row % 2] / f"{row}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(PIXELS[row]).save(path)
    return Data(source=ImageFolder(str(folder)), images=Images(mean=[0.1, 0.2, 0.3], std=[2.0], size=4)).load()


def texts(folder: Path, **columns: Any) -> TransferSet:
    return loaded({"text": TEXTS, **columns}, text=Text(tokenizer=save_tokenizer(folder), max_length=7))


SETS = {
    "a table, one-hot": lambda folder: data(written(folder)).load(),
    "a table, codes": lambda folder: data(written(folder), categories="codes").load(),
    "a table of numbers as they are": lambda folder: Data(
        source=source(written(folder), inputs=["income"], categories=None)
    ).load(),
    "one array": lambda _: loaded(NUMBERS),
    "two arrays": lambda _: loaded({"a": NUMBERS, "b": np.arange(40)}),
    "images": lambda _: loaded(PIXELS, images=Images(mean=[0.5], std=[0.25, 0.5, 1.0])),
    "images, channels first": lambda _: loaded(PIXELS.transpose(0, 3, 1, 2)),
    "image files": folder_of_images,
    "texts": texts,
    "pairs of texts and numbers": lambda folder: texts(folder, other=TEXTS[::-1], size=NUMBERS),
}


def named(inputs: Inputs) -> dict[str, torch.Tensor]:
    return inputs if isinstance(inputs, dict) else {"": inputs}


@pytest.mark.parametrize("name", SETS)
def test_rows_encoded_anew_are_those_that_the_student_sees(name: str, tmp_path: Path) -> None:
    """Catches a column left out, another order, statistics, layout, padding or type."""
    transfer = SETS[name](tmp_path)
    batch = transfer.batch(ROWS)
    assert batch.raw is not None
    found, expected = named(transfer.encode(batch.raw())), named(batch.inputs)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=0, atol=0)
