"""What would fail only when the trained student is stored or exported is found before it is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from text_folders import gpt2, plan_of, texts
from torch import Tensor, nn

import tutelage as tt
from tutelage.errors import ModelError, RecipeError


class Branching(nn.Linear):
    """A forward pass that depends on a value, which no graph can say."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 1 if float(x.sum()) > 0 else x)


def recipe(student: type[nn.Linear], *, onnx: bool = True) -> tt.Recipe:
    inputs = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    torch.manual_seed(0)
    return tt.Recipe(
        name="branching",
        task="classification",
        data=tt.Data(source=tt.Arrays(inputs)),
        teacher=tt.ModuleTeacher(nn.Linear(4, 3)),
        student=tt.ModuleStudent(lambda: student(4, 3)),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=2, batch_size=8),
        export=tt.Export(onnx=onnx),
    )


def test_a_student_that_does_not_export_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"export\.onnx\n[^\0]*exporting Branching[^\0]*after its training"):
        tt.distill(recipe(Branching), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    tt.make_plan(recipe(Branching, onnx=False)).rehearse()


def test_a_graph_that_runs_for_the_traced_rows_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a graph whose output has another shape than the module's for another number of rows."""
    from tutelage.export.onnx import OnnxModel

    monkeypatch.setattr(OnnxModel, "__call__", lambda self, inputs: torch.zeros(2, 3))
    with pytest.raises(RecipeError, match=r"shape \(2, 3\) in place of \(3, 3\)"):
        tt.make_plan(recipe(nn.Linear)).rehearse()


def test_a_cut_student_that_comes_back_as_another_is_refused(tmp_path: Path) -> None:
    """A GPT-2 that scales each layer by its number: the layers that are kept have other numbers in what is stored."""
    teacher = tt.HuggingFaceTeacher(gpt2(tmp_path / "scaled", pad=0, scale_attn_by_inverse_layer_idx=True))
    with pytest.raises(ModelError, match=r"student\n[^\0]*other outputs"):
        plan_of(teacher, tt.CutStudent([1, 3]), texts({}))
    plain = tt.HuggingFaceTeacher(gpt2(tmp_path / "plain", pad=0))
    assert plan_of(plain, tt.CutStudent([1, 3]), texts({})).steps == 2


def test_a_student_that_a_bundle_can_not_build_is_told_of_in_the_plan() -> None:
    class Local(nn.Linear):
        """A class that no other program can import."""

    notes = {kind: " ".join(tt.make_plan(recipe(kind)).notes) for kind in (nn.Linear, Local)}
    assert "load_student can't build it" not in notes[nn.Linear]  # torch's own keeps its arguments
    assert "load_student can't build it" in notes[Local]
