from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from torch import nn

from tutelage.errors import SignalError
from tutelage.losses.softmax_regression import SoftmaxRegression

PAIRS = {"a.0": "b.1"}


def classifier(wide: int = 4, classes: int = 3) -> dict[str, nn.Module]:
    torch.manual_seed(7)
    return {"fc": nn.Linear(wide, classes)}


def log_softmax(x: Array) -> Array:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def golden(mean: bool, logits: str = "squares", alpha: float = 1.0):
    def values(n: Numbers) -> Array:
        s, t = (x.mean((2, 3)) if x.ndim == 4 else x for x in (n.student["a.0"], n.teacher["b.1"]))
        if n.trained.get("projectors.a/0.weight") is not None:
            s = s @ n.trained["projectors.a/0.weight"].T + n.trained["projectors.a/0.bias"]
        W, b = n.trained["borrowed/fc.weight"], n.trained["borrowed/fc.bias"]
        q, p = s @ W.T + b, t @ W.T + b
        classes, channels = (q.shape[-1], s.shape[-1]) if mean else (1, 1)
        first = ((p - q) ** 2).sum(-1) / classes
        if logits == "divergence":
            first = (np.exp(log_softmax(p)) * (log_softmax(p) - log_softmax(q))).sum(-1)
        return first + alpha * ((t - s) ** 2).sum(-1) / channels

    return values


def case(loss, student, teacher, formula, **more) -> Case:
    return Case(loss, {"a.0": student}, {"b.1": teacher}, formula, modules=classifier, **more)


CASES = {
    "official": case(lambda: SoftmaxRegression(PAIRS, "fc"), (3,), (4,), golden(True)),
    "paper": case(lambda: SoftmaxRegression(PAIRS, "fc", variant="paper"), (3,), (4,), golden(False)),
    "same width": case(lambda: SoftmaxRegression(PAIRS, "fc"), (4,), (4,), golden(True), floor=0.0),
    "divergence": case(
        lambda: SoftmaxRegression(PAIRS, "fc", logits="divergence", features=0.5),
        (4,),
        (4,),
        golden(True, "divergence", 0.5),
        floor=0.0,
    ),
    "logits alone": case(
        lambda: SoftmaxRegression(PAIRS, "fc", variant="paper", features=0.0),
        (4,),
        (4,),
        golden(False, alpha=0.0),
        floor=0.0,
    ),
    "maps": case(lambda: SoftmaxRegression(PAIRS, "fc"), (3, 2, 2), (4, 3, 1), golden(True)),
    "tokens": case(lambda: SoftmaxRegression(PAIRS, "fc"), (3, 2), (3, 4), golden(True), tokens=3),
    "positions": case(lambda: SoftmaxRegression(PAIRS, "fc"), (3, 2), (3, 4), lambda n: golden(True)(n).mean(1)),
}


def plain(s: torch.Tensor, t: torch.Tensor, loss: SoftmaxRegression) -> torch.Tensor:
    features, fc = loss.projectors["a/0"](s), loss.borrowed("fc")
    return F.mse_loss(fc(features), fc(t)) + F.mse_loss(features, t)


PLAIN = {
    "vectors": Plain(
        lambda: SoftmaxRegression(PAIRS, "fc"),
        {"a.0": (512,)},
        {"b.1": (1024,)},
        lambda s, t, labels, loss: plain(s["a.0"], t["b.1"], loss),
        samples=128,
        modules=lambda: classifier(1024, 1000),
    ),
    "maps": Plain(
        lambda: SoftmaxRegression(PAIRS, "fc"),
        {"a.0": (512, 7, 7)},
        {"b.1": (1024, 7, 7)},
        lambda s, t, labels, loss: plain(s["a.0"].mean((2, 3)), t["b.1"].mean((2, 3)), loss),
        samples=64,
        modules=lambda: classifier(1024, 1000),
    ),
}


def test_the_teachers_classifier_is_neither_trained_nor_stored_but_lets_the_gradient_through() -> None:
    numbers = CASES["logits alone"].draw()
    loss = prepared(CASES["logits alone"], numbers)
    before = loss.borrowed("fc").weight.clone()
    student, teacher = signals_of(numbers.student, torch.float64, grad=True), signals_of(numbers.teacher, torch.float64)
    loss(student, teacher, batch_of(numbers)).sum().backward()
    assert student.features["a.0"].grad.abs().max() > 0
    assert loss.borrowed("fc").weight.grad is None and torch.equal(loss.borrowed("fc").weight, before)
    assert not loss.state_dict() and not list(loss.parameters())


def test_a_difference_that_the_classifier_does_not_see_costs_nothing_in_the_first_term() -> None:
    """Features compared instead of answers: a shift along the kernel of `W` must be free."""
    numbers = CASES["logits alone"].draw()
    weight = classifier()["fc"].weight.detach().double().numpy()
    kernel = np.linalg.svd(weight)[2][-1]
    numbers.student["a.0"][:] = numbers.teacher["b.1"] + 5 * kernel
    loss = prepared(CASES["logits alone"], numbers)
    args = signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
    assert loss(*args).max() < 1e-20


def test_a_layer_that_the_classifier_does_not_read_is_refused_by_both_names() -> None:
    wrong = Case(lambda: SoftmaxRegression(PAIRS, "fc"), {"a.0": (4,)}, {"b.1": (5,)}, golden(True), modules=classifier)
    with pytest.raises(SignalError, match=r"`b\.1` of the teacher[\s\S]*`fc`"):
        prepared(wrong, wrong.draw())


@pytest.mark.parametrize(("s", "t"), [((2, 3), (4,)), ((3, 4), (5, 4))])
def test_tokens_against_vectors_and_other_lengths_are_refused(s: tuple[int, ...], t: tuple[int, ...]) -> None:
    wrong = case(lambda: SoftmaxRegression(PAIRS, "fc"), s, t, golden(True))
    with pytest.raises(SignalError, match="what the classifiers read"):
        prepared(wrong, wrong.draw())


@pytest.mark.parametrize(
    "arguments", [{"variant": "offical"}, {"logits": "cosine"}, {"features": -1.0}, {"features": float("nan")}]
)
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        SoftmaxRegression(PAIRS, "fc", **arguments)
