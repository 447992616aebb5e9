"""Regressions whose targets are far from 0 and 1 are learnt in standard units and answered in the targets' own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

os.environ["HF_HUB_OFFLINE"] = "1"

import tutelage as tt
from tutelage import losses
from tutelage.answers import TeacherSays, answers, teacher_answers
from tutelage.evaluation.evidence import read_evidence
from tutelage.export import load_student
from tutelage.export.onnx import OnnxModel
from tutelage.losses.counted import Counted
from tutelage.parts import build_student
from tutelage.recipe import Assistant
from tutelage.recipe_file import dump_recipe
from tutelage.signals import Batch, Request, Signals, output_of
from tutelage.stages import train_baseline, train_student, train_teacher
from tutelage.standardized import Standardized
from tutelage.students import CutStudent, HuggingFaceStudent, Peers, PretrainedStudent, ReusedClassifier, Student
from tutelage.students.standardized import StandardizedStudent
from tutelage.teachers import HuggingFaceTeacher, Teacher
from tutelage.training.step import Learner
from tutelage.workspace import Workspace

ROWS, CPU = 160, torch.device("cpu")
INPUTS = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
PRICES = (INPUTS @ np.array([60_000.0, -40_000, 5_000, 0, 0, 1_000]) + 250_000).astype(np.int64)
PAIR = np.stack([PRICES.astype(np.float64), INPUTS[:, 2] * 0.002 + 0.01 * np.tanh(INPUTS[:, 0])], axis=1)
SPLIT = ["train"] * 100 + ["development"] * 20 + ["test"] * 40
TRAIN, TEST = slice(0, 100), slice(120, 160)


class Net(nn.Module):
    """Two layers, the outputs of one value without an axis of their own."""

    def __init__(self, outputs: int = 1, hidden: int = 12) -> None:
        super().__init__()
        self.outputs, self.hidden = outputs, hidden
        self.first, self.last = nn.Linear(6, hidden), nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.tanh(self.first(x)))
        return y[:, 0] if self.outputs == 1 else y


class Known(nn.Module):
    """What the labels say, a little off, in standard units of `mean` and `std` if they are given."""

    def __init__(self, targets: np.ndarray, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        x = np.hstack([INPUTS, np.ones((ROWS, 1))])
        weights = np.linalg.lstsq(x, (np.asarray(targets, np.float64) - mean) / std, rcond=None)[0]
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weights[:-1] + self.weights[-1]


def recipe(labels: Any = PRICES, *, teacher: Any = None, student: Any = None, **changes: Any) -> tt.Recipe:
    targets = PRICES if labels is None else labels
    outputs = 1 if np.ndim(targets) == 1 else np.shape(targets)[1]
    settings = {
        "name": "prices",
        "task": "regression",
        "data": tt.Data(source=tt.Arrays(INPUTS, labels, split=SPLIT)),
        "teacher": tt.ModuleTeacher(Known(targets)) if teacher is None else teacher,
        "student": tt.ModuleStudent(lambda: Net(outputs)) if student is None else student,
        "losses": [losses.LogitMSE()],
        "training": tt.Training(steps=150, batch_size=25, learning_rate=1e-2),
        "baseline": False,
        "measure": tt.Measure(rounds=1, seconds=0.1, batch_sizes=[1]),
    }
    return tt.Recipe(**(settings | changes))


def trained(made: tt.Recipe, folder: Path, *, baseline: bool = False) -> np.ndarray:
    """The outputs on the test rows of a student that is trained as the recipe says."""
    return trained_teacher(made, folder, baseline=baseline)[1]


def trained_teacher(made: tt.Recipe, folder: Path, *, baseline: bool = False) -> tuple[Teacher, np.ndarray]:
    """The teacher that the run asks, and the outputs on the test rows of its student."""
    torch.set_num_threads(1)
    plan = tt.make_plan(made)
    workspace = Workspace(folder)
    if made.teacher_training is not None:
        train_teacher(plan, workspace, progress=False)
    says: TeacherSays = teacher_answers(plan.recipe.teacher, plan.data, plan.data.rows("development"), CPU)
    train = train_baseline if baseline else train_student
    student = train(plan, workspace, 0, says, progress=False)
    return plan.recipe.teacher, answers(student, plan.data, plan.data.rows("test"), CPU)


def r2(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Of each column, from its definition."""
    outputs, targets = outputs.reshape(len(targets), -1).astype(np.float64), targets.reshape(len(targets), -1)
    return 1 - ((outputs - targets) ** 2).sum(0) / ((targets - targets.mean(0)) ** 2).sum(0)


def scale_of(targets: np.ndarray) -> tuple[float, float]:
    return float(f"{targets[TRAIN].mean():.7g}"), float(f"{targets[TRAIN].std():.7g}")


