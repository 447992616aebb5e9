from __future__ import annotations

import torch
from small_models import model
from torch import nn

from tutelage.students import ParameterCount, parameter_count


class TiedTables(nn.Module):
    """A table, the same weight as output layer, and a bag of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.out = nn.Linear(4, 10)
        self.out.weight = self.table.weight
        self.bag = nn.EmbeddingBag(3, 2)
        self.register_buffer("mask", torch.ones(100))


def test_a_shared_table_counts_once_and_buffers_not_at_all() -> None:
    assert parameter_count(TiedTables()) == ParameterCount(total=10 * 4 + 10 + 3 * 2, embedding=10 * 4 + 3 * 2)


def test_frozen_parameters_count() -> None:
    assert parameter_count(nn.Linear(3, 2).requires_grad_(False)) == ParameterCount(total=8, embedding=0)


def test_bert_is_counted_as_its_formula_says() -> None:
    d, f, layers, rows = 24, 40, 4, 13 + 512 + 2
    layer = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 4 * d
    expected = ParameterCount(total=rows * d + 2 * d + layers * layer + d * d + d, embedding=rows * d)
    assert parameter_count(model("bert")) == expected
