from __future__ import annotations

from dataclasses import replace

import class_labels
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from scipy.special import log_softmax
from test_decoupled_kd import golden as decoupled
from test_multi_level_logit import golden as multi_level
from torch import Tensor

from tutelage.described import describe
from tutelage.errors import SignalError
from tutelage.losses.base import Loss
from tutelage.losses.cross_entropy import CrossEntropy
from tutelage.losses.decoupled_kd import DecoupledKD
from tutelage.losses.hint import Hint
from tutelage.losses.kl_divergence import KLDivergence
from tutelage.losses.logit_standardization import LogitStandardization, standardized
from tutelage.losses.multi_level_logit import MultiLevelLogit
from tutelage.training.step import Learner

T = 2.0


def scores(n: Numbers, *, axis: int = -1, official: bool = True) -> Numbers:
    """The same numbers with Z-scores in place of both outputs."""

    def z(x: Array) -> Array:
        spread = x.std(axis, ddof=1, keepdims=True) + 1e-7 if official else x.std(axis, keepdims=True)
        return (x - x.mean(axis, keepdims=True)) / spread

    return replace(n, student={"output": z(n.student["output"])}, teacher={"output": z(n.teacher["output"])})


def kl(n: Numbers, axis: int = -1) -> Array:
    q, p = (log_softmax(side["output"] / T, axis=axis) for side in (n.student, n.teacher))
    return T**2 * (np.exp(p) * (p - q)).sum(axis)


CASES = {
    "official": Case(
        lambda: LogitStandardization(KLDivergence(T)),
        {"output": (5,)},
        {"output": (5,)},
        lambda n: kl(scores(n)),
        floor=0.0,
    ),
    "paper": Case(
        lambda: LogitStandardization(KLDivergence(T), variant="paper"),
        {"output": (5,)},
        {"output": (5,)},
        lambda n: kl(scores(n, official=False)),
        floor=0.0,
    ),
    "tokens": Case(
        lambda: LogitStandardization(KLDivergence(T)),
        {"output": (3, 5)},
        {"output": (3, 5)},
        lambda n: kl(scores(n)),
        tokens=3,
        floor=0.0,
    ),
    "pixels": Case(
        lambda: LogitStandardization(KLDivergence(T, axis=1), axis=1),
        {"output": (3, 2, 4)},
        {"output": (3, 2, 4)},
        lambda n: kl(scores(n, axis=1), 1).mean((1, 2)),
        floor=0.0,
    ),
    "a loss with labels": Case(
        lambda: LogitStandardization(DecoupledKD()),
        {"output": (3, 4)},
        {"output": (3, 4)},
        lambda n: decoupled(scores(n)),
        tokens=3,
        labels=class_labels.of_tokens,
        counts=class_labels.token_counts,
    ),
    "a loss that compares samples": Case(
        lambda: LogitStandardization(MultiLevelLogit([1.0, 4.0], variant="paper")),
        {"output": (5,)},
        {"output": (5,)},
        lambda n: multi_level(scores(n), (1.0, 4.0), official=False),
    ),
}


def plain(student: dict[str, Tensor], teacher: dict[str, Tensor], labels: Tensor, loss: LogitStandardization) -> Tensor:
    def z(x: Tensor) -> Tensor:
        return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-7)

    s, t = z(student["output"]) / T, z(teacher["output"]) / T
    return F.kl_div(F.log_softmax(s, dim=1), F.softmax(t, dim=1), reduction="batchmean") * T**2


PLAIN = {
    "1000 classes": Plain(
        lambda: LogitStandardization(KLDivergence(T)), {"output": (1000,)}, {"output": (1000,)}, plain, samples=512
    )
}


def test_a_student_of_another_size_and_offset_is_not_pulled_but_one_of_another_order_is() -> None:
    numbers = CASES["paper"].draw()
    t = numbers.teacher["output"]
    loss = LogitStandardization(KLDivergence(T), variant="paper")
    for student, zero in ((0.1 * t + 3.0, True), (-t, False)):
        signals = signals_of({"output": student}, torch.float64, grad=True)
        values = loss(signals, signals_of({"output": t}, torch.float64), batch_of(numbers))
        values.sum().backward()
        assert bool((values.abs() < 1e-12).all()) == zero
        assert bool((signals.output.grad.abs() < 1e-12).all()) == zero