@pytest.mark.parametrize("labels", [True, False])
def test_training_on_prices_is_training_on_targets_that_were_standardised_by_hand(labels: bool, tmp_path: Path) -> None:
    found = trained(recipe(PRICES if labels else None), tmp_path / "a")
    said = Known(PRICES)(torch.from_numpy(INPUTS)).detach().numpy()
    mean, std = scale_of(PRICES if labels else said)
    by_hand = recipe(
        (PRICES - mean) / std if labels else None,
        teacher=tt.ModuleTeacher(Known(PRICES, mean, std)),
        student=tt.ModuleStudent(Net),
    )
    z = trained(by_hand, tmp_path / "b")
    np.testing.assert_allclose((found - mean) / std, z, atol=2e-3)
    assert r2(found, PRICES[TEST]) > 0.95


def test_the_baseline_learns_prices_from_labels(tmp_path: Path) -> None:
    assert r2(trained(recipe(), tmp_path, baseline=True), PRICES[TEST]) > 0.95


@pytest.mark.parametrize("loss", [losses.LogitMSE, losses.Regression])
def test_each_of_two_targets_in_units_far_apart_is_learnt(loss: Any, tmp_path: Path) -> None:
    found = trained(recipe(PAIR.astype(np.float32), losses=[loss()]), tmp_path)
    assert (r2(found, PAIR[TEST]) > 0.9).all()


