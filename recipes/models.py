"""The networks of the image recipes: a teacher and students of a tenth of it, or less."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Perceptron"]


class Perceptron(nn.Module):
    """A network with one hidden layer: `[B, ...]` -> `[B, classes]`.

    Args:
        inputs: Numbers in a sample.
        hidden: Hidden units.
        classes: Outputs.
    """

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(inplace=True))
        self.output = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the classes."""
        logits: Tensor = self.output(self.hidden(x))
        return logits
