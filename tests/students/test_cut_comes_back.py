"""A cut student is loaded from its bundle's folder as it was, whatever it was cut from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_models import ENCODERS, MODELS, TOKENS, model, output, teacher_of

from tutelage.export import load_student, save_student
from tutelage.students import CutStudent


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        *((name, CutStudent([0, 2])) for name in MODELS),
        *((name, CutStudent([1, 3], 16, intermediate_size=10, dropout=0.0)) for name in ENCODERS),
    ],
)
def test_a_cut_student_comes_back(name: str, cut: CutStudent, tmp_path: Path) -> None:
    made = cut.build(teacher_of(model(name)))
    about = save_student(made, tmp_path, example=TOKENS)
    assert about["loads"], about["why_not"]
    torch.testing.assert_close(output(load_student(tmp_path)), output(made), atol=1e-6, rtol=0)