def test_what_is_delivered_answers_in_the_unit_and_is_built_again_from_the_bundle(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    result = tt.distill(recipe(student=tt.ModuleStudent(Net)), tmp_path, progress=False)
    evidence = read_evidence(result.bundle / "evidence.parquet")
    inputs = torch.from_numpy(INPUTS[TEST])
    with torch.no_grad():
        rebuilt = load_student(result.bundle)(inputs).numpy()
    np.testing.assert_allclose(rebuilt, evidence.outputs["student"], rtol=1e-5)
    np.testing.assert_allclose(OnnxModel(result.bundle / "model.onnx")(inputs).numpy(), rebuilt, rtol=1e-5)
    assert r2(rebuilt, PRICES[TEST]) > 0.95
    start = PretrainedStudent(tt.ModuleStudent(Net), str(result.bundle), ["first"])
    inner = start.build(recipe().teacher)
    torch.testing.assert_close(inner.first.weight, load_student(result.bundle).module.first.weight)  # type: ignore[union-attr,operator]


def test_the_plan_says_what_is_standardised_and_leaves_targets_near_0_and_1_alone() -> None:
    plan = tt.make_plan(recipe())
    mean, std = scale_of(PRICES)
    (note,) = [note for note in plan.notes if "standardised" in note]
    assert f"mean {mean:,.6g}, deviation {std:,.6g}" in note
    assert "of 100 training labels" in note
    assert "class_path: tutelage.students.standardized.StandardizedStudent" in dump_recipe(plan.recipe)
    near = recipe(((PRICES - mean) / std + 0.5).astype(np.float32))
    plan = tt.make_plan(near)
    assert plan.recipe.student is near.student
    assert not any("standardised" in note for note in plan.notes)


def test_a_constant_target_is_no_division_by_zero(tmp_path: Path) -> None:
    labels = np.full(ROWS, 250_000.0, np.float32)
    teacher = tt.ModuleTeacher(Known(labels))
    found = trained(recipe(labels, teacher=teacher), tmp_path)
    np.testing.assert_allclose(found, 250_000, rtol=1e-4)


def test_a_teacher_that_is_trained_in_the_run_learns_prices_and_answers_in_their_unit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = tt.ModuleTeacher(Net(hidden=32))
    made = recipe(teacher=given, teacher_training=tt.Training(steps=200, batch_size=25, learning_rate=1e-2))
    teacher, found = trained_teacher(made, tmp_path)
    with torch.no_grad():
        said = teacher.ask(Batch(inputs=torch.from_numpy(INPUTS[TEST]), rows=torch.arange(40), views=torch.zeros(40)),
                           Request(output=True, features=frozenset({"first"})))  # fmt: skip
    assert r2(said.dense().numpy(), PRICES[TEST]) > 0.95
    assert said.features["first"].shape == (40, 32)
    assert r2(found, PRICES[TEST]) > 0.9


def test_a_teacher_in_standard_units_hands_them_on_with_its_classifier() -> None:
    torch.manual_seed(0)
    student = ReusedClassifier(lambda: nn.Linear(6, 5), 5, "last", features="vectors")
    pairs = {"projector": "first"}
    for training in (None, tt.Training(steps=1)):
        made = recipe(
            PAIR.astype(np.float32),
            teacher=tt.ModuleTeacher(Net(2, hidden=8)),
            teacher_training=training,
            student=student,
            losses=[losses.SimKD(pairs), losses.LogitMSE()],
        )
        plan = tt.make_plan(made)
        assert isinstance(plan.recipe.student, StandardizedStudent) is (training is not None)
        assert isinstance(plan.recipe.teacher.module, Standardized) is (training is not None)


def test_students_that_know_the_unit_and_losses_that_compare_it_are_left_alone() -> None:
    def kept(**changes: Any) -> str:
        made = recipe(**changes)
        plan = tt.make_plan(made)
        assert plan.recipe.student is made.student
        (note,) = [note for note in plan.notes if "not standardised" in note]
        return note

    assert "ModuleStudent gives their unit" in kept(student=tt.ModuleStudent(Known(PRICES + 9_000)))
    assert "losses[1] (MarginMSE)" in kept(
        labels=PAIR.astype(np.float32), losses=[losses.LogitMSE(), losses.MarginMSE()]
    )
    routed = losses.Routed(losses.LogitMSE(), teacher="weightless")
    assert not routed.compares_values
    own = StandardizedStudent(tt.ModuleStudent(Net), [1.0], [2.0])
    assert tt.make_plan(recipe(student=own)).recipe.student is own


def test_assistants_and_peers_are_standardised_and_teach_in_the_unit(tmp_path: Path) -> None:
    net = tt.ModuleStudent(Net)
    mutual = losses.Routed(losses.LogitMSE(), student="peers.1", teacher="peers.0", teacher_model="student")
    made = recipe(
        student=Peers(net),
        losses=[losses.LogitMSE(), mutual],
        assistants=[Assistant(student=net, losses=[losses.LogitMSE()])],
    )
    plan = tt.make_plan(made)
    assert isinstance(plan.recipe.assistants[0].student, StandardizedStudent)
    guide = plan.guide.ask(plan.data.example(2), Request(output=True)).dense()
    assert (guide - 250_000).abs().max() < 300_000  # untrained, but about the mean, where its raw outputs are near 0
    assert r2(trained(recipe(student=Peers(net), losses=made.losses), tmp_path), PRICES[TEST]) > 0.95


class _Steady(Teacher):
    """Only there to be handed to students that look at no teacher."""

    def load(self, device: torch.device) -> None: ...
    def check(self, request: Request) -> None: ...
    def fingerprint(self) -> str:
        return ""

    def ask(self, batch: Batch, request: Request) -> Signals:
        raise NotImplementedError


@pytest.mark.parametrize("scales", [None, [50_000.0, 0.01]])
def test_scales_of_a_regression_stay_in_the_unit_of_the_targets(scales: list[float] | None) -> None:
    """`φ((s - t) / c)` from the outputs in their unit, in float64, where the losses get standard units."""
    torch.manual_seed(0)
    std = [80_000.0, 0.02]
    module = StandardizedStudent(tt.ModuleStudent(lambda: Net(2)), [250_000.0, 0.01], std).build(_Steady())
    batch = Batch(inputs=torch.from_numpy(INPUTS[:8]), rows=torch.arange(8), views=torch.zeros(8))
    teacher = torch.from_numpy(PAIR[:8].astype(np.float32))
    loss = losses.Regression("mse", scales=scales)
    counted = [Counted.of(loss, batch)]
    total, _ = Learner(module, [loss])(batch, Signals(output=teacher), torch.tensor([1 / 8]), counted)
    with torch.no_grad():
        error = module(batch.inputs).double().numpy() - teacher.double().numpy()
    expected = ((error / np.array(scales or std)) ** 2).mean()
    assert float(total.detach()) == pytest.approx(expected, rel=1e-4)


def _bert(folder: Path, name: str = "bert-classifier") -> Path:
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    kind = {"bert-classifier": ("BertConfig", "BertForSequenceClassification"),
            "llama-classifier": ("LlamaConfig", "LlamaForSequenceClassification")}[name]  # fmt: skip
    config = getattr(transformers, kind[0])(**sizes, vocab_size=30, num_labels=2, pad_token_id=0)
    getattr(transformers, kind[1])(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("name", "folds"), [("bert-classifier", True), ("llama-classifier", False)])
def test_a_hugging_face_model_leaves_as_one_with_the_unit_in_its_head(name: str, folds: bool, tmp_path: Path) -> None:
    import transformers

    student = StandardizedStudent(HuggingFaceStudent(str(_bert(tmp_path, name))), [250_000.0, -3.0], [80_000.0, 0.5])
    module = student.build(_Steady()).eval()
    ids = torch.tensor([[3, 7, 11, 0], [5, 2, 9, 4]])
    delivered = student.deliver(module).eval()
    assert isinstance(delivered, transformers.PreTrainedModel) is folds
    with torch.no_grad():
        given, inner = output_of(delivered(input_ids=ids)).double(), output_of(module.module(input_ids=ids)).double()  # type: ignore[operator]
    expected = torch.tensor([250_000.0, -3.0]) + torch.tensor([80_000.0, 0.5]) * inner
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-4)
    assert module.module is not delivered  # the one that is trained stays as it is


def test_a_student_cut_from_a_teacher_keeps_its_teacher_s_units(tmp_path: Path) -> None:
    teacher = HuggingFaceTeacher(str(_bert(tmp_path)))
    teacher.load(CPU)
    cut: Student = CutStudent(layers=[0])
    assert cut.outputs_in_unit
    teacher.standardise([250_000.0, -3.0], [80_000.0, 0.5])
    assert build_student(recipe(teacher=teacher, student=cut), 0, CPU).config.num_labels == 2  # type: ignore[union-attr]
