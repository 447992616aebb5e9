"""What the numbers of a teacher's output are: one meaning of `gives` for every teacher that has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from graphs import BIAS, WEIGHT
from onnx import TensorProto, helper, numpy_helper
from scipy import special
from torch import Tensor, nn

from tutelage.errors import ModelError
from tutelage.ledger import Failure
from tutelage.losses import KLDivergence, SoftCrossEntropy
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers import FunctionTeacher, ModuleTeacher, OnnxTeacher, OpenVinoTeacher, Teacher
from tutelage.teachers.gives import log_odds, probabilities_to_logits, signal_of
from tutelage.teachers.tensor_checks import require_rows

CPU = torch.device("cpu")
X = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32))
LOGITS = X.double().numpy() @ WEIGHT + BIAS
ENDS = {"probabilities": "Softmax", "sigmoid": "Sigmoid"}
EXPECTED = {"probabilities": special.log_softmax(LOGITS, axis=1), "sigmoid": LOGITS}


class Ending(nn.Module):
    """The linear module of the graphs, with an end."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(WEIGHT.T))
            self.linear.bias.copy_(torch.from_numpy(BIAS))
        self.end = nn.Softmax(-1) if end == "Softmax" else nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.linear(x))


def graph(path: Path, end: str) -> str:
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["z"]),
        helper.make_node(end, ["z"], ["p"]),
    ]
    made = helper.make_graph(
        nodes,
        "ending",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 5])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["rows", 3])],
        [numpy_helper.from_array(WEIGHT, "W"), numpy_helper.from_array(BIAS, "b")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path / f"{end}.onnx"))
    return str(path / f"{end}.onnx")


def called(inputs: Tensor, *, end: str) -> Tensor:
    return Ending(end)(inputs)


MAKERS: dict[str, Callable[[Path, str, Any], Teacher]] = {
    "module": lambda path, end, gives: ModuleTeacher(Ending(end), gives=gives),
    "onnx": lambda path, end, gives: OnnxTeacher(graph(path, end), gives=gives),
    "openvino": lambda path, end, gives: OpenVinoTeacher(graph(path, end), gives=gives),
    "function": lambda path, end, gives: FunctionTeacher(f"{__name__}:called", gives, arguments={"end": end}),
}


def asked(teacher: Teacher, x: Tensor = X) -> Tensor:
    teacher.load(CPU)
    rows = torch.arange(len(x))
    output = teacher.ask(Batch(inputs=x, rows=rows, views=rows * 0), Request(output=True)).output
    assert output is not None and output.dtype == torch.float32
    return output


