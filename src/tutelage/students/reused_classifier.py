"""A student that ends in its teacher's own classifier."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any, Literal, Self

from torch import Tensor, nn

from tutelage.errors import ModelError, RecipeError
from tutelage.signals import output_of
from tutelage.students.base import Student
from tutelage.students.module import ModuleStudent
from tutelage.taps import find_layer
from tutelage.teachers import Teacher

__all__ = ["ReusedClassifier", "WithReusedClassifier"]


class ReusedClassifier(Student):
    """A backbone of one's own, a projector to the teacher's width, and a frozen copy of the teacher's classifier.

    What is to be learnt is the features that the classifier reads: train it with
    `SimKD({"projector": LAYER_BEFORE_THE_CLASSIFIER})`. Its layers are `backbone`, `projector` and `classifier`. The
    projector ships with the student, for without it the classifier could not be used.

    The projector is the paper's: for maps three convolutions (1x1 to `W/factor` channels, 3x3, and 1x1 to `W`, the
    classifier's width), for vectors two linear maps (to `W/factor` and to `W`), each with a batch norm and a ReLU. Maps
    are averaged over their places before the classifier.

    Source: Chen, Mei, Zhang, Wang, Feng, Chen, "Knowledge Distillation with the Reused Teacher Classifier", 2022.

    Args:
        backbone: A class or function that makes the module up to its features, anew for each seed; or (in Python) a
            module. Its forward gives maps `[B, C, H, W]` or vectors `[B, D]`.
        width: The channels of the backbone's features.
        classifier: The dotted path of the teacher's classifier, which reads vectors, such as `fc`.
        features: Whether the backbone gives `maps` or `vectors`.
        factor: By how much the projector's inner layers are narrower than the teacher's features.
        activation: What the projector ends with: `relu` where the teacher's features come out of one, as in ResNets,
            `none` where they may be negative.

    Raises:
        RecipeError: `width` or `factor` is not positive.
    """

    def __init__(
        self,
        backbone: Callable[[], nn.Module] | nn.Module,
        width: int,
        classifier: str,
        *,
        features: Literal["maps", "vectors"] = "maps",
        factor: int = 2,
        activation: Literal["relu", "none"] = "relu",
    ) -> None:
        for name, number in (("width", width), ("factor", factor)):
            if number < 1:
                raise RecipeError(f"student.{name}", expected="a positive number", found=f"{number}")
        self.backbone = backbone
        self.width = width
        self.classifier = classifier
        self.features = features
        self.factor = factor
        self.activation = activation

    @property
    def factories(self) -> dict[str, Callable[..., nn.Module]]:
        """What makes the backbone; nothing where it was given ready-made."""
        return {} if isinstance(self.backbone, nn.Module) else {"backbone": self.backbone}

    @property
    def outputs_in_unit(self) -> bool:
        """Yes: it ends in the teacher's classifier."""
        return True

    def build(self, teacher: Teacher) -> nn.Module:
        """The three parts as one module in training mode, its classifier frozen.

        Raises:
            ModelError: The teacher is no torch module, has no such layer, or the layer is no classifier of vectors; or
                `backbone` makes something else than a torch module.
        """
        if teacher.module is None:
            raise ModelError(
                "student.classifier",
                expected="a teacher that is one torch module: the student takes over a part of it",
                found=teacher.describe(),
                mend="use a student with a classifier of its own (ModuleStudent)",
            )
        classifier = copy.deepcopy(find_layer(teacher.module, self.classifier, model="teacher")).cpu().float()
        backbone = ModuleStudent(self.backbone).build(teacher)
        return WithReusedClassifier(backbone, self._projector(self._reads(classifier)), classifier).train()

    def _reads(self, classifier: nn.Module) -> int:
        """How wide the vectors are that the classifier reads: the columns of its first matrix."""
        for parameter in classifier.parameters():
            if parameter.dim() == 2:
                return int(parameter.shape[1])
        raise ModelError(
            f"student.classifier: `{self.classifier}` of the teacher",
            expected="a classifier of vectors, such as an nn.Linear",
            found=f"{type(classifier).__name__} without a matrix",
            mend="name the last linear layer of the teacher; `tutelage doctor` lists the layers",
        )

    def _projector(self, wide: int) -> nn.Sequential:
        inner = max(1, wide // self.factor)
        widths = [self.width, inner, inner, wide] if self.features == "maps" else [self.width, inner, wide]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(itertools.pairwise(widths)):
            if self.features == "maps":
                window = 3 if index == 1 else 1
                conv = nn.Conv2d(before, after, window, padding=window // 2, bias=False)
                layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
            else:
                layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        return nn.Sequential(*layers[: None if self.activation == "relu" else -1])


class WithReusedClassifier(nn.Module):
    """`classifier(mean over places of projector(backbone(x)))`, the classifier frozen and always in eval mode.

    Args:
        backbone: Gives maps or vectors.
        projector: Brings them to the classifier's width.
        classifier: Reads vectors. Its parameters no longer require a gradient.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.classifier = classifier.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Training mode but for the classifier: its dropout stays off, its norms keep their statistics."""
        super().train(mode)
        self.classifier.eval()
        return self

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Logits."""
        features: Tensor = self.projector(output_of(self.backbone(*inputs, **named), "student's backbone"))
        if features.dim() == 4:
            features = features.mean((2, 3))
        return output_of(self.classifier(features), "teacher's classifier")
