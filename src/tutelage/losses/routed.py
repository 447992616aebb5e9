"""Routing: another loss, between other signals than the student's output and the teacher's."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Literal

from torch import Tensor

from tutelage.errors import SignalError, did_you_mean
from tutelage.losses.base import Loss, Needs, Weight, require_choice, require_finite
from tutelage.losses.wrapped import WrappedLoss
from tutelage.signals import Batch, Request, Signals

__all__ = ["Routed"]


class Routed(WrappedLoss):
    """`loss(s', t')`: the inner loss, where `s'` and `t'` take the place of the two outputs that it would compare.

    What it is for:

    * several teachers, each with losses and weights of its own: `member: NAME` (see `SeveralTeachers`);
    * a student with a head for each task: `student: heads.NAME`, with `labels: NAME` and, for a teacher of its own,
      `member: NAME`;
    * mutual learning: the output of one peer learns from that of another, `student: peers.0`, `teacher: peers.1`,
      `teacher_model: student` (see `Peers`);
    * self-distillation: an early exit learns from a deeper one of the same student;
    * a loss on outputs (such as `KLDivergence`) between inner layers that hold logits.

    A signal of the student in the teacher's place is detached: nothing flows back to the one who teaches.

    Shapes: those of the inner loss.

    When to use it: whenever more than one pair of outputs is compared.

    Cost: that of the inner loss; no copies.

    Source: Zhang et al., "Deep Mutual Learning", 2018, and Zhang et al., "Be Your Own Teacher", 2019, compare parts of
    students with each other.

    Args:
        loss: The inner loss; its weight has to be 1.
        student: A layer of the student whose output takes the place of the student's output. None: the output.
        teacher: A layer of the teacher (or of `teacher_model`) whose output takes the place of the teacher's. None: the
            output.
        teacher_model: Whether what teaches is the teacher's, or the student's own.
        member: The name of the teacher that is heard, of several. None: the main one.
        labels: The name of the further task (`data.tasks`) whose labels take the place of the labels. None: the labels.
        weight: Factor of this term in the total.

    Raises:
        ValueError: `member` is given though the student is to teach itself, or the inner loss has a weight of its own.
    """

    def __init__(
        self,
        loss: Loss,
        *,
        student: str | None = None,
        teacher: str | None = None,
        teacher_model: Literal["teacher", "student"] = "teacher",
        member: str | None = None,
        labels: str | None = None,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(loss, weight=weight)
        require_choice("teacher_model", teacher_model, ("teacher", "student"))
        if member is not None and teacher_model == "student":
            raise ValueError(f"member must be left out where the student teaches itself, found {member!r}")
        self.student = student
        self.teacher = teacher
        self.teacher_model = teacher_model
        self.member = member
        self.labels = labels

    @property
    def takes_top_k(self) -> bool:  # type: ignore[override]
        """Whether the inner loss does."""
        return self.loss.takes_top_k

    @property
    def compares_values(self) -> bool:  # type: ignore[override]
        """Whether the inner loss does, and no target comes from elsewhere than from teacher and labels themselves."""
        elsewhere = self.member or self.labels or (self.teacher and self.teacher_model == "teacher")
        return self.loss.compares_values and not elsewhere

    @functools.cached_property
    def _inner(self) -> Needs:
        """What the inner loss needs: known once its pairs of layers are."""
        return self.loss.needs

    @property
    def needs(self) -> Needs:
        """What the inner loss needs, asked where it is to be found."""
        inner = self._inner
        student, teacher = _routed(inner.student, self.student), _routed(inner.teacher, self.teacher)
        if self.teacher_model == "student":
            return Needs(student=student | teacher, labels=inner.labels)
        if self.member is not None and teacher:
            teacher = Request(members={self.member: teacher})
        return Needs(student=student, teacher=teacher, labels=inner.labels)

    def handed(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        """The signals as the inner loss names them."""
        source = student.map(Tensor.detach) if self.teacher_model == "student" else teacher
        if self.member is not None and self._inner.teacher:
            source = source.members[self.member]
        return _handed(student, self.student, self._inner.student), _handed(source, self.teacher, self._inner.teacher)

    def check_finite(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Raises a `SignalError` that names the model and the layer when a signal that counts is NaN or infinite."""
        super().check_finite(student, teacher, batch)
        rows = self.rows_that_count(batch)
        for member, request in self.needs.teacher.members.items():
            said = teacher.members[member]
            if request.output and said.top is None:
                require_finite("Routed", f"output of the teacher `{member}`", said.output, batch, rows)
            for path in sorted(request.features):
                require_finite("Routed", f"layer `{path}` of the teacher `{member}`", said.features[path], batch, rows)

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Prepares the inner loss on what it is handed."""
        super().prepare(student, teacher, self._relabelled(batch))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """What the inner loss says."""
        return super().forward(student, teacher, self._relabelled(batch))

    def counts(self, batch: Batch) -> Tensor:
        """Those of the inner loss."""
        return super().counts(self._relabelled(batch))

    def _relabelled(self, batch: Batch) -> Batch:
        """The batch with the labels of the task that is meant. A batch that has them already stays as it is."""
        if self.labels is None:
            return batch
        if self.labels not in batch.tasks:
            raise SignalError(
                f"Routed on labels `{self.labels}`",
                expected="the name of a further task of the data",
                found=f"a batch with the tasks: {', '.join(batch.tasks) or 'none'}",
                mend=did_you_mean(self.labels, batch.tasks) or "name the column in data.tasks",
            )
        return replace(batch, labels=batch.tasks[self.labels])


def _routed(request: Request, path: str | None) -> Request:
    """The request with the layer at `path` in the place of the output."""
    if path is None or not request.output:
        return request
    return Request(features=request.features | {path}, members=request.members)


def _handed(signals: Signals, path: str | None, request: Request) -> Signals:
    """What `request` asks for, with the layer at `path` in the place of the output."""
    features = {name: signals.features[name] for name in request.features}
    if not request.output:
        return Signals(features=features)
    if path is None:
        return Signals(output=signals.output, top=signals.top, features=features, answered=signals.answered)
    return Signals(output=signals.features[path], features=features)
