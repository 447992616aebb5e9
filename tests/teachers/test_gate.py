"""Gated ensembles against the formula in numpy, sample by sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, logit, softmax
from scipy.stats import entropy
from teacher_case import Net, batch_of
from torch import Tensor, nn

from tutelage.errors import ModelError
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers import (
    ConfidenceGate,
    Ensemble,
    EntropyGate,
    FunctionGate,
    ModuleGate,
    ModuleTeacher,
    SampleGate,
    Teacher,
)

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(3, 4, 5)) * 3  # members, rows, classes
WEIGHTS = [1.0, 2.0, 5.0]


class Says(nn.Module):
    """Answers fixed logits for rows that are named by their number."""

    def __init__(self, logits: Any) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(np.asarray(logits, dtype=np.float64)))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[x]


def ensemble(gate: SampleGate, answers: Any = LOGITS, **settings: Any) -> Ensemble:
    members: list[Teacher] = [ModuleTeacher(Says(answer)) for answer in answers]
    teacher = Ensemble(members, gate=gate, **settings)
    teacher.load(CPU)
    return teacher


def answer(teacher: Ensemble, rows: Any = range(4)) -> np.ndarray[Any, Any]:
    output = teacher.ask(batch_of(torch.tensor(list(rows))), Request(output=True)).output
    assert output is not None
    return output.numpy()


def mixed(gates: Any, weights: Any = (1.0, 1.0, 1.0)) -> np.ndarray[Any, Any]:
    """`log Σ_k s_k softmax(z_k)`, row by row, with `s_k = w_k g_k / Σ_j w_j g_j`; `gates` are `[K, B]`."""
    found = []
    for row in range(4):
        shares = np.array([w * g[row] for w, g in zip(weights, gates, strict=True)])
        shares /= shares.sum()
        found.append(sum(s * softmax(LOGITS[k, row]) for k, s in enumerate(shares)))
    return np.log(found)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_confidence_and_entropy_weigh_each_sample_by_the_formula_beside_the_fixed_weights(weights: Any) -> None:
    fixed = weights or [1.0, 1.0, 1.0]
    best = softmax(LOGITS, axis=-1).max(-1) ** 3.0
    np.testing.assert_allclose(answer(ensemble(ConfidenceGate(3.0), weights=weights)), mixed(best, fixed), atol=1e-12)
    unsure = np.array([[entropy(softmax(row)) for row in member] for member in LOGITS])
    found = answer(ensemble(EntropyGate(2.0), weights=weights))
    np.testing.assert_allclose(found, mixed(np.exp(-2.0 * unsure), fixed), atol=1e-12)
    without = answer(ensemble(EntropyGate(0.0), weights=weights))
    np.testing.assert_allclose(without, mixed(np.ones((3, 4)), fixed), atol=1e-12)


def test_gates_of_sigmoid_outputs_and_of_pixels_take_the_mean_over_outputs_or_places() -> None:
    p = expit(LOGITS)
    sure = np.maximum(p, 1 - p).mean(-1)
    mean = (p * (sure / sure.sum(0))[..., None]).sum(0)
    np.testing.assert_allclose(answer(ensemble(ConfidenceGate(), outputs="sigmoid")), logit(mean), atol=1e-12)
    unsure = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean(-1)
    gates = np.exp(-unsure)
    mean = (p * (gates / gates.sum(0))[..., None]).sum(0)
    np.testing.assert_allclose(answer(ensemble(EntropyGate(), outputs="sigmoid")), logit(mean), atol=1e-12)
    maps = RNG.normal(size=(2, 4, 5, 2, 3))
    shares = softmax(maps, axis=2)
    sure = shares.max(2).mean((2, 3))
    mean = (shares * (sure / sure.sum(0))[:, :, None, None, None]).sum(0)
    np.testing.assert_allclose(answer(ensemble(ConfidenceGate(), maps, axis=1)), np.log(mean), atol=1e-12)


def test_the_mean_of_logits_is_weighted_by_sample_too() -> None:
    best = softmax(LOGITS, axis=-1).max(-1)
    expected = (LOGITS * (best / best.sum(0))[..., None]).sum(0)
    np.testing.assert_allclose(answer(ensemble(ConfidenceGate(), mean_of="logits")), expected, atol=1e-12)


class Scores(nn.Module):
    def __init__(self, scores: Any) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.as_tensor(np.asarray(scores, dtype=np.float64)))

    def forward(self, x: Tensor) -> Tensor:
        return self.scores[x]


def test_a_network_gives_the_shares_as_the_softmax_of_its_scores_times_the_fixed_weights() -> None:
    scores = RNG.normal(size=(4, 3))
    gated = ensemble(ModuleGate(Scores(scores)), weights=WEIGHTS)
    np.testing.assert_allclose(answer(gated), mixed(np.exp(scores).T, WEIGHTS), atol=1e-12)
    wide = ensemble(ModuleGate(Scores(RNG.normal(size=(4, 2)))))
    with pytest.raises(ModelError, match=r"\(4, 3\)(.|\n)*\(4, 2\)"):
        answer(wide)


def test_a_sample_is_weighed_by_its_own_answers_in_any_batch() -> None:
    gated = ensemble(EntropyGate(4.0))
    np.testing.assert_allclose(answer(gated, [2]), answer(gated)[[2]], atol=1e-12)
    np.testing.assert_allclose(answer(gated, [3, 1, 0, 2]), answer(gated)[[3, 1, 0, 2]], atol=1e-12)


def written(folder: Path, body: str, name: str = "my_gate") -> str:
    (folder / f"{name}.py").write_text(f"import torch\n\ndef weights(batch):\n    {body}\n")
    return f"{name}:weights"


def test_a_function_weighs_members_by_the_batch_and_may_leave_one_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    body = "return torch.stack([(batch.rows == 1) * 2.0, torch.ones(len(batch)), batch.rows == 3], dim=1)"
    gates = np.array([[0, 2, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]], dtype=float)
    gated = ensemble(FunctionGate(written(tmp_path, body)), weights=WEIGHTS)
    np.testing.assert_allclose(answer(gated), mixed(gates, WEIGHTS), atol=1e-12)
    assert gated.as_module() is None  # what it reads of the rows is not there when the members are timed


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return torch.ones(len(batch), 2)", r"\(4, 3\)"),
        ("return torch.zeros(len(batch), 3)", "no weights for a sample"),
        ("return -torch.ones(len(batch), 3)", "negative"),
        ("return torch.ones(len(batch), 3) / 0", "infinite"),
        ("return [1, 2, 3]", "list"),
        ("return batch.nothing", "AttributeError"),
    ],
)
def test_a_function_that_gives_no_weights_is_refused(
    body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"gate_{abs(hash(body))}"
    with pytest.raises(ModelError, match=message):
        answer(ensemble(FunctionGate(written(tmp_path, body, name))))


@pytest.mark.parametrize("name", ["no_such_module_here:weights", "math", "math:sine"])
def test_a_function_that_is_not_there_is_refused_when_the_teacher_is_loaded(name: str) -> None:
    with pytest.raises(ModelError, match=r"teacher\.gate\.name"):
        ensemble(FunctionGate(name))


def test_the_fingerprint_tells_gates_settings_weights_and_the_source_of_the_users_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    gates = [
        ConfidenceGate(),
        ConfidenceGate(2.0),
        EntropyGate(),
        EntropyGate(2.0),
        ModuleGate(Scores(np.ones((4, 3)))),
    ]
    found = [ensemble(gate).fingerprint() for gate in gates]
    found.append(ensemble(ModuleGate(Scores(np.zeros((4, 3))))).fingerprint())
    name = written(tmp_path, "return torch.ones(len(batch), 3)", "told")
    found.append(ensemble(FunctionGate(name)).fingerprint())
    written(tmp_path, "return torch.ones(len(batch), 3) * 2", "told")
    found.append(ensemble(FunctionGate(name)).fingerprint())
    members: list[Teacher] = [ModuleTeacher(Says(each)) for each in LOGITS]
    plain = Ensemble(members)
    plain.load(CPU)
    assert len({plain.fingerprint(), *found}) == 9
    assert ensemble(ConfidenceGate()).fingerprint() == found[0]


class Remembered(Teacher):
    """Keeps each row's answer and never asks twice, as a cache does."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher, self.stored, self.asked = teacher, dict[int, Tensor](), 0

    def load(self, device: torch.device) -> None:
        self.teacher.load(device)

    def check(self, request: Request) -> None:
        self.teacher.check(request)

    def ask(self, batch: Batch, request: Request) -> Signals:
        if not all(row in self.stored for row in batch.rows.tolist()):
            self.asked += 1
            said = self.teacher.ask(batch, request).dense()
            self.stored |= dict(zip(batch.rows.tolist(), said, strict=True))
        return Signals(output=torch.stack([self.stored[row] for row in batch.rows.tolist()]))

    def fingerprint(self) -> str:
        return self.teacher.fingerprint()


