from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Plain, batch_of, signals_of
from scipy.special import log_softmax
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses import CrossEntropy, Hint, KLDivergence, Routed
from tutelage.signals import Request, Signals


def kl(student: Array, teacher: Array, T: float) -> Array:
    q, p = log_softmax(student / T, axis=-1), log_softmax(teacher / T, axis=-1)
    return T * T * (np.exp(p) * (p - q)).sum(-1)


CASES = {
    "layers in the place of outputs": Case(
        lambda: Routed(KLDivergence(2.0), student="a", teacher="b"),
        {"a": (5,)},
        {"b": (5,)},
        lambda n: kl(n.student["a"], n.teacher["b"], 2.0),
        floor=0.0,
    ),
    "a peer teaches": Case(
        lambda: Routed(KLDivergence(1.0), student="a", teacher="b", teacher_model="student"),
        {"a": (5,), "b": (5,)},
        {},
        lambda n: kl(n.student["a"], n.student["b"], 1.0),
        detached=("b",),
    ),
    "the output teaches an early exit": Case(
        lambda: Routed(KLDivergence(3.0), student="exit", teacher_model="student", weight=0.5),
        {"exit": (5,), "output": (5,)},
        {},
        lambda n: kl(n.student["exit"], n.student["output"], 3.0),
        detached=("output",),
    ),
    "labels of a head": Case(
        lambda: Routed(CrossEntropy(), student="head"),
        {"head": (5,)},
        {},
        lambda n: -log_softmax(n.student["head"], axis=1)[np.arange(len(n.labels)), n.labels],
        labels=lambda rng, B: rng.integers(0, 5, size=B),
    ),
    "tokens": Case(
        lambda: Routed(KLDivergence(2.0), teacher="b"),
        {"output": (3, 5)},
        {"b": (3, 5)},
        lambda n: kl(n.student["output"], n.teacher["b"], 2.0),
        tokens=3,
        floor=0.0,
    ),
}


def plain(student: dict[str, Tensor], teacher: dict[str, Tensor], labels: object, loss: object) -> Tensor:
    q, p = F.log_softmax(student["a"] / 2, 1), F.log_softmax(teacher["b"] / 2, 1)
    return 4 * F.kl_div(q, p, reduction="batchmean", log_target=True)


PLAIN = {
    "classes": Plain(
        lambda: Routed(KLDivergence(2.0), student="a", teacher="b"), {"a": (1000,)}, {"b": (1000,)}, plain, samples=256
    )
}


def test_a_member_is_heard_and_the_main_teacher_is_not() -> None:
    loss = Routed(KLDivergence(2.0), member="deep")
    assert loss.needs.teacher == Request(members={"deep": Request(output=True)})
    numbers = CASES["layers in the place of outputs"].draw()
    student = Signals(output=torch.tensor(numbers.student["a"]))
    teacher = Signals(members={"deep": Signals(output=torch.tensor(numbers.teacher["b"]))})
    loss.prepare(student, teacher, batch_of(numbers))
    values = loss(student, teacher, batch_of(numbers))
    np.testing.assert_allclose(values.numpy(), kl(numbers.student["a"], numbers.teacher["b"], 2.0), rtol=1e-12)


def test_inner_layers_of_a_member_are_asked_of_it() -> None:
    needs = Routed(Hint({"a": "b"}), member="deep").needs
    assert needs.student == Request(features=frozenset({"a"}))
    assert needs.teacher == Request(members={"deep": Request(features=frozenset({"b"}))})


def test_nan_of_a_member_is_refused_by_its_name() -> None:
    numbers = CASES["layers in the place of outputs"].draw()
    student = Signals(output=torch.tensor(numbers.student["a"]))
    said = torch.tensor(numbers.teacher["b"])
    said[0, 0] = float("nan")
    with pytest.raises(SignalError, match="output of the teacher `deep`"):
        Routed(KLDivergence(), member="deep").prepare(
            student, Signals(members={"deep": Signals(output=said)}), batch_of(numbers)
        )


def test_the_labels_of_another_task_are_not_mistaken_for_the_main_ones() -> None:
    case = CASES["labels of a head"]
    numbers = case.draw()
    other = (numbers.labels + 1) % 5
    batch = replace(batch_of(numbers), tasks={"parity": torch.tensor(other)})
    loss = Routed(CrossEntropy(), student="head", labels="parity")
    student = signals_of(numbers.student, torch.float64)
    loss.prepare(student, Signals(), batch)
    expected = -log_softmax(numbers.student["head"], axis=1)[np.arange(4), other]
    np.testing.assert_allclose(
        loss(student, Signals(), batch).numpy()[numbers.labelled], expected[numbers.labelled], rtol=1e-12
    )
    with pytest.raises(SignalError, match=r"(?s)`party`.*did you mean `parity`"):
        Routed(CrossEntropy(), student="head", labels="party").prepare(student, Signals(), batch)


def test_a_student_that_teaches_itself_has_no_members() -> None:
    with pytest.raises(ValueError, match="member"):
        Routed(KLDivergence(), member="deep", teacher_model="student")
