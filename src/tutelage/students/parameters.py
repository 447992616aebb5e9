"""How many parameters a model has."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

__all__ = ["ParameterCount", "parameter_count"]


@dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Parameters of a model; one that is shared counts once.

    Attributes:
        total: All of them.
        embedding: Those of embedding tables, included in `total`. A row of a table is looked up, not multiplied with,
            so they cost memory and hardly any time.
    """

    total: int
    embedding: int


def parameter_count(module: nn.Module) -> ParameterCount:
    """Counts the parameters of `module`, and those of its `nn.Embedding` and `nn.EmbeddingBag` tables."""
    tables = {
        id(parameter): parameter.numel()
        for table in module.modules()
        if isinstance(table, (nn.Embedding, nn.EmbeddingBag))
        for parameter in table.parameters(recurse=False)
    }
    return ParameterCount(
        total=sum(parameter.numel() for parameter in module.parameters()), embedding=sum(tables.values())
    )
