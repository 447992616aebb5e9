"""What a model's input is given: every type into every other, against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import write_embedding

from tutelage.errors import ModelError
from tutelage.signals import Batch, Request
from tutelage.teachers import OnnxTeacher
from tutelage.teachers.casts import converted
from tutelage.teachers.tensor_values import DATATYPES, fitted

NUMBERS = [name for name in DATATYPES.values() if name != "object"]
VALUES = [
    0, 1, -1, 2, 127, 128, 144, 255, 256, -128, -129, 32768, 65504, 65536, 2**24, 2**24 + 1, 2**31 - 1, 2**31, -(2**31),
    2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64 - 1, 0.5, -0.25, 1.5, 1e6, 1e5 + 0.5, 1e39, 1e300, 1e-9,
    float("nan"), float("inf"), float("-inf"),
]  # fmt: skip


def exact(number: Any) -> Any:
    """A numpy number as an exact fraction, or as the float that it is where it is none."""
    plain = number.item()
    return plain if isinstance(plain, float) and not np.isfinite(plain) else Fraction(plain)


def arrives(source: Any, target: np.dtype[Any]) -> bool:
    """Whether the number may be sent as that type, by exact arithmetic."""
    value = exact(source)
    if target.kind == "b":
        return value in (0, 1)
    if target.kind in "iu":
        limits = np.iinfo(target)
        whole = isinstance(value, Fraction) and value.denominator == 1
        return whole and int(limits.min) <= value <= int(limits.max)
    if not isinstance(value, Fraction):
        return True
    with np.errstate(over="ignore"):
        cast = target.type(source)
    if source.dtype.kind == "f":  # rounding is what floating numbers do
        return bool(np.isfinite(cast))
    return bool(np.isfinite(cast)) and exact(cast) == value


def sources(name: str) -> np.ndarray[Any, Any]:
    """The values that this type holds exactly, or rounded where it is a floating one."""
    dtype = np.dtype(name)
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        held = [v for v in VALUES if isinstance(v, int) and int(limits.min) <= v <= int(limits.max)]
        return np.array(held, dtype)
    with np.errstate(over="ignore"):
        return np.array([float(value) for value in VALUES]).astype(dtype)


@pytest.mark.parametrize("target", NUMBERS)
@pytest.mark.parametrize("source", NUMBERS)
def test_a_number_arrives_as_it_is_or_is_refused_with_its_row(source: str, target: str) -> None:
    """Catches 144 that is sent as -112, 1e6 as infinity, NaN as a whole number, 2**53 + 1 as its neighbour."""
    dtype = np.dtype(target)
    datatype = next(name for name, kind in DATATYPES.items() if kind == target)
    for number in sources(source):
        array = np.array([0, number], dtype=source)
        wanted = {"name": "x", "datatype": datatype, "shape": [-1]}
        if arrives(number, dtype):
            for found in (converted(array, dtype, where="x"), fitted(array, wanted)):
                assert found.dtype == dtype
                with np.errstate(over="ignore"):
                    np.testing.assert_array_equal(found[1], dtype.type(number))
        else:
            with pytest.raises(ModelError, match=r"x[\s\S]*in row 8: "):
                converted(array, dtype, where="x", rows=[3, 8])
            with pytest.raises(ModelError, match=r"input `x` \(\w+\)[\s\S]*in row 8: "):
                fitted(array, wanted, [3, 8])


def test_the_refusal_names_the_value_and_what_the_data_holds() -> None:
    with pytest.raises(ModelError, match=r"int8 can hold[\s\S]*144 in row 1: int64 from -3 to 200"):
        converted(np.array([[1, -3], [144, 200]]), np.dtype("int8"), where="x", rows=[0, 1])
    with pytest.raises(ModelError, match=r"identifiers[\s\S]*16777217[\s\S]*floating numbers if they may be rounded"):
        converted(np.array([2**24 + 1]), np.dtype("float32"), where="x")


@pytest.mark.parametrize("cells", [["a", None, "c"], [b"a", None, b"c"]])
def test_texts_arrive_as_texts_and_a_missing_one_is_empty(cells: list[Any]) -> None:
    found = converted(np.array(cells, dtype=object), np.dtype(object), where="x")
    assert found.tolist() == ["a", "", "c"]
    with pytest.raises(ModelError, match="texts"):
        converted(np.array([1.0]), np.dtype(object), where="x")
    with pytest.raises(ModelError, match="numbers"):
        converted(np.array(["1"]), np.dtype("int8"), where="x")


def test_a_graph_and_a_served_model_refuse_the_same_by_the_number_of_the_row(tmp_path: Path) -> None:
    teacher = OnnxTeacher(str(write_embedding(tmp_path / "m.onnx")))
    teacher.load(torch.device("cpu"))
    rows = torch.tensor([17, 40])
    inputs = {"ids": torch.tensor([1, 2**40]), "scale": torch.ones(2, 2)}
    with pytest.raises(ModelError, match=rf"`ids` int32[\s\S]*{2**40} in row 40"):
        teacher.ask(Batch(inputs=inputs, rows=rows, views=torch.zeros_like(rows)), Request(output=True))
