from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from small_models import model, teacher_of
from torch import nn

from tutelage.errors import ModelError
from tutelage.students import CutStudent, HuggingFaceStudent, ModuleStudent, Student
from tutelage.teachers import ModuleTeacher, SentenceEncoder

TEACHER = ModuleTeacher(nn.Identity())
MAKE = functools.partial(nn.Linear, 3, 2)


def weight(module: nn.Module) -> torch.Tensor:
    return module.get_parameter("weight")


def test_each_build_is_new_and_drawn_from_the_seeded_generator() -> None:
    student = ModuleStudent(MAKE)
    torch.manual_seed(0)
    one, two = student.build(TEACHER), student.build(TEACHER)
    torch.manual_seed(0)
    again = student.build(TEACHER)
    assert torch.equal(weight(one), weight(again)) and not torch.equal(weight(one), weight(two))


def test_a_live_module_keeps_its_weights_and_is_not_trained_itself() -> None:
    live = nn.Linear(3, 2).eval()
    built = ModuleStudent(live).build(TEACHER)
    assert torch.equal(weight(built), live.weight) and built.training and not live.training
    with torch.no_grad():
        weight(built).zero_()
    assert live.weight.abs().sum() > 0


def test_a_factory_that_gives_one_module_twice_gives_two_students() -> None:
    live = nn.Linear(3, 2)
    student = ModuleStudent(lambda: live)
    one, two = student.build(TEACHER), student.build(TEACHER)
    assert one is not two and weight(one).data_ptr() != weight(two).data_ptr() != live.weight.data_ptr()


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(ModelError, match=r"(?s)student\.module.*makes a dict"):
        ModuleStudent(dict).build(TEACHER)  # type: ignore[arg-type]


def test_a_pretrained_student_starts_from_its_file_in_training_mode(tmp_path: Path) -> None:
    saved = model("bert")
    saved.save_pretrained(tmp_path)
    student = HuggingFaceStudent(str(tmp_path), pooling="cls").build(TEACHER)
    assert isinstance(student, SentenceEncoder) and student.training
    assert student.pooling == "cls"
    expected = saved.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in student.model.state_dict().items())
    with pytest.raises(ModelError, match=r"student\.path"):
        HuggingFaceStudent(str(tmp_path / "none")).build(TEACHER)


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ({"class_path": "CutStudent", "init_args": {"layers": [0, 2], "heads": 3, "dropout": 0}}, CutStudent),
        ({"class_path": "HuggingFaceStudent", "init_args": {"path": "model", "normalize": False}}, HuggingFaceStudent),
        ({"class_path": "ModuleStudent", "init_args": {"module": "torch.nn.Identity"}}, ModuleStudent),
    ],
)
def test_a_recipe_can_name_each_student(written: dict[str, object], kind: type[Student]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--student", type=Student)
    written = {**written, "class_path": f"tutelage.students.{written['class_path']}"}
    student = parser.instantiate(parser.parse_object({"student": written})).student
    assert type(student) is kind
    if isinstance(student, CutStudent):
        built = student.build(teacher_of(model("bert")))
        assert built.model.config.hidden_size == 12  # type: ignore[union-attr]


class Lazy(nn.Module):
    """Its first layer gets its width from the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LazyLinear(4)


def test_a_module_that_has_no_shapes_yet_is_refused_by_its_layer() -> None:
    for made in (Lazy, Lazy()):
        with pytest.raises(ModelError, match=r"student\.module\n[^\0]*`first`: LazyLinear"):
            ModuleStudent(made).build(ModuleTeacher(nn.Linear(2, 2)))
        with pytest.raises(ModelError, match=r"teacher\.module\n[^\0]*`first`: LazyLinear"):
            ModuleTeacher(made).load(torch.device("cpu"))


def test_a_module_of_the_old_weight_norm_is_refused_with_what_mends_it() -> None:
    def old() -> nn.Module:
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 3)))

    with pytest.raises(ModelError, match=r"`0\.weight`, which is computed[^\0]*parametrizations\.weight_norm"):
        ModuleStudent(old).build(ModuleTeacher(nn.Linear(2, 2)))
    new = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)))
    built = ModuleStudent(new).build(ModuleTeacher(nn.Linear(2, 2)))
    torch.testing.assert_close(built(torch.ones(1, 2)), new(torch.ones(1, 2)))
