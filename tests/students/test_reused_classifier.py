from __future__ import annotations

import functools

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from tutelage import losses
from tutelage.errors import ModelError, RecipeError
from tutelage.signals import Batch, Request
from tutelage.students import ReusedClassifier, Student
from tutelage.taps import observe
from tutelage.teachers import ModuleTeacher

BACKBONE = functools.partial(nn.Conv2d, 1, 4, 3)
INPUTS = torch.randn(6, 1, 7, 7, generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    """A teacher: maps of 6 channels, their mean, and a classifier with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layer4 = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU())
        self.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer4(x).mean((2, 3)))


@pytest.fixture
def teacher() -> ModuleTeacher:
    torch.manual_seed(0)
    made = ModuleTeacher(Network())
    made.load(torch.device("cpu"))
    return made


def batch() -> Batch:
    return Batch(inputs=INPUTS, rows=torch.arange(6), views=torch.zeros(6, dtype=torch.long))


def test_with_the_teachers_features_in_its_place_the_projector_gives_the_teachers_answers(teacher) -> None:
    built = ReusedClassifier(BACKBONE, 4, "fc").build(teacher).eval()
    built.backbone, built.projector = nn.Identity(), teacher.module.layer4
    torch.testing.assert_close(built(INPUTS), teacher.ask(batch(), Request(output=True)).output)


def test_the_classifier_is_a_copy_that_no_training_changes_and_the_projector_ships(teacher) -> None:
    """A classifier that is trained, in train mode, or shared with the teacher; a projector that stays with the loss."""
    torch.manual_seed(0)
    built = ReusedClassifier(BACKBONE, 4, "fc").build(teacher)
    before = {name: value.clone() for name, value in built.state_dict().items()}
    loss = losses.SimKD({"projector": "layer4"})
    said = teacher.ask(batch(), loss.needs.teacher)
    loss.prepare(observe(built, INPUTS, loss.needs.student), said, batch())
    assert not list(loss.parameters())
    optimizer = torch.optim.SGD([p for p in built.parameters() if p.requires_grad], lr=0.1)
    values = []
    for _ in range(20):
        built.train()
        assert not any(module.training for module in built.classifier.modules())
        says = observe(built, INPUTS, loss.needs.student | Request(output=True))
        value = loss(says, said, batch()).mean()
        optimizer.zero_grad()
        (value + 1e-3 * says.output.square().mean()).backward()  # a second term, which reaches the classifier
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] / 2
    changed = {name for name, value in built.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("classifier") for name in changed)
    assert any(name.startswith("projector") for name in changed)
    own = {parameter.data_ptr() for parameter in teacher.module.parameters()}
    assert not own & {parameter.data_ptr() for parameter in built.parameters()}
    assert all(parameter.requires_grad for parameter in teacher.module.parameters())


def test_the_classifier_of_a_half_precision_teacher_is_taken_over_in_float32(teacher) -> None:
    teacher.module.half()
    built = ReusedClassifier(BACKBONE, 4, "fc").build(teacher)
    assert {parameter.dtype for parameter in built.parameters()} == {torch.float32}


def test_each_build_is_new_and_drawn_from_the_seeded_generator(teacher) -> None:
    student = ReusedClassifier(BACKBONE, 4, "fc")
    torch.manual_seed(0)
    one, two = student.build(teacher), student.build(teacher)
    torch.manual_seed(0)
    again = student.build(teacher)
    one_, two_, again_ = (made.projector[0].weight for made in (one, two, again))
    assert torch.equal(one_, again_) and not torch.equal(one_, two_)
    assert torch.equal(one.backbone.weight, again.backbone.weight)


@pytest.mark.parametrize(("factor", "inner"), [(2, 3), (10, 1)])
def test_the_projector_narrows_in_between(teacher, factor: int, inner: int) -> None:
    built = ReusedClassifier(BACKBONE, 4, "fc", factor=factor).build(teacher)
    shapes = [tuple(layer.weight.shape) for layer in built.projector if isinstance(layer, nn.Conv2d)]
    assert shapes == [(inner, 4, 1, 1), (inner, inner, 3, 3), (6, inner, 1, 1)]
    assert isinstance(built.projector[-1], nn.ReLU)


def test_features_that_may_be_negative_are_not_cut_off(teacher) -> None:
    """A ReLU at the end could never reach what a transformer's pooled state says below 0."""
    flat = functools.partial(nn.Sequential, nn.Flatten(), nn.Linear(49, 5))
    built = ReusedClassifier(flat, 5, "fc", features="vectors", activation="none").build(teacher)
    features = observe(built, INPUTS, Request(output=True, features=frozenset({"projector"})))
    assert features.features["projector"].shape == (6, 6) and features.output.shape == (6, 3)
    assert features.features["projector"].min() < 0


def test_a_layer_that_is_not_there_is_refused_with_the_nearest_name(teacher) -> None:
    with pytest.raises(ModelError, match=r"`fcc` of the teacher[\s\S]*`fc`"):
        ReusedClassifier(BACKBONE, 4, "fcc").build(teacher)


def test_a_layer_without_a_matrix_is_refused(teacher) -> None:
    with pytest.raises(ModelError, match=r"`layer4\.1`[\s\S]*last linear layer"):
        ReusedClassifier(BACKBONE, 4, "layer4.1").build(teacher)


def test_a_teacher_that_is_no_module_is_refused() -> None:
    with pytest.raises(ModelError, match=r"student\.classifier[\s\S]*ModuleStudent"):
        ReusedClassifier(BACKBONE, 4, "fc").build(ModuleTeacher(Network))


@pytest.mark.parametrize("arguments", [{"width": 0}, {"factor": 0}])
def test_impossible_numbers_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match="positive"):
        ReusedClassifier(BACKBONE, **{"width": 4, "classifier": "fc", **arguments})


def test_a_recipe_can_name_it(teacher) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--student", type=Student)
    backbone = {"class_path": "torch.nn.Conv2d", "init_args": {"in_channels": 1, "out_channels": 4, "kernel_size": 3}}
    arguments = {"backbone": backbone, "width": 4, "classifier": "fc"}
    written = {"class_path": "tutelage.students.ReusedClassifier", "init_args": arguments}
    student = parser.instantiate(parser.parse_object({"student": written})).student
    assert student.build(teacher)(INPUTS).shape == (6, 3)
