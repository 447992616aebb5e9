"""The modules of these inputs, as users write them."""

import torch
from torch import nn


class MLP(nn.Module):
    def __init__(self, inputs=6, hidden=8, classes=2):
        super().__init__()
        self.a = nn.Linear(inputs, hidden)
        self.b = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


class Reg(MLP):
    def __init__(self, inputs=6, hidden=8):
        super().__init__(inputs, hidden, 1)

    def forward(self, x):
        return super().forward(x)[:, 0]


class Net(nn.Module):
    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.head(self.body(x))


class SoftNet(Net):
    def forward(self, x):
        return super().forward(x).softmax(-1)


class DictNet(Net):
    def forward(self, x):
        return {"scores": super().forward(x), "other": x}


class ListNet(Net):
    def forward(self, x):
        return [{"boxes": x[:, :4], "scores": super().forward(x)}]


class BNNet(nn.Module):
    def __init__(self, inputs, hidden, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU())
        self.head = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.head(self.body(x))


class LazyNet(nn.Module):
    def __init__(self, inputs, hidden, classes):
        super().__init__()
        self.layer = nn.LazyLinear(classes)

    def forward(self, x):
        return self.layer(x)


class OldNorm(nn.Module):
    def __init__(self, inputs, hidden, classes):
        super().__init__()
        self.layer = nn.utils.weight_norm(nn.Linear(inputs, classes))

    def forward(self, x):
        return self.layer(x)


def made(inputs=13, hidden=8, classes=3):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


class CNN(nn.Module):
    def __init__(self, w=8):
        super().__init__()
        self.a = nn.Conv2d(3, w, 3, 2, 1)
        self.c = nn.Linear(w, 3)

    def forward(self, x):
        return self.c(torch.relu(self.a(x)).mean((2, 3)))


class FlatCNN(nn.Module):
    """Takes images of 16 x 16 alone: the size of its head is fixed."""

    def __init__(self, width=16, classes=4):
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(width * 8 * 8, classes)

    def forward(self, x):
        return self.head(self.low(x).flatten(1))


class Maps(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 3, 1)


class Coded(nn.Module):
    def __init__(self):
        super().__init__()
        self.of = nn.Embedding(4, 3)

    def forward(self, x):
        return self.of(x).mean(1)
