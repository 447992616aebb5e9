from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, prepared
from resizing import pool

from tutelage.errors import SignalError
from tutelage.losses.flow_of_solution import FlowOfSolution, flow_matrix


def max_pool(x: Array, size: tuple[int, int]) -> Array:
    out = np.zeros((*x.shape[:2], *size))
    for i, j in np.ndindex(*size):
        rows = slice(i * x.shape[2] // size[0], math.ceil((i + 1) * x.shape[2] / size[0]))
        columns = slice(j * x.shape[3] // size[1], math.ceil((j + 1) * x.shape[3] / size[1]))
        out[:, :, i, j] = x[:, :, rows, columns].max((2, 3))
    return out


def flow(first: Array, second: Array, variant: str) -> Array:
    size = tuple(np.minimum(first.shape[2:], second.shape[2:]))
    shrink = max_pool if variant == "paper" else pool
    first, second = (x if x.shape[2:] == size else shrink(x, size) for x in (first, second))
    return np.einsum("bmhw,bnhw->bmn", first, second) / (size[0] * size[1])


def distance(n: Numbers, student: tuple[str, str], teacher: tuple[str, str], variant: str) -> Array:
    s = flow(n.student[student[0]], n.student[student[1]], variant)
    t = flow(n.teacher[teacher[0]], n.teacher[teacher[1]], variant)
    squares = (s - t) ** 2
    return squares.sum((1, 2)) if variant == "paper" else squares.mean((1, 2))


ONE = ([["a.0", "a.1"]], [["b.0", "b.1"]])
TWO = ([["a.0", "a.1"], ["a.1", "a.2"]], [["b.0", "b.1"], ["b.1", "b.2"]])


def golden(variant: str):
    return lambda n: distance(n, ("a.0", "a.1"), ("b.0", "b.1"), variant)


def both(n: Numbers) -> Array:
    one = distance(n, ("a.0", "a.1"), ("b.0", "b.1"), "official")
    return (one + distance(n, ("a.1", "a.2"), ("b.1", "b.2"), "official")) / 2


EQUAL = {"a.0": (2, 3, 2), "a.1": (3, 3, 2)}
CASES = {
    "official": Case(
        lambda: FlowOfSolution(*ONE), EQUAL, {"b.0": (2, 3, 2), "b.1": (3, 3, 2)}, golden("official"), floor=0.0
    ),
    "paper": Case(
        lambda: FlowOfSolution(*ONE, variant="paper"),
        EQUAL,
        {"b.0": (2, 3, 2), "b.1": (3, 3, 2)},
        golden("paper"),
        floor=0.0,
    ),
    "stages that shrink": Case(
        lambda: FlowOfSolution(*TWO),
        {"a.0": (2, 4, 4), "a.1": (3, 2, 2), "a.2": (2, 1, 1)},
        {"b.0": (2, 5, 3), "b.1": (3, 3, 2), "b.2": (2, 2, 1)},
        both,
    ),
    "paper, max-pooled": Case(
        lambda: FlowOfSolution(*ONE, variant="paper"),
        {"a.0": (2, 4, 3), "a.1": (3, 2, 2)},
        {"b.0": (2, 2, 2), "b.1": (3, 4, 4)},
        golden("paper"),
    ),
}


def plain(student, teacher, labels, loss):
    def matrix(first, second):
        first = F.adaptive_avg_pool2d(first, second.shape[2:]).flatten(2)
        return first @ second.flatten(2).mT / first.shape[2]

    return F.mse_loss(matrix(student["a.0"], student["a.1"]), matrix(teacher["b.0"], teacher["b.1"]))


def plain_same_size(student, teacher, labels, loss):
    s = student["a.0"].flatten(2) @ student["a.1"].flatten(2).mT / 784
    t = teacher["b.0"].flatten(2) @ teacher["b.1"].flatten(2).mT / 784
    return (s - t).square().sum((1, 2)).mean()


PLAIN = {
    "a stage that shrinks": Plain(
        lambda: FlowOfSolution(*ONE),
        {"a.0": (64, 28, 28), "a.1": (128, 14, 14)},
        {"b.0": (64, 28, 28), "b.1": (128, 14, 14)},
        plain,
        samples=16,
    ),
    "paper": Plain(
        lambda: FlowOfSolution(*ONE, variant="paper"),
        {"a.0": (32, 28, 28), "a.1": (32, 28, 28)},
        {"b.0": (32, 28, 28), "b.1": (32, 28, 28)},
        plain_same_size,
        samples=16,
    ),
}


def test_matrix_is_the_mean_over_the_places_so_that_models_of_other_sizes_compare() -> None:
    """Without the division by HW, or with that of the larger map."""
    first, second = torch.ones(1, 2, 4, 4), 3 * torch.ones(1, 3, 2, 2)
    for pooling in ("max", "average"):
        torch.testing.assert_close(flow_matrix(first, second, pooling), torch.full((1, 2, 3), 3.0))
        torch.testing.assert_close(flow_matrix(second, first, pooling), torch.full((1, 3, 2), 3.0))


def test_paper_takes_the_maximum_where_official_takes_the_mean() -> None:
    first = torch.tensor([[[[0.0, 8.0], [0.0, 0.0]]]])
    second = torch.ones(1, 1, 1, 1)
    assert flow_matrix(first, second, "max").item() == 8
    assert flow_matrix(first, second, "average").item() == 2


def test_flow_goes_from_the_first_layer_to_the_second() -> None:
    """Rows are the first layer's channels; student's and teacher's the same way round."""
    first, second = torch.zeros(1, 2, 1, 1), torch.zeros(1, 3, 1, 1)
    first[0, 1], second[0, 2] = 5, 7
    expected = torch.zeros(1, 2, 3)
    expected[0, 1, 2] = 35
    torch.testing.assert_close(flow_matrix(first, second, "max"), expected)


def test_models_of_other_widths_are_refused_with_both_matrices() -> None:
    case = Case(lambda: FlowOfSolution(*ONE), EQUAL, {"b.0": (2, 3, 2), "b.1": (4, 3, 2)}, golden("official"))
    with pytest.raises(SignalError, match=r"a\.1[\s\S]*\(4, 2, 4\)[\s\S]*\(4, 2, 3\)[\s\S]*AttentionTransfer"):
        prepared(case, case.draw())


@pytest.mark.parametrize("model", ["student", "teacher"])
def test_tokens_are_refused_by_the_name_of_the_layer(model: str) -> None:
    shapes = {"student": EQUAL, "teacher": {"b.0": (2, 3, 2), "b.1": (3, 3, 2)}}
    path = "a.1" if model == "student" else "b.1"
    shapes[model] = shapes[model] | {path: (3, 3)}
    case = Case(lambda: FlowOfSolution(*ONE), **shapes, golden=golden("official"))
    with pytest.raises(SignalError, match=rf"layer `{path}` of the {model}[\s\S]*maps"):
        prepared(case, case.draw())


@pytest.mark.parametrize(
    ("student", "teacher", "found"),
    [
        ([], [["b", "c"]], "student_flows .* none"),
        ([["a", "b"]], [["b"]], "teacher_flows .* two layers"),
        ([["a", "b", "c"]], [["a", "b"]], "student_flows .* two layers"),
        ([["a", "b"]], [["a", "b"], ["b", "c"]], "as many, found 1 and 2"),
    ],
)
def test_impossible_flows_are_refused(student, teacher, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        FlowOfSolution(student, teacher)


def test_unknown_variant_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="must be one of"):
        FlowOfSolution(*ONE, variant="offical")
