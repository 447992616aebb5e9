from __future__ import annotations

import class_labels
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from class_labels import by_pixel, by_position
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from scipy.special import log_softmax, logsumexp
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.decoupled_kd import DecoupledKD, decoupled_kd
from tutelage.losses.kl_divergence import softmax_kl
from tutelage.signals import Signals


def kl(log_p: Array, log_q: Array) -> float:
    return float((np.exp(log_p) * (log_p - log_q)).sum())


def position(s: Array, t: Array, y: int, *, alpha: float = 1.0, beta: float = 8.0, T: float = 4.0) -> float:
    """The paper's equations 2 to 7, with the two-class distribution `b` made by adding probabilities in log space."""
    others = np.arange(len(s)) != y

    def parts(z: Array) -> tuple[Array, Array]:
        log_p = log_softmax(z / T)
        return np.array([log_p[y], logsumexp(log_p[others])]), log_softmax(z[others] / T)

    (b_s, o_s), (b_t, o_t) = parts(s), parts(t)
    return T**2 * (alpha * kl(b_t, b_s) + beta * kl(o_t, o_s))


def golden(n: Numbers) -> Array:
    return by_position(position, n.student["output"], n.teacher["output"], n.labels)


CASES = {
    "classes": Case(DecoupledKD, {"output": (4,)}, {"output": (4,)}, golden, labels=class_labels.of_rows, floor=0.0),
    "factors": Case(
        lambda: DecoupledKD(0.5, 2.0, 1.5),
        {"output": (4,)},
        {"output": (4,)},
        lambda n: by_position(
            lambda s, t, y: position(s, t, y, alpha=0.5, beta=2.0, T=1.5),
            n.student["output"],
            n.teacher["output"],
            n.labels,
        ),
        labels=class_labels.of_rows,
        floor=0.0,
    ),
    "tokens": Case(
        DecoupledKD,
        {"output": (3, 4)},
        {"output": (3, 4)},
        golden,
        tokens=3,
        labels=class_labels.of_tokens,
        counts=class_labels.token_counts,
        floor=0.0,
    ),
    "pixels": Case(
        lambda: DecoupledKD(axis=1),
        {"output": (4, 2, 2)},
        {"output": (4, 2, 2)},
        lambda n: by_pixel(position, n),
        labels=class_labels.of_pixels,
        counts=class_labels.pixel_counts,
        floor=0.0,
    ),
}


def plain(student: dict[str, Tensor], teacher: dict[str, Tensor], labels: Tensor, loss: DecoupledKD) -> Tensor:
    s, t = student["output"] / 4.0, teacher["output"] / 4.0
    at = F.one_hot(labels, s.shape[1]).bool()
    p, q = s.softmax(1), t.softmax(1)
    b_s, b_t = (torch.stack([(x * at).sum(1), (x * ~at).sum(1)], 1) for x in (p, q))
    target = F.kl_div(b_s.log(), b_t, reduction="batchmean")
    others = F.kl_div(F.log_softmax(s - 1000.0 * at, dim=1), F.softmax(t - 1000.0 * at, dim=1), reduction="batchmean")
    return 16.0 * (target + 8.0 * others)


PLAIN = {
    "1000 classes": Plain(
        DecoupledKD,
        {"output": (1000,)},
        {"output": (1000,)},
        plain,
        labels=lambda rng, B: rng.integers(0, 1000, size=B),
        samples=512,
    )
}
ONE = {"alpha": 1.0, "beta": 1.0, "temperature": 1.0}


@pytest.mark.parametrize("size", [50.0, 1e4])
def test_finite_for_a_very_sure_student_where_the_logarithm_of_a_summed_softmax_is_not(size: float) -> None:
    """Certain of the label (1 - p is 0 in float32) and of another class (p is 0)."""
    labels = torch.tensor([0, 1])
    s = torch.tensor([[size, 0.0, 1.0], [size, 0.0, 1.0]], requires_grad=True)
    t = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    values = decoupled_kd(s, t, labels, **ONE)
    values.sum().backward()
    pairs = zip(s.detach().double().numpy(), t.double().numpy(), labels.tolist(), strict=True)
    expected = [position(*pair, alpha=1.0, beta=1.0, T=1.0) for pair in pairs]
    np.testing.assert_allclose(values.detach().numpy(), expected, rtol=1e-5)
    assert torch.isfinite(s.grad).all() and (s.grad != 0).any()


