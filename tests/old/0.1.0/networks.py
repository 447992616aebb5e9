"""Networks of the samples."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn


class Perceptron(nn.Module):
    """Numbers to logits by one hidden layer."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(x).relu())


class Bag(nn.Module):
    """The mean of the words' embeddings, and a linear layer."""

    def __init__(self, words: int, classes: int) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(words, 8), nn.Linear(8, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        counts = attention_mask[..., None].float()
        return self.head((self.words(input_ids) * counts).sum(1) / counts.sum(1).clamp(min=1))


def price(columns: dict[str, np.ndarray]) -> np.ndarray:
    """A rule on the rows of a table."""
    return 3e4 * columns["size"] + np.where(columns["colour"] == "red", 5e4, 0.0) + 2e5
