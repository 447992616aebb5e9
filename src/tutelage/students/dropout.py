"""Setting the dropout of a Hugging Face model."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["set_dropout"]


def set_dropout(model: Any, probability: float) -> None:
    """Sets each dropout probability of `model`, in its modules and in its config.

    Some modules hold the probability as a plain number (`attention_dropout` of LLaMA), and a saved student is rebuilt
    from its config; all the names that Hugging Face uses for one contain `drop` (`attn_pdrop`, `drop_path_rate`).
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = probability
        set_numbers(module, probability)
    set_numbers(model.config, probability)


def set_numbers(owner: Any, probability: float) -> None:
    """Sets the attributes of `owner` that are numbers and named after dropout."""
    for name, value in list(vars(owner).items()):
        if "drop" in name and isinstance(value, (int, float)) and not isinstance(value, bool):
            setattr(owner, name, probability)
