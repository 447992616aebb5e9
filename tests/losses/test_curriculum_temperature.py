from __future__ import annotations

import math
from dataclasses import replace

import class_labels
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from class_labels import held
from loss_case import Array, Case, Numbers, Plain, batch_of, objective, prepared, signals_of
from scipy.special import expit, log_softmax
from test_decoupled_kd import position
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.cross_entropy import CrossEntropy
from tutelage.losses.curriculum_temperature import CurriculumTemperature, reversed_gradient
from tutelage.losses.decoupled_kd import DecoupledKD
from tutelage.losses.kl_divergence import KLDivergence
from tutelage.losses.reduce import TeacherGradient


def at(progress: float, loss: CurriculumTemperature) -> CurriculumTemperature:
    loss.progress = progress
    return loss


def kl(s: Array, t: Array, temperature: Array, axis: int = -1) -> Array:
    """`τ² · KL` at temperatures that broadcast against the outputs."""
    q, p = log_softmax(s / temperature, axis=axis), log_softmax(t / temperature, axis=axis)
    return (np.exp(p) * (p - q) * temperature**2).sum(axis)


def by_hand(value: Array, lowest: float = 1.0, span: float = 4.0) -> Array:
    return lowest + span * expit(value)


def golden(n: Numbers, axis: int = -1) -> Array:
    return kl(n.student["output"], n.teacher["output"], by_hand(n.trained["value"]), axis)


def predicted(n: Numbers, s: Array, t: Array) -> Array:
    """The two layers, on logits of both models with the classes last; the student's held fixed."""
    x = np.concatenate([s, t], -1)
    hidden = np.maximum(x @ n.trained["predictor.first.weight"].T + n.trained["predictor.first.bias"], 0)
    return by_hand((hidden @ n.trained["predictor.second.weight"].T + n.trained["predictor.second.bias"])[..., 0])


def by_instance(n: Numbers) -> Array:
    s, t = n.student["output"], n.teacher["output"]
    return kl(s, t, predicted(n, held(s), t)[..., None])


def by_picture(n: Numbers) -> Array:
    s, t = n.student["output"], n.teacher["output"]
    temperature = predicted(n, held(s).mean((2, 3)), t.mean((2, 3)))
    return kl(s, t, temperature[:, None, None, None], 1).mean((1, 2))


def decoupled(n: Numbers) -> Array:
    temperature = float(by_hand(n.trained["value"], 2.0, 5.0))
    return class_labels.by_position(
        lambda s, t, y: position(s, t, y, alpha=1.0, beta=8.0, T=temperature),
        n.student["output"],
        n.teacher["output"],
        n.labels,
    )


CASES = {
    "global": Case(
        lambda: at(1.0, CurriculumTemperature(KLDivergence(1.0), span=4.0)),
        {"output": (5,)},
        {"output": (5,)},
        golden,
        floor=0.0,
        adversary=-1.0,
    ),
    "half way up": Case(
        lambda: at(0.1, CurriculumTemperature(KLDivergence(1.0), span=4.0, rise=0.2, strength=0.6)),
        {"output": (3, 5)},
        {"output": (3, 5)},
        golden,
        tokens=3,
        floor=0.0,
        adversary=-0.3,
    ),
    "pixels": Case(
        lambda: at(1.0, CurriculumTemperature(KLDivergence(1.0, axis=1), span=4.0, axis=1)),
        {"output": (3, 2, 4)},
        {"output": (3, 2, 4)},
        lambda n: golden(n, 1).mean((1, 2)),
        floor=0.0,
        adversary=-1.0,
    ),
    "a loss with labels": Case(
        lambda: at(1.0, CurriculumTemperature(DecoupledKD(temperature=1.0), lowest=2.0, span=5.0)),
        {"output": (4,)},
        {"output": (4,)},
        decoupled,
        labels=class_labels.of_rows,
        floor=0.0,
        adversary=-1.0,
    ),
    "instance": Case(
        lambda: at(1.0, CurriculumTemperature(KLDivergence(1.0), span=4.0, temperature="instance", hidden=3)),
        {"output": (5,)},
        {"output": (5,)},
        by_instance,
        floor=0.0,
        adversary=-1.0,
    ),
    "instance, tokens": Case(
        lambda: at(1.0, CurriculumTemperature(KLDivergence(1.0), span=4.0, temperature="instance", hidden=3)),
        {"output": (3, 5)},
        {"output": (3, 5)},
        by_instance,
        tokens=3,
        floor=0.0,
        adversary=-1.0,
    ),
    "instance, pixels": Case(
        lambda: at(
            1.0, CurriculumTemperature(KLDivergence(1.0, axis=1), span=4.0, temperature="instance", hidden=3, axis=1)
        ),
        {"output": (3, 2, 4)},
        {"output": (3, 2, 4)},
        by_picture,
        floor=0.0,
        adversary=-1.0,
    ),
}


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return -gradient