def test_a_target_logit_above_a_thousand_does_not_leak_into_the_other_classes() -> None:
    """Subtracting 1000 would leave it among them."""
    s, t = torch.tensor([[3000.0, 1.0, 2.0]]), torch.tensor([[3000.0, 2.0, 1.0]])
    without = softmax_kl(s[:, 1:], t[:, 1:], 1.0)
    torch.testing.assert_close(decoupled_kd(s, t, torch.tensor([0]), **ONE), without)


def test_with_the_teachers_own_factor_it_is_the_plain_divergence() -> None:
    """TCKD + (1 - p_y) · NCKD = KL: a wrong split between the parts, or a temperature on one of them, would show."""
    torch.manual_seed(0)
    s, t, labels = torch.randn(6, 5).double(), torch.randn(6, 5).double(), torch.randint(0, 5, (6,))
    p = (t / 2).softmax(1).gather(1, labels[:, None]).squeeze(1)
    target = decoupled_kd(s, t, labels, alpha=1.0, beta=0.0, temperature=2.0)
    others = decoupled_kd(s, t, labels, alpha=0.0, beta=1.0, temperature=2.0)
    torch.testing.assert_close(target + (1 - p) * others, softmax_kl(s, t, 2.0))


def test_what_stands_in_rows_without_a_label_is_never_read_and_does_not_count() -> None:
    numbers = CASES["classes"].draw()
    numbers.labels[1] = 10**6
    loss, batch = prepared(CASES["classes"], numbers), batch_of(numbers)
    student, teacher = signals_of(numbers.student, torch.float64, grad=True), signals_of(numbers.teacher, torch.float64)
    values = loss(student, teacher, batch)
    values.sum().backward()
    assert values[1] == 0
    assert loss.counts(batch)[1] == 0
    assert (student.output.grad[1] == 0).all()


def test_positions_that_count_are_known_and_nothing_is_shifted() -> None:
    numbers = CASES["tokens"].draw()
    loss = prepared(CASES["tokens"], numbers)
    assert (loss.counts(batch_of(numbers))[0] > 0).tolist() == [False, True, True]


def test_nan_at_an_ignored_position_stays_out_of_the_gradient() -> None:
    numbers = CASES["tokens"].draw()
    loss, batch = prepared(CASES["tokens"], numbers), batch_of(numbers)
    student, teacher = signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64)
    student.output[0, 0], teacher.output[0, 0] = float("nan"), float("nan")
    student.output.requires_grad_()
    (loss(student, teacher, batch) * loss.counts(batch)).sum().backward()
    assert torch.isfinite(student.output.grad).all()


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 0, 4, 1], 4, "from 0 to 3"),
        ([0, 0, -1, 1], 4, "from -1"),
        ([0.0, 1.0, 0.5, 1.0], 4, "float"),
        ([0, 0, 0, 0], 1, "2 classes or more"),
        ([[0], [0], [1], [1]], 4, "one label for each"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_training(labels, classes: int, message: str) -> None:
    numbers = CASES["classes"].draw()
    outputs = {"output": numbers.student["output"][:, :classes]}
    numbers = Numbers(outputs, outputs, numbers.weights, None, np.array(labels), numbers.labelled)
    signals = signals_of(outputs, torch.float64)
    with pytest.raises(SignalError, match=message):
        DecoupledKD().prepare(signals, signals, batch_of(numbers))


def test_a_batch_without_labels_and_other_classes_are_refused() -> None:
    numbers = CASES["classes"].draw()
    student = signals_of(numbers.student, torch.float64)
    with pytest.raises(SignalError, match="labels"):
        DecoupledKD().prepare(student, student, batch_of(Numbers({}, {}, numbers.weights)))
    with pytest.raises(SignalError, match=r"\(4, 3\)[\s\S]*\(4, 4\)"):
        DecoupledKD().prepare(student, Signals(output=torch.zeros(4, 3)), batch_of(numbers))


@pytest.mark.parametrize(
    "arguments", [{"alpha": -1.0}, {"beta": float("nan")}, {"alpha": 0.0, "beta": 0.0}, {"temperature": 0.0}]
)
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        DecoupledKD(**arguments)
