"""Flow of the solution procedure: how one layer's channels go with another's is to be the same in both models."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight, require_choice, require_same_shape
from tutelage.losses.reduce import full_precision, widen
from tutelage.signals import Batch, Request, Signals

__all__ = ["FlowOfSolution", "flow_matrix"]


def flow_matrix(first: Tensor, second: Tensor, pooling: Literal["max", "average"]) -> Tensor:
    """`G_ij = 1/(HW) · Σ_hw first_i · second_j`: maps `[B, m, H, W]`, `[B, n, h, w]` -> `[B, m, n]`.

    Where the maps differ in size, the larger one is pooled (adaptive) to the size of the smaller.
    """
    size = (min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3]))
    pool = F.adaptive_max_pool2d if pooling == "max" else F.adaptive_avg_pool2d
    a, b = (maps if maps.shape[2:] == size else pool(maps, size) for maps in (first, second))
    with full_precision(a):
        return a.flatten(2) @ b.flatten(2).mT / (size[0] * size[1])


class FlowOfSolution(Loss):
    """`‖G_T - G_S‖²_F` between the flow matrices of student and teacher, each made of two layers of one model.

    `G_ij = 1/(HW) · Σ_hw F1_ihw · F2_jhw` with `F1` and `F2` the maps at the start and at the end of a stage.

    Variants: "paper" sums the squares over the entries of the matrix and max-pools the larger of the
    two maps to the size of the smaller; "official" takes the mean over the entries and average-pools. (The authors
    published no code; "official" is the form in which RepDistiller and what follows it have it.)

    Shapes: layers `[B, C, H, W]` -> `[B]`. The first layers of a flow must have as many channels in both models, and
    so must the second; sizes may differ between the models. Values are averaged over flows; the paper sums, with a
    weight for each.

    When to use it: a student that is a shallower copy of its teacher, such as a ResNet of fewer blocks: each flow goes
    from the first layer of a stage to its last. The paper trains on this loss alone first and on the task afterwards:
    give it a `weight` that falls to 0.

    Cost: `C_1·C_2·H·W` multiplications a sample, flow and model; no parameters.

    Source: Yim, Joo, Bae, Kim, "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and
    Transfer Learning", 2017.

    Args:
        student_flows: The flows, each of two of the student's layers by dotted module path, e.g.
            `[[stem, layer1], [layer1, layer2]]`.
        teacher_flows: The teacher's flow for each of these.
        variant: Which of the two forms above.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no flows, one is not of two layers, the models have not as many, or `variant` is none of
            its choices.
    """

    def __init__(
        self,
        student_flows: list[list[str]],
        teacher_flows: list[list[str]],
        *,
        variant: Literal["paper", "official"] = "official",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        for name, flows in (("student_flows", student_flows), ("teacher_flows", teacher_flows)):
            if not flows:
                raise ValueError(f"{name} must hold at least one flow of two layers, found none")
            if wrong := [flow for flow in flows if len(flow) != 2]:
                raise ValueError(f"{name} must hold flows of two layers each, found {wrong[0]}")
        if len(student_flows) != len(teacher_flows):
            counts = f"{len(student_flows)} and {len(teacher_flows)}"
            raise ValueError(f"student_flows and teacher_flows must be as many, found {counts}")
        require_choice("variant", variant, ("paper", "official"))
        self.student_flows = student_flows
        self.teacher_flows = teacher_flows
        self.variant = variant

    @property
    def needs(self) -> Needs:
        """The features of all layers in the flows."""
        student, teacher = (
            Request(features=frozenset(path for flow in flows for path in flow))
            for flows in (self.student_flows, self.teacher_flows)
        )
        return Needs(student=student, teacher=teacher)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`: the mean over the flows."""
        values = []
        for flow, teacher_flow in zip(self.student_flows, self.teacher_flows, strict=True):
            (s1, t1), (s2, t2) = (
                widen(self._maps("student", path, student), self._maps("teacher", teacher_path, teacher))
                for path, teacher_path in zip(flow, teacher_flow, strict=True)
            )
            pooling: Literal["max", "average"] = "max" if self.variant == "paper" else "average"
            of_student, of_teacher = flow_matrix(s1, s2, pooling), flow_matrix(t1, t2, pooling)
            where = f"flow matrix of the student's {flow}, to be compared with that of the teacher's {teacher_flow}"
            mend = "choose flows between layers of as many channels in both models; for others use AttentionTransfer"
            require_same_shape("FlowOfSolution", of_student, of_teacher, where=where, mend=mend)
            squares = (of_student - of_teacher).square()
            values.append(squares.sum((1, 2)) if self.variant == "paper" else squares.mean((1, 2)))
        return torch.stack(values).mean(0)

    def _maps(self, model: str, path: str, signals: Signals) -> Tensor:
        maps = signals.features[path]
        if maps.dim() != 4:
            raise SignalError(
                f"FlowOfSolution on layer `{path}` of the {model}",
                expected="maps [B, C, H, W]",
                found=f"shape {tuple(maps.shape)}",
                mend="name layers before the pooling; for transformers use HiddenState",
            )
        return maps
