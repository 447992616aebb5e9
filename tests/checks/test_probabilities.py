"""Outputs that are probabilities where logits are expected."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tutelage.checks.probabilities import last_operation, refuse_log_odds_of_classes, refuse_probabilities
from tutelage.errors import ModelError, SignalError
from tutelage.teachers.gives import signal_of

MEND = {"probabilities": "write softmax", "sigmoid": "write sigmoid"}
Z = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 3))).float() * 2


def told(output: Tensor, task: str = "classification", **more: object) -> str:
    """Which advice is given, or nothing."""
    try:
        refuse_probabilities(output, task, who="output", mend=MEND, **more)  # type: ignore[arg-type]
    except SignalError as error:
        return error.mend.removeprefix("write ")
    return ""


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [2, 60])
def test_a_softmax_is_known_by_two_rows_in_any_precision(dtype: torch.dtype, rows: int) -> None:
    assert told(Z[:rows].softmax(-1).to(dtype)) == "softmax"
    assert told(Z[:rows].softmax(-1).to(dtype), "multilabel") == "softmax"


WIDE = torch.from_numpy(np.random.default_rng(1).normal(size=(60, 40))).float() * 2


@pytest.mark.parametrize(
    "rounded",
    [
        Z.softmax(-1).mul(100).round().div(100),
        Z.softmax(-1).mul(1000).round().div(1000),
        WIDE.softmax(-1).mul(100).round().div(100),
        WIDE.softmax(-1).bfloat16().float(),
    ],
    ids=["two decimals", "three decimals", "two decimals of 40 classes", "bfloat16 as float32"],
)
def test_a_rounded_softmax_is_no_sigmoid_and_may_be_given_as_probabilities(rounded: Tensor) -> None:
    assert told(rounded) == told(rounded, "multilabel") == "softmax"
    taken = signal_of(rounded, "probabilities", who="output").softmax(-1)
    assert float((taken - rounded / rounded.sum(1, keepdim=True)).abs().max()) < 1e-5
    with pytest.raises(SignalError, match="gives: probabilities"):
        refuse_log_odds_of_classes(signal_of(rounded, "sigmoid", who="output"), "classification", who="output")


def test_independent_probabilities_are_neither_refused_as_log_odds_nor_taken_for_classes() -> None:
    p = Z.sigmoid()
    refuse_log_odds_of_classes(signal_of(p, "sigmoid", who="output"), "classification", who="output")
    with pytest.raises(ModelError, match="gives: sigmoid"):
        signal_of(p, "probabilities", who="output")


@pytest.mark.parametrize("factor", [100.0, 1.02, 0.5])
def test_probabilities_in_another_unit_are_refused_with_what_to_divide_them_by(factor: float) -> None:
    assert told(Z.softmax(-1) * factor) == f"divide them by {factor:.4g} where they are made, then say so"


def test_a_sigmoid_is_known_by_many_numbers_or_by_the_operation() -> None:
    p = Z.sigmoid()
    assert told(p, "multilabel") == "sigmoid" and told(p) == "sigmoid"
    assert told(p[:2], "multilabel") == ""
    assert told(p[:2], "multilabel", operation="Sigmoid") == "sigmoid"
    assert told(p, "multilabel", by_size=False) == told(p, "multilabel", operation="Addmm") == ""


def test_one_probability_a_row_is_that_of_two_classes_where_classes_exclude_each_other() -> None:
    p = Z.repeat(2, 1).sigmoid()[:, :1]
    assert (told(p), told(p[:, 0]), told(p, "multilabel")) == ("softmax", "softmax", "sigmoid")


@pytest.mark.parametrize(
    "output",
    [
        Z,
        Z.log_softmax(-1),  # log-probabilities are logits
        Z.relu(),
        Z.sigmoid() * 1.5,
        torch.zeros(60, 3),
        torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.2]]),
        torch.arange(180).reshape(60, 3) % 2,  # labels, which other checks name
        torch.where(Z.log_softmax(-1) < -1, -torch.inf, Z.log_softmax(-1)),
    ],
    ids=["logits", "log-probabilities", "relu", "above one", "zeros", "one row alone", "labels", "label alone"],
)
def test_no_logits_are_refused(output: Tensor) -> None:
    assert told(output) == told(output, "multilabel") == ""


def test_values_and_embeddings_may_be_anything() -> None:
    assert told(Z.softmax(-1), "regression") == told(Z.sigmoid(), "embedding") == ""


class Ending(nn.Module):
    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.end = nn.Linear(3, 2), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.linear(x))


@pytest.mark.parametrize(
    ("end", "name"),
    [
        (lambda z: z, "Addmm"),
        (lambda z: z.sigmoid().squeeze(-1).float().clone(), "Sigmoid"),
        (lambda z: z.sigmoid().clamp(1e-6, 1).view(-1, 2), "Sigmoid"),
        (lambda z: z.softmax(-1).half(), "Softmax"),
        (lambda z: z.relu(), "Relu"),
        (lambda z: z.detach(), ""),
    ],
    ids=["linear", "sigmoid", "clamped", "softmax", "relu", "detached"],
)
def test_the_last_operation_is_found_behind_what_only_reshapes(end: Callable[[Tensor], Tensor], name: str) -> None:
    with torch.no_grad():
        assert last_operation(Ending(end), Z) == name
