"""The networks of the recipes: teachers, and students of a tenth of them, or less."""

from __future__ import annotations

from torch import Tensor, nn

from tutelage.teachers.hugging_face import load_hugging_face

__all__ = ["BagOfTokens", "Perceptron", "ResNet", "SentenceClassifier", "SmallCNN", "TwoHeads"]


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


def convolution(before: int, after: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU: `[B, before, H, W]` -> `[B, after, H/stride, W/stride]`."""
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    """Two convolutions and a shortcut: `[B, before, H, W]` -> `[B, after, H/stride, W/stride]`."""

    def __init__(self, before: int, after: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first = convolution(before, after, stride=stride)
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after))
        self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The block's maps."""
        maps: Tensor = self.relu(self.second(self.first(x)) + self.shortcut(x))
        return maps


class Classifier(nn.Module):
    """A stem, a stage at a half of the picture's size, one at a quarter, the mean over positions, a linear head.

    Args:
        stem: From the picture to half its size.
        low: The stage at half size, after which `tutelage` can tap `low`.
        high: The stage at quarter size.
        width: Channels of the last stage.
        classes: Outputs.
    """

    def __init__(self, stem: nn.Module, low: nn.Module, high: nn.Module, *, width: int, classes: int) -> None:
        super().__init__()
        self.stem, self.low, self.high = stem, low, high
        self.output = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, classes]` of pictures `[B, 1, H, W]`."""
        logits: Tensor = self.output(self.high(self.low(self.stem(x))).mean((2, 3)))
        return logits


class ResNet(Classifier):
    """A small residual network: 163,378 parameters at width 24 and 10 classes."""

    def __init__(self, width: int = 24, classes: int = 10) -> None:
        stem = nn.Sequential(convolution(1, width), nn.MaxPool2d(2))
        low, high = Residual(width, 2 * width), Residual(2 * width, 4 * width, stride=2)
        super().__init__(stem, low, high, width=4 * width, classes=classes)


class SmallCNN(Classifier):
    """Four convolutions: 15,682 parameters at width 8 and 10 classes. Its maps are as large as the teacher's."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        stem, low = convolution(1, width, kernel=5, stride=2), convolution(width, 2 * width)
        high = nn.Sequential(convolution(2 * width, 4 * width, stride=2), convolution(4 * width, 4 * width))
        super().__init__(stem, low, high, width=4 * width, classes=classes)


class SentenceClassifier(nn.Module):
    """A sentence encoder from a Hugging Face folder with a linear head that knows nothing yet.

    Args:
        path: The folder, or `package:NAME/sub/path`.
        width: Numbers in an embedding.
        classes: Outputs.
    """

    def __init__(self, path: str, width: int, classes: int) -> None:
        super().__init__()
        self.encoder = load_hugging_face(path, key="teacher.path", head="embedding")
        self.output = nn.Linear(width, classes)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Logits `[B, classes]` of token ids `[B, L]`."""
        logits: Tensor = self.output(self.encoder(**inputs))
        return logits


class BagOfTokens(nn.Module):
    """The mean of a text's token embeddings, and a linear head: no order, no attention, and quick.

    Args:
        vocabulary: Tokens.
        width: Numbers in an embedding.
        classes: Outputs.

    Source: Joulin, Grave, Bojanowski, Mikolov, "Bag of Tricks for Efficient Text Classification", 2017, on tokens.
    """

    def __init__(self, vocabulary: int, width: int, classes: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.output = nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Tensor) -> Tensor:
        """Logits `[B, classes]` of token ids `[B, L]`."""
        weight = attention_mask.to(self.tokens.weight.dtype)[..., None]
        mean = (self.tokens(input_ids) * weight).sum(1) / weight.sum(1).clamp(min=1.0)
        logits: Tensor = self.output(mean)
        return logits


class TwoHeads(nn.Module):
    """A network with a hidden layer and two heads: `[B, ...]` -> `[B, classes]`, and the further head at `further`.

    Args:
        inputs: Numbers in a sample.
        hidden: Hidden units, shared by both heads.
        classes: Outputs of the main head.
        further: Outputs of the further head.
    """

    def __init__(self, inputs: int, hidden: int, classes: int, further: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(inplace=True))
        self.output = nn.Linear(hidden, classes)
        self.further = nn.Linear(hidden, further)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the main head; those of the further one are there to be tapped."""
        hidden = self.hidden(x)
        self.further(hidden)
        logits: Tensor = self.output(hidden)
        return logits
