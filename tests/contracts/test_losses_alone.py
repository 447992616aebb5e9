"""Every loss in a loop of one's own: tensors in, the counted mean out, as its formula says."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "losses"))

from loss_case import Array, Case, with_trained
from loss_contract import FIRST

import tutelage as tt
from tutelage.errors import SignalError


def given(signals: dict[str, Array]) -> Any:
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in signals.items()}
    return tensors["output"] if set(tensors) == {"output"} else tensors or None


@pytest.mark.parametrize("case", FIRST.values(), ids=FIRST.keys())
def test_a_loss_alone_is_the_counted_mean_of_its_formula(case: Case) -> None:
    numbers = replace(case.draw(), weights=np.ones(case.samples))
    labels = None if numbers.labels is None else torch.tensor(numbers.labels)
    if labels is not None and numbers.labelled is not None:
        labels[torch.tensor(~numbers.labelled)] = float("nan") if labels.is_floating_point() else -100
    mask = None if numbers.mask is None else torch.tensor(numbers.mask)
    torch.manual_seed(0)
    loss = case.make()
    if loss.borrows:
        modules = {path: module.double() for path, module in case.modules().items()}
        loss.introduce(modules=modules, rows=case.samples)
    else:
        loss.introduce(modules={}, rows=case.samples)
    student, teacher = given(numbers.student), given(numbers.teacher)
    value = loss(student, teacher, labels=labels, mask=mask)
    assert value.shape == ()
    expected = case.total(with_trained(numbers, loss))
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    value.backward()
    first = student if isinstance(student, Tensor) else next(iter(student.values()))
    assert first.grad is not None or case.detached


def test_it_is_what_torch_computes_and_has_its_weight() -> None:
    torch.manual_seed(0)
    s, t = torch.randn(6, 4, requires_grad=True), torch.randn(6, 4)
    y = torch.tensor([0, 1, 2, 3, -100, 1])
    kl = F.kl_div(F.log_softmax(s / 2, -1), F.log_softmax(t / 2, -1), log_target=True, reduction="batchmean") * 4
    torch.testing.assert_close(tt.losses.KLDivergence(2.0)(s, t), kl)
    torch.testing.assert_close(tt.losses.KLDivergence(2.0, weight=0.3)(s, t), 0.3 * kl)
    torch.testing.assert_close(tt.losses.CrossEntropy()(s, labels=y), F.cross_entropy(s, y))
    assert float(tt.losses.CrossEntropy()(s, labels=torch.full((6,), -100)).detach()) == 0
    tokens, other = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    some = F.kl_div(
        F.log_softmax(tokens[mask.bool()], -1), F.log_softmax(other[mask.bool()], -1), log_target=True, reduction="sum"
    )
    torch.testing.assert_close(tt.losses.KLDivergence(1.0)(tokens, other, mask=mask), some / 3)


def test_trained_parts_are_made_once_and_anew_for_other_sizes() -> None:
    hint = tt.losses.Hint({"a": "b"})
    s, t = {"a": torch.randn(6, 4)}, {"b": torch.randn(6, 7)}
    hint(s, t)
    parts = [id(p) for p in hint.parameters()]
    assert parts
    hint({"a": torch.randn(3, 4)}, {"b": torch.randn(3, 7)})
    assert [id(p) for p in hint.parameters()] == parts


S, T = torch.randn(6, 4), torch.randn(6, 4)


@pytest.mark.parametrize(
    ("loss", "arguments", "said"),
    [
        (tt.losses.KLDivergence(), (S,), "output of the teacher"),
        (tt.losses.KLDivergence(), (S, torch.randn(6, 5)), r"the teacher's shape \(6, 5\)"),
        (tt.losses.CrossEntropy(), (S, T), "labels=labels"),
        (tt.losses.Hint({"a": "b"}), (S, T), "layer `a` of the student"),
        (tt.losses.SoftmaxRegression({"a": "b"}, classifier="head"), ({"a": S}, {"b": T}), "loss.introduce"),
        (tt.losses.KLDivergence(), (), "missing"),
    ],
)
def test_what_it_lacks_is_named(loss: Any, arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises((SignalError, TypeError), match=said):
        loss(*arguments)


def test_labels_of_some_tokens_are_not_taken_for_samples_without_a_label() -> None:
    """Catches a loss of 0 where the usual -100 marks the tokens that do not count."""
    logits, labels = torch.randn(2, 4, 3), torch.tensor([[0, 1, -100, -100], [1, 2, 0, -100]])
    with pytest.raises(SignalError, match="mask=labels >= 0"):
        tt.losses.CrossEntropy()(logits, labels=labels)
    said = tt.losses.CrossEntropy()(logits, labels=labels.clamp(min=0), mask=labels >= 0)
    torch.testing.assert_close(said, F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100))


@pytest.mark.parametrize("what", [np.zeros((4, 3)), [torch.zeros(3)], {"1": np.zeros((4, 3))}, "logits"])
def test_what_is_no_tensor_is_named(what: Any) -> None:
    with pytest.raises(SignalError, match=r"the teacher\n.*expected: a tensor"):
        tt.losses.KLDivergence(2.0)(torch.zeros(4, 3), what)