@pytest.mark.parametrize("gives", ENDS)
@pytest.mark.parametrize("kind", MAKERS)
def test_probabilities_become_the_logits_that_they_were_made_of(kind: str, gives: str, tmp_path: Path) -> None:
    output = asked(MAKERS[kind](tmp_path, ENDS[gives], gives))
    np.testing.assert_allclose(output.numpy(), EXPECTED[gives], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", MAKERS)
def test_independent_probabilities_offered_as_those_of_classes_are_sent_to_sigmoid(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gives: sigmoid"):
        asked(MAKERS[kind](tmp_path, "Sigmoid", "probabilities"))


def test_logits_offered_as_probabilities_are_sent_to_logits(tmp_path: Path) -> None:
    for gives in ENDS:
        with pytest.raises(ModelError, match="gives: logits"):
            asked(ModuleTeacher(nn.Linear(5, 3), gives=gives))  # type: ignore[arg-type]


def test_a_gives_that_is_none_is_refused_when_a_module_is_loaded() -> None:
    with pytest.raises(ModelError, match="did you mean `probabilities`"):
        ModuleTeacher(nn.Linear(5, 3), gives="probabilites").load(CPU)  # type: ignore[arg-type]


def test_one_probability_a_row_is_that_of_the_second_of_two_classes() -> None:
    p = np.array([0.0, 0.2, 0.5, 1.0])
    for shape in ((4,), (4, 1)):
        found = signal_of(torch.tensor(p).reshape(shape), "probabilities", who="it")
        np.testing.assert_allclose(found.exp().numpy(), np.stack([1 - p, p], 1), atol=2e-7)
    told = FunctionTeacher(f"{__name__}:second", "probabilities")
    np.testing.assert_allclose(asked(told, X[:4]).exp().numpy(), np.stack([1 - p, p], 1), atol=2e-7)


def second(inputs: Tensor) -> list[float]:
    return [0.0, 0.2, 0.5, 1.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_saturated_probabilities_are_finite_and_come_back(dtype: torch.dtype) -> None:
    z = torch.linspace(-40, 40, 81, dtype=torch.float64)
    p = torch.sigmoid(z).to(dtype)
    logits = signal_of(p, "sigmoid", who="it")
    assert logits.isfinite().all() and logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (logits.diff() >= 0).all() and logits.abs().max() < 16.2
    slack = max(torch.finfo(dtype).eps, 1.2e-7)
    torch.testing.assert_close(torch.sigmoid(logits.double()), p.double(), atol=slack, rtol=0)
    near = z.abs() <= 8
    if dtype in (torch.float64, torch.float32):
        torch.testing.assert_close(
            logits[near].double(), z[near], atol=2e-3 if dtype == torch.float32 else 1e-9, rtol=0
        )
    with pytest.raises(ModelError, match="from 0 to 1"):
        signal_of(torch.tensor([0.5, 1.01]), "sigmoid", who="it")


def test_log_probabilities_soften_as_the_distribution_does() -> None:
    p = torch.from_numpy(np.random.default_rng(1).dirichlet(np.ones(4), 6))
    for temperature in (1.0, 2.5):
        softened = (probabilities_to_logits(p) / temperature).softmax(-1).numpy()
        powered = p.numpy() ** (1 / temperature)
        np.testing.assert_allclose(softened, powered / powered.sum(1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("exact", [False, True])
def test_losses_take_given_probabilities_for_what_they_are(exact: bool) -> None:
    """Against formulas on the probabilities themselves; 0 and 1 are no infinite loss."""
    rng = np.random.default_rng(2)
    student = rng.normal(size=(6, 3))
    q = (rng.random((6, 3)) > 0.5).astype(float) if exact else rng.random((6, 3))
    rows = torch.arange(6)
    batch = Batch(inputs=rows, rows=rows, views=rows * 0)
    said = Signals(output=torch.from_numpy(student).float())
    told = Signals(output=signal_of(torch.from_numpy(q), "sigmoid", who="it").float())
    p = special.expit(student)
    cross = -(special.xlogy(q, p) + special.xlogy(1 - q, 1 - p)).sum(1)
    entropy = -(special.xlogy(q, q) + special.xlogy(1 - q, 1 - q)).sum(1)
    kl, soft = KLDivergence(1.0, outputs="sigmoid"), SoftCrossEntropy(1.0, outputs="sigmoid")
    np.testing.assert_allclose(values(kl, said, told, batch), cross - entropy, atol=2e-5)
    np.testing.assert_allclose(values(soft, said, told, batch), cross, atol=2e-5)
    c = np.eye(3)[[0, 1, 2, 0, 1, 2]] if exact else rng.dirichlet(np.ones(3), 6)
    told = Signals(output=signal_of(torch.from_numpy(c), "probabilities", who="it").float())
    log_p = special.log_softmax(student, axis=1)
    kl = KLDivergence(1.0)
    expected = (special.xlogy(c, c) - c * log_p).sum(1)
    np.testing.assert_allclose(values(kl, said, told, batch), expected, atol=2e-5)


def values(loss: Any, student: Signals, teacher: Signals, batch: Batch) -> np.ndarray:
    return loss(student, teacher, batch).detach().numpy()


def test_what_a_module_gives_is_part_of_its_fingerprint_and_logits_are_what_they_were() -> None:
    prints = {}
    for gives in ("logits", "values", "probabilities", "sigmoid"):
        teacher = ModuleTeacher(Ending("Softmax"), gives=gives)  # type: ignore[arg-type]
        teacher.load(CPU)
        prints[gives] = teacher.fingerprint()
    plain = ModuleTeacher(Ending("Softmax"))
    plain.load(CPU)
    assert prints["logits"] == prints["values"] == plain.fingerprint()
    assert len(set(prints.values())) == 3


def test_a_server_that_gives_independent_probabilities_is_not_taken_for_one_of_classes() -> None:
    independent = special.expit(LOGITS)
    with pytest.raises(Failure, match="gives: sigmoid"):
        require_rows(independent, 8, "probabilities")
    with pytest.raises(Failure, match="gives: logits"):
        require_rows(LOGITS, 8, "sigmoid")
    require_rows(independent, 8, "sigmoid")
    require_rows(special.softmax(LOGITS, axis=1).round(1), 8, "probabilities")


def test_log_odds_are_those_of_scipy() -> None:
    p = np.random.default_rng(3).random(100)
    np.testing.assert_allclose(log_odds(torch.from_numpy(p)).numpy(), special.logit(p), rtol=1e-12)