def softened(s: Tensor, t: Tensor, temperature: Tensor) -> Tensor:
    values = F.kl_div(F.log_softmax(s / temperature, dim=1), F.softmax(t / temperature, dim=1), reduction="none")
    return (values.sum(1, keepdim=True) * temperature**2).mean()


def plain(
    student: dict[str, Tensor], teacher: dict[str, Tensor], labels: Tensor, loss: CurriculumTemperature
) -> Tensor:
    value = Reversed.apply(loss.value)
    return softened(student["output"], teacher["output"], 1.0 + 20.0 * torch.sigmoid(value))


def plain_instance(
    student: dict[str, Tensor], teacher: dict[str, Tensor], labels: Tensor, loss: CurriculumTemperature
) -> Tensor:
    s, t = student["output"], teacher["output"]
    hidden = F.relu(loss.predictor.first(torch.cat([s.detach(), t], 1)))
    value = Reversed.apply(loss.predictor.second(hidden))
    return softened(s, t, 1.0 + 20.0 * torch.sigmoid(value))


PLAIN = {
    "global": Plain(
        lambda: at(1.0, CurriculumTemperature(KLDivergence(1.0))),
        {"output": (1000,)},
        {"output": (1000,)},
        plain,
        samples=512,
    ),
    "instance": Plain(
        lambda: at(1.0, CurriculumTemperature(KLDivergence(1.0), temperature="instance")),
        {"output": (1000,)},
        {"output": (1000,)},
        plain_instance,
        samples=512,
    ),
}


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.0), (0.01, 0.5 - 0.5 * math.cos(math.pi / 5)), (0.05, 1.0)])
def test_the_reversal_rises_along_a_cosine_from_zero_and_then_stays(progress: float, expected: float) -> None:
    """The authors' `CosineDecay(0, -1, loops)` gives -λ; a λ that falls, or starts at 1, would show."""
    assert at(progress, CurriculumTemperature(KLDivergence(1.0))).reversal == pytest.approx(expected)
    assert at(1.0, CurriculumTemperature(KLDivergence(1.0), strength=0.7)).reversal == pytest.approx(0.7)


def test_reversed_means_the_value_is_unchanged_and_the_gradient_has_the_other_sign() -> None:
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    y = reversed_gradient(x, 0.25)
    assert torch.equal(y, x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, -0.25))


def test_training_the_temperature_raises_the_loss_while_the_students_gradient_lowers_it() -> None:
    case = CASES["global"]
    numbers = case.draw()
    loss, batch = prepared(case, numbers), batch_of(numbers)
    student, teacher = signals_of(numbers.student, torch.float64, grad=True), signals_of(numbers.teacher, torch.float64)
    before = objective(loss, student, teacher, batch)
    before.backward()
    with torch.no_grad():
        loss.value -= 0.1 * loss.value.grad
        assert objective(loss, student, teacher, batch) > before
        loss.value += 0.1 * loss.value.grad
        lower = replace(student, output=student.output - 0.1 * student.output.grad)
        assert objective(loss, lower, teacher, batch) < before