def test_members_that_are_remembered_each_for_itself_are_gated_after_their_answers_are_there() -> None:
    members = [Remembered(ModuleTeacher(Says(each))) for each in LOGITS]
    expected = answer(ensemble(ConfidenceGate(2.0)))
    for sharpness in (2.0, 5.0):  # another gate asks nobody again
        gated = Ensemble([*members], gate=ConfidenceGate(sharpness))
        gated.load(CPU)
        np.testing.assert_allclose(answer(gated), answer(ensemble(ConfidenceGate(sharpness))), atol=1e-12)
    assert [member.asked for member in members] == [1, 1, 1]
    assert not np.allclose(answer(gated), expected)


def test_the_module_that_is_timed_answers_as_the_gated_teacher_does_and_holds_the_gates_parameters() -> None:
    teacher = Ensemble(
        [ModuleTeacher(Net), ModuleTeacher(lambda: Net(seed=1))], gate=ModuleGate(lambda: Net(seed=2, classes=2))
    )
    teacher.load(CPU)
    inputs = torch.randn(4, 1, 6, 6)
    module = teacher.as_module()
    assert module is not None
    with torch.no_grad():
        found = module(inputs)
    torch.testing.assert_close(found, teacher.ask(batch_of(inputs), Request(output=True)).output)
    parts = [Net(), Net(), Net(classes=2)]
    assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for net in parts for p in net.parameters())


@pytest.mark.parametrize("gate", [ConfidenceGate, EntropyGate])
@pytest.mark.parametrize("sharpness", [-1.0, float("nan"), float("inf")])
def test_a_sharpness_that_gives_no_mean_or_prefers_the_unsure_is_refused(gate: Any, sharpness: float) -> None:
    with pytest.raises(ModelError, match=r"teacher\.gate\.sharpness(.|\n)*at least 0"):
        ensemble(gate(sharpness))


def exits(batch: Batch) -> Tensor:
    raise SystemExit(3)


def test_a_gate_that_exits_does_not_end_the_run_in_silence() -> None:
    with pytest.raises(ModelError, match=r"raises SystemExit: 3 \(test_gate\.py"):
        answer(ensemble(FunctionGate(f"{__name__}:exits")))
