from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of, with_trained
from scipy.special import log_softmax

from tutelage.errors import SignalError
from tutelage.losses.self_distillation import SelfDistillation


def digits(rng: np.random.Generator, B: int) -> Array:
    return rng.integers(0, 5, size=B)


def one(n: Numbers, name: str, pooled: Array, alpha: float, T: float) -> Array:
    q = pooled @ n.trained[f"classifiers.{name}.weight"].T + n.trained[f"classifiers.{name}.bias"]
    of_labels = -log_softmax(q, axis=1)[np.arange(len(q)), n.labels]
    log_p, log_q = log_softmax(n.student["output"] / T, axis=1), log_softmax(q / T, axis=1)
    of_output = T * T * (np.exp(log_p) * (log_p - log_q)).sum(1)
    return (1 - alpha) * of_labels + alpha * of_output


def of_maps(n: Numbers) -> Array:
    return (one(n, "a", n.student["a"].mean((2, 3)), 0.4, 2.0) + one(n, "b", n.student["b"], 0.4, 2.0)) / 2


def of_tokens(n: Numbers) -> Array:
    assert n.mask is not None
    means = np.array([row[kept].mean(0) for row, kept in zip(n.student["a"], n.mask, strict=True)])
    return one(n, "a", means, 0.3, 3.0)


CASES = {
    "maps": Case(
        lambda: SelfDistillation(["a", "b"], 2.0, 0.4),
        {"output": (5,), "a": (3, 2, 2), "b": (4,)},
        {},
        of_maps,
        labels=digits,
        detached=("output",),
    ),
    "one layer": Case(
        lambda: SelfDistillation(["a"]),
        {"output": (5,), "a": (4,)},
        {},
        lambda n: one(n, "a", n.student["a"], 0.3, 3.0),
        labels=digits,
        detached=("output",),
    ),
}


def plain(student: dict, teacher: dict, labels: torch.Tensor, loss: SelfDistillation) -> torch.Tensor:
    logits = loss.classifiers["a"](student["a"].mean((2, 3)))
    soft = F.kl_div(
        F.log_softmax(logits / 3, 1),
        F.log_softmax(student["output"].detach() / 3, 1),
        reduction="batchmean",
        log_target=True,
    )
    return 0.7 * F.cross_entropy(logits, labels) + 0.3 * 9 * soft


PLAIN = {
    "maps": Plain(
        lambda: SelfDistillation(["a"]),
        {"output": (100,), "a": (64, 32, 32)},
        {},
        plain,
        labels=lambda rng, B: rng.integers(0, 100, size=B),
    )
}


def test_padding_is_left_out_of_the_mean_over_tokens() -> None:
    case = Case(lambda: SelfDistillation(["a"]), {"output": (5,), "a": (3, 4)}, {}, of_tokens, tokens=3, labels=digits)
    numbers = case.draw()
    loss = prepared(case, numbers)
    values = loss(signals_of(numbers.student, torch.float64), signals_of({}, torch.float64), batch_of(numbers))
    shown = numbers.labelled
    np.testing.assert_allclose(values.detach().numpy()[shown], of_tokens(with_trained(numbers, loss))[shown], rtol=1e-9)


def test_an_output_with_positions_is_refused() -> None:
    case = Case(lambda: SelfDistillation(["a"]), {"output": (3, 5), "a": (4,)}, {}, of_maps, labels=digits)
    with pytest.raises(SignalError, match=r"(?s)logits \[B, C\].*\(4, 3, 5\)"):
        prepared(case, case.draw())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"layers": []}, "layers"), ({"temperature": 0.0}, "temperature"), ({"alpha": 1.5}, "alpha")],
)
def test_arguments_out_of_range_are_refused(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SelfDistillation(**({"layers": ["a"]} | arguments))
