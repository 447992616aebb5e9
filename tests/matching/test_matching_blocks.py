"""Which layers are proposed, of networks that are built as people build them."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from tutelage.matching.blocks import find_blocks
from tutelage.signals import Batch


def paths(module: nn.Module, *shape: int) -> dict[str, list[str]]:
    rows = torch.arange(2)
    batch = Batch(inputs=torch.randn(2, *shape), rows=rows, views=rows)
    found = find_blocks(module.eval(), batch)
    kinds = dict.fromkeys(block.kind for block in found)
    return {kind: [block.path for block in found if block.kind == kind] for kind in kinds}


class Bottleneck(nn.Module):
    """As in torchvision: the stride is in the second convolution, one ReLU is called three times."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 1), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, stride, 1), nn.BatchNorm2d(after)
        self.conv3, self.bn3 = nn.Conv2d(after, after, 1), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 4, 7, 2, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Bottleneck(4, 8, 1), Bottleneck(8, 8, 1))
        self.layer2 = nn.Sequential(Bottleneck(8, 16, 2), Bottleneck(16, 16, 1))
        self.layer3 = nn.Sequential(Bottleneck(16, 16, 2))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.avgpool(self.layer3(self.layer2(self.layer1(x)))).flatten(1))


class Around(nn.Module):
    """A module that wraps another one, as trainers and libraries do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_stages_of_a_residual_network_end_outside_its_blocks() -> None:
    """Inside the first block of a stage the resolution of the stage before goes on: it must not be its end."""
    assert paths(ResNet(), 3, 64, 64) == {"maps": ["relu", "layer1", "layer2", "layer3"]}


def test_a_module_around_the_network_hides_nothing() -> None:
    found = paths(Around(Around(ResNet())), 3, 64, 64)
    assert found["maps"] == [f"inner.inner.{path}" for path in ("relu", "layer1", "layer2", "layer3")]


class VGG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        stage = [(3, 4), (4, 8), (8, 8)]
        layers = [[nn.Conv2d(a, b, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)] for a, b in stage]
        self.features = nn.Sequential(*(layer for three in layers for layer in three))
        self.classifier = nn.Sequential(
            *(nn.Linear(8 * 16, 7), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def test_stages_within_one_sequence_end_before_the_pooling() -> None:
    found = paths(VGG(), 3, 32, 32)
    assert found["maps"] == ["features.1", "features.4", "features.7", "features"]
    assert found["vectors"] == ["classifier.2", "classifier.4"]  # with the activations, without the logits


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1)
        self.up, self.head = nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        return self.head(self.up(self.down2(a)) + a)


def test_going_down_and_up_again_are_stages_of_their_own_and_the_output_is_none() -> None:
    assert paths(UNet(), 3, 16, 16)["maps"] == ["down1", "down2", "up"]


def perceptron(*widths: int) -> list[nn.Module]:
    return [x for a, b in itertools.pairwise(widths) for x in (nn.Linear(a, b), nn.ReLU(inplace=True))][:-1]


@pytest.mark.parametrize("wrapped", [False, True])
def test_hidden_layers_end_with_their_activation(wrapped: bool) -> None:
    network = nn.Sequential(*perceptron(8, 6, 5, 3))
    prefix = "inner." if wrapped else ""
    assert paths(Around(network) if wrapped else network, 8) == {"vectors": [f"{prefix}1", f"{prefix}3"]}


def test_logits_before_a_softmax_are_no_hidden_layer() -> None:
    assert paths(nn.Sequential(*perceptron(8, 6, 3), nn.Softmax(1)), 8) == {"vectors": ["1"]}


def test_a_hidden_layer_as_wide_as_the_output_is_kept() -> None:
    assert paths(nn.Sequential(*perceptron(8, 3, 3)), 8) == {"vectors": ["1"]}


class Transformer(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, 4)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(self.norm(tokens).mean(1))


@pytest.mark.parametrize("blocks", [1, 3])
def test_tokens_are_compared_after_the_blocks_of_the_stack(blocks: int) -> None:
    """One block is still a stack; what is inside of blocks is not proposed."""
    assert paths(Transformer(blocks), 1, 16, 16)["tokens"] == [f"layers.{index}" for index in range(blocks)]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared, self.once, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.once(self.shared(self.shared(x))))


def test_a_layer_that_is_called_twice_is_not_proposed() -> None:
    assert paths(Twice(), 8) == {"vectors": ["once"]}


class Stages(nn.Module):
    """Two stages of two blocks each: what a hierarchical transformer is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.stages = nn.ModuleList(nn.Sequential(*Transformer(2).layers) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x)
        for stage in self.stages:
            tokens = stage(tokens)
        return self.head(tokens.mean(1))


def test_of_stacks_within_a_stack_the_outer_one_is_compared() -> None:
    assert paths(Stages(), 5, 4)["tokens"] == ["stages.0", "stages.1"]


class Backbone(nn.Module):
    """A network in two parts, the first of them a module of its own class."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Around(nn.Sequential(*perceptron(8, 6, 5), nn.ReLU())), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def test_hidden_layers_within_a_single_part_are_found() -> None:
    assert paths(Backbone(), 8) == {"vectors": ["body.inner.1", "body"]}
