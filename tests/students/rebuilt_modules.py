"""Modules of teachers and students that a bundle has to name: another process imports them from here."""

from __future__ import annotations

from torch import Tensor, nn


class Backbone(nn.Module):
    """It keeps its argument under another name: only its factory says how it is made."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()


def make_backbone() -> nn.Module:
    return Backbone(4)


def make_unannotated():
    return Backbone(4)


class Head(nn.Module):
    """A classifier that keeps its arguments."""

    def __init__(self, width: int, classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.width, self.classes, self.scale = width, classes, scale
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.linear(x)


class ForgetfulHead(nn.Linear):
    """A classifier that does not."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__(*sizes)


class MisleadingHead(nn.Linear):
    """A classifier that keeps something else under its argument's name."""

    def __init__(self, width: int, classes: int, scale: float = 1.0) -> None:
        super().__init__(width, classes)
        self.width, self.classes = width, classes
        self.scale = 2 * scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * super().forward(x)


class Teacher(nn.Module):
    """Maps of 6 channels, their mean, and a classifier."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.layer4 = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU())
        self.fc = head

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer4(x).mean((2, 3)))