def test_the_students_gradient_does_not_pass_through_the_predicted_temperature() -> None:
    """It would be reversed there: the student would learn to be hard to teach."""
    case = CASES["instance"]
    numbers = case.draw()
    loss, batch = prepared(case, numbers), batch_of(numbers)
    gradients = []
    for progress in (0.0, 1.0):
        loss.progress = progress
        student = signals_of(numbers.student, torch.float64, grad=True)
        objective(loss, student, signals_of(numbers.teacher, torch.float64), batch).backward()
        gradients.append(student.output.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_t_squared_is_there_once_so_a_high_temperature_keeps_the_size_of_the_gradient() -> None:
    sizes = []
    for lowest in (1e3, 2e3):
        case = Case(
            lambda lowest=lowest: CurriculumTemperature(KLDivergence(1.0), lowest=lowest, span=1.0),
            {"output": (5,)},
            {"output": (5,)},
            golden,
        )
        numbers = case.draw()
        student = signals_of(numbers.student, torch.float64, grad=True)
        teacher = signals_of(numbers.teacher, torch.float64)
        objective(prepared(case, numbers), student, teacher, batch_of(numbers)).backward()
        sizes.append(student.output.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-2)


def test_a_predictor_for_other_classes_is_refused_once_it_is_made() -> None:
    case = CASES["instance"]
    loss = prepared(case, case.draw())
    other = replace(case, student={"output": (3,)}, teacher={"output": (3,)}).draw()
    with pytest.raises(SignalError, match="forget"):
        loss.prepare(
            signals_of(other.student, torch.float64), signals_of(other.teacher, torch.float64), batch_of(other)
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CurriculumTemperature(KLDivergence(4.0)), "temperature 1"),
        (lambda: CurriculumTemperature(CrossEntropy()), "both models"),
        (lambda: CurriculumTemperature(KLDivergence(1.0), axis=1), "axis must be"),
        (lambda: CurriculumTemperature(KLDivergence(1.0, weight=0.5)), "no effect"),
        (lambda: CurriculumTemperature(KLDivergence(1.0), temperature="local"), "must be one of"),
        (lambda: CurriculumTemperature(KLDivergence(1.0), rise=0.0), "rise must be"),
        (lambda: CurriculumTemperature(KLDivergence(1.0), lowest=0.0), "lowest must be"),
        (lambda: CurriculumTemperature(KLDivergence(1.0), span=-1.0), "span must be"),
        (lambda: CurriculumTemperature(KLDivergence(1.0), strength=-1.0), "strength must be"),
        (lambda: CurriculumTemperature(KLDivergence(1.0), hidden=0), "hidden must be"),
    ],
)
def test_inner_losses_and_arguments_that_do_not_fit_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_an_inner_loss_that_detaches_its_teacher_is_refused() -> None:
    """The gradient of the temperature would lack the teacher's side, and nothing would show it."""

    class Detaching(KLDivergence):
        def forward(self, student, teacher, batch):
            return super().forward(student, teacher.map(torch.Tensor.detach), batch)

    case = replace(CASES["global"], make=lambda: CurriculumTemperature(Detaching(1.0)))
    with pytest.raises(SignalError, match="detaches it"):
        prepared(case, case.draw())


def test_the_teachers_gradient_is_stopped_again_once_the_inner_loss_has_run() -> None:
    case = CASES["global"]
    numbers = case.draw()
    loss, batch = prepared(case, numbers), batch_of(numbers)
    student = signals_of(numbers.student, torch.float64, grad=True)
    teacher = signals_of(numbers.teacher, torch.float64, grad=True)
    (loss(student, teacher, batch) + KLDivergence()(student, teacher, batch)).sum().backward()
    assert teacher.output.grad is None
    with pytest.raises(SignalError):
        loss(student, replace(teacher, output=teacher.output[:, :3]), batch)
    assert not TeacherGradient.passes


def test_other_classes_of_the_teacher_are_refused_with_both_shapes() -> None:
    case = Case(lambda: CurriculumTemperature(KLDivergence(1.0)), {"output": (5,)}, {"output": (3,)}, golden)
    with pytest.raises(SignalError, match=r"CurriculumTemperature[\s\S]*\(4, 3\)[\s\S]*\(4, 5\)"):
        prepared(case, case.draw())


def test_the_temperature_starts_where_the_authors_start() -> None:
    loss = CurriculumTemperature(KLDivergence(1.0))
    assert by_hand(loss.value.detach().numpy(), loss.lowest, loss.span) == pytest.approx(15.62, abs=0.01)