def test_the_gradient_passes_through_the_mean_and_the_spread() -> None:
    """It then has no part along the offset and the size of the logits; with a detached spread it would have."""
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(4, 5, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((standardized(x, "paper") * wanted).sum(), x)
    torch.testing.assert_close(gradient.sum(1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close((gradient * x.detach()).sum(1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1234.567])
def test_constant_logits_give_no_nan_and_no_gradient_of_a_million(variant: str, constant: float) -> None:
    """A head that starts at zero, or a padded token."""
    x = torch.full((2, 7), constant, requires_grad=True)
    found = standardized(x, variant)
    (found * torch.arange(7.0)).sum().backward()
    assert (found == 0).all()
    assert (x.grad == 0).all()


def test_standardised_once_and_over_the_classes_and_not_over_the_tokens() -> None:
    found = standardized(torch.randn(2, 3, 50, dtype=torch.float64), "official")
    torch.testing.assert_close(found.mean(-1), torch.zeros(2, 3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.std(-1), torch.ones(2, 3, dtype=torch.float64), rtol=1e-6, atol=0)


def test_what_the_inner_loss_is_the_wrapper_is() -> None:
    """needs, per_sample, counts, per_token and rows are those within, and the progress reaches it."""
    inner = MultiLevelLogit()
    wrapper = LogitStandardization(inner)
    assert wrapper.per_sample is inner.per_sample is False
    assert LogitStandardization(KLDivergence()).per_sample
    assert wrapper.needs == inner.needs
    assert LogitStandardization(DecoupledKD()).needs.labels
    case = CASES["tokens"]
    loss = prepared(case, case.draw())
    assert isinstance(loss, LogitStandardization)
    assert loss.per_token and loss.loss.per_token
    loss.introduce(modules={}, rows=17)
    assert loss.rows == loss.loss.rows == 17
    learner = Learner(torch.nn.Linear(2, 2), [wrapper])
    learner.at(0.5)
    assert inner.progress == 0.5


def test_a_memory_within_is_told_of_each_step() -> None:
    class Remembering(KLDivergence):
        steps = 0

        def after_step(self) -> None:
            self.steps += 1

    inner = Remembering()
    LogitStandardization(inner).after_step()
    assert inner.steps == 1


def test_a_recipe_names_a_loss_within_a_loss_and_is_dumped_with_it() -> None:
    loss = LogitStandardization(KLDivergence(3.0), variant="paper", weight=9.0)
    described = describe(loss)
    assert described["init_args"]["loss"]["init_args"]["temperature"] == 3.0
    assert "made in Python" not in yaml.safe_dump(described)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogitStandardization(CrossEntropy()), "both models"),
        (lambda: LogitStandardization(Hint({"a": "b"})), "both models"),
        (lambda: LogitStandardization(KLDivergence(weight=2.0)), "no effect"),
        (lambda: LogitStandardization(KLDivergence(axis=1)), "axis must be"),
        (lambda: LogitStandardization(KLDivergence(outputs="sigmoid")), "softmax"),
        (lambda: LogitStandardization(KLDivergence(), variant="own"), "must be one of"),
    ],
)
def test_inner_losses_that_can_not_be_wrapped_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_outputs_are_refused_before_training_by_the_name_of_the_wrapper() -> None:
    numbers = CASES["official"].draw()
    for student, teacher, message in (
        (np.ones((4, 1)), np.ones((4, 1)), "LogitStandardization[\\s\\S]*2 classes or more"),
        (np.ones((4, 5)), np.ones((4, 3)), r"LogitStandardization[\s\S]*\(4, 3\)"),
        (np.ones((4, 3, 2, 2)), np.ones((4, 3, 2, 2)), "columns"),
    ):
        signals = (signals_of({"output": x}, torch.float64) for x in (student, teacher))
        with pytest.raises(SignalError, match=message):
            LogitStandardization(KLDivergence()).prepare(*signals, batch_of(numbers))


def test_the_class_of_an_inner_loss_is_any_loss() -> None:
    assert issubclass(LogitStandardization, Loss)
