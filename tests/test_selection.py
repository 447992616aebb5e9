"""The weights that a run keeps: by a metric that its losses lower, and that a constant student fails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tutelage as tt
from tutelage.answers import TeacherSays, select_anew
from tutelage.evaluation.metrics import available_metrics, describe
from tutelage.losses import Loss
from tutelage.pipeline import _best_seed
from tutelage.recipe import Task
from tutelage.selection import BY_TASK, TIES, choose, selection_of
from tutelage.workspace import Workspace

ROWS = 900
SPLIT = np.array(["train"] * 500 + ["development"] * 200 + ["test"] * 200)
X = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
LOSSES = tt.losses


def layers(hidden: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, out))


def recipe(
    task: Task, labels: np.ndarray | None, teacher: nn.Module, width: int, losses: list[Loss], **changes: object
) -> tt.Recipe:
    settings = {
        "name": "kept",
        "task": task,
        "data": tt.Data(source=tt.Arrays(X, labels, split=SPLIT)),
        "teacher": tt.ModuleTeacher(teacher),
        "student": tt.ModuleStudent(lambda: layers(4, width)),
        "losses": losses,
        "training": tt.Training(steps=100, batch_size=64, learning_rate=0.01, evaluate_every=10),
        "export": tt.Export(onnx=False),
        "measure": tt.Measure(rounds=1, seconds=0.05),
        "policy": [tt.Gate("agreement", at_least=0.5)] if task != "regression" else [],
    }
    return tt.Recipe(**(settings | changes))  # type: ignore[arg-type]


def development(folder: Path) -> tuple[int, dict[str, float], list[dict[str, float]]]:
    """The step that is kept, what it has on the development split, and what each evaluation has."""
    done = json.loads((folder / "work" / "student-0" / "done.json").read_text())
    lines = (folder / "work" / "student-0" / "history.jsonl").read_text().splitlines()
    return (
        done["best_step"],
        done["development"],
        [r["development"] for r in map(json.loads, lines) if "development" in r],
    )


def few_positives() -> tuple[np.ndarray, nn.Module]:
    """Labels of which some 4% are 1, and a teacher whose logits they are drawn from."""
    torch.manual_seed(0)
    teacher = nn.Linear(6, 2)
    with torch.no_grad():
        teacher.weight[:] = torch.stack([torch.zeros(6), 1.2 * torch.ones(6)])
        teacher.bias[:] = torch.tensor([0.0, -5.7])
        logits = teacher(torch.from_numpy(X))
    labels = (torch.rand(ROWS) < logits.softmax(1)[:, 1]).long().numpy()
    assert 0.02 < labels.mean() < 0.09
    return labels, teacher


def test_a_classifier_of_few_positives_is_not_kept_at_the_first_evaluation(tmp_path: Path) -> None:
    labels, teacher = few_positives()
    made = recipe("classification", labels, teacher, 2, [LOSSES.KLDivergence(2.0)])
    result = tt.distill(made, tmp_path, progress=False)
    step, kept, every = development(tmp_path)
    assert len({values["accuracy"] for values in every[:3]}) == 1  # what used to select does not move
    assert kept["nll"] == min(values["nll"] for values in every) and step > 50
    assert kept["auc"] > every[0]["auc"] + 0.1 and kept["auc"] > 0.85
    # Its accuracy is that of a constant, so nothing has been shown.
    made.policy = [tt.Gate("accuracy", margin=0.2)]
    assert result.verdict.warnings or result.verdict.verdict == "INCONCLUSIVE"
    page = (tmp_path / "bundle" / "report.html").read_text()
    assert "the best answer that is the same for every row" in page
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "| metric | teacher | student | baseline | constant | n |" in card
    assert any("gate on balanced_accuracy or auc" in line for line in card.splitlines() if line.startswith("* Note"))


def test_without_labels_the_teachers_answers_say_that_one_class_has_nearly_all(tmp_path: Path) -> None:
    _, teacher = few_positives()
    made = recipe("classification", None, teacher, 2, [LOSSES.KLDivergence(2.0)])
    plan = tt.make_plan(made)
    assert plan.select == "agreement"
    result = tt.distill(made, tmp_path, progress=False)
    step, kept, every = development(tmp_path)
    assert kept["kl"] == min(values["kl"] for values in every) and step > 50
    notes = json.loads((result.bundle / "metrics.json").read_text())["notes"]
    assert any("gate on balanced_agreement or kl" in note for note in notes)
    stated = tt.make_plan(recipe("classification", None, teacher, 2, [LOSSES.KLDivergence()], select="agreement"))
    says = TeacherSays(np.tile(np.float32([1, 0]), (200, 1)), np.ones(200, bool))
    assert len(select_anew(stated, says)) == 1 and stated.select == "agreement"


def rare_labels() -> tuple[np.ndarray, nn.Module]:
    """Five labels that are on in 1% to 10% of rows, and a teacher whose logits they are drawn from."""
    torch.manual_seed(1)
    teacher = nn.Linear(6, 5)
    with torch.no_grad():
        teacher.bias[:] = -6.0
        teacher.weight *= 5
        logits = teacher(torch.from_numpy(X))
    labels = (torch.rand(logits.shape) < logits.sigmoid()).float().numpy()
    assert 0.02 < labels.mean() < 0.1
    return labels, teacher


def test_a_student_of_rare_labels_is_kept_neither_for_saying_no_nor_for_saying_yes_at_random(tmp_path: Path) -> None:
    labels, teacher = rare_labels()
    made = recipe("multilabel", labels, teacher, 5, [LOSSES.KLDivergence(2.0, outputs="sigmoid")])
    made.training.learning_rate = 0.03
    result = tt.distill(made, tmp_path, progress=False)
    step, kept, every = development(tmp_path)
    assert kept["nll"] == min(values["nll"] for values in every) and step > 50
    assert every[0]["micro_f1"] > min(values["micro_f1"] for values in every)  # an untrained student says yes at random
    assert max(every, key=lambda values: values["agreement"])["nll"] > kept["nll"]  # saying no agrees best
    found = {metric.name: metric.models for metric in result.metrics()}
    assert all(found[name]["student"].value > found[name]["constant"].value for name in ("map", "map_to_teacher"))
    assert found["nll"]["student"].value < found["nll"]["constant"].value


def test_without_labels_rare_decisions_of_the_teacher_take_f1_its_vote() -> None:
    _, teacher = rare_labels()
    plan = tt.make_plan(recipe("multilabel", None, teacher, 5, [LOSSES.KLDivergence(2.0, outputs="sigmoid")]))
    assert plan.select == "f1_to_teacher"
    outputs = np.full((200, 5), -2, np.float32)
    outputs[:5] = 2
    (note,) = select_anew(plan, TeacherSays(outputs, np.ones(200, bool)))
    assert plan.select == "kl" and "gate on f1_to_teacher or map_to_teacher" in note


def test_margins_are_kept_by_their_own_error(tmp_path: Path) -> None:
    torch.manual_seed(2)
    made = recipe("regression", None, layers(8, 3), 3, [LOSSES.MarginMSE()])
    made.student = tt.ModuleStudent(Shifted)
    tt.distill(made, tmp_path, progress=False)
    step, kept, every = development(tmp_path)
    assert kept["margin_rmse_to_teacher"] == min(values["margin_rmse_to_teacher"] for values in every)
    first = min(every, key=lambda values: values["rmse_to_teacher"])  # what used to select
    assert kept["margin_rmse_to_teacher"] < 0.5 * first["margin_rmse_to_teacher"] and step > 50


class Shifted(nn.Module):
    """Scores whose common part drifts away as the student learns: margins do not look at it."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = layers(8, 3)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.steps += 1
        return self.scores(x) + 0.1 * self.steps


FREE: list[tuple[Task, list[Loss], str, str | None]] = [
    ("regression", [LOSSES.Regression()], "rmse", "rmse_to_teacher"),
    ("regression", [LOSSES.MarginMSE()], "margin_rmse_to_teacher", None),
    ("regression", [LOSSES.KLDivergence()], "margin_rmse_to_teacher", None),
    ("regression", [LOSSES.MarginMSE(), LOSSES.Regression(weight=0.1)], "rmse", "rmse_to_teacher"),
    ("regression", [LOSSES.MarginMSE(), LOSSES.Regression(weight=0.0)], "margin_rmse_to_teacher", None),
    ("embedding", [LOSSES.EmbeddingMSE()], "cosine", "pair_spearman"),
    ("embedding", [LOSSES.EmbeddingCosine()], "cosine", "pair_spearman"),
    ("embedding", [LOSSES.PairwiseSimilarity()], "pair_spearman", None),
    ("embedding", [LOSSES.SimilarityDistribution()], "pair_spearman", None),
    ("embedding", [LOSSES.SimilarityDistribution(), LOSSES.EmbeddingMSE()], "cosine", "pair_spearman"),
    ("classification", [LOSSES.KLDivergence()], "accuracy", "nll"),
    ("classification", [LOSSES.LogitStandardization(LOSSES.KLDivergence())], "accuracy", None),
    ("classification", [LOSSES.MarginMSE()], "accuracy", "nll"),
    ("classification", [LOSSES.Hint({"a": "b"})], "accuracy", "nll"),
    ("multilabel", [LOSSES.KLDivergence(outputs="sigmoid")], "micro_f1", "nll"),
    ("multilabel", [LOSSES.MarginMSE()], "top1", None),
]  # fmt: skip


@pytest.mark.parametrize(("task", "losses", "metric", "tie"), FREE)
def test_the_metric_is_one_that_what_the_losses_leave_free_does_not_change(
    task: Task, losses: Sequence[Loss], metric: str, tie: str | None
) -> None:
    found = choose(task, losses, list(available_metrics(task, labels=True)))
    assert (found.metric, found.tie) == (metric, tie)
    assert bool(found.why) == (metric != BY_TASK[task][0])


def test_no_fitting_metric_is_said_and_not_hidden() -> None:
    found = choose("classification", [LOSSES.PairwiseSimilarity()], ["accuracy", "agreement", "kl"])
    assert found.metric == "accuracy" and "no metric of task classification" in found.why


def test_a_constant_that_is_nearly_always_right_takes_accuracy_its_vote() -> None:
    known = list(available_metrics("classification", labels=True))
    assert choose("classification", [LOSSES.KLDivergence()], known, share=0.96).metric == "nll"
    assert choose("classification", [LOSSES.KLDivergence()], known, share=0.89).metric == "accuracy"
    bare = list(available_metrics("classification", labels=False))
    assert choose("classification", [LOSSES.KLDivergence()], bare, share=0.96).metric == "kl"
    # Of standardised logits a likelihood says nothing: the later step decides.
    found = choose("classification", [LOSSES.LogitStandardization(LOSSES.KLDivergence())], known, share=0.96)
    assert (found.metric, found.tie) == ("accuracy", None)


def test_every_metric_that_selects_is_one_of_its_task() -> None:
    for names in (BY_TASK, TIES):
        for task, metrics in names.items():
            assert all(describe(metric, task) is not None for metric in metrics)


def test_what_the_recipe_names_stays_and_what_the_losses_leave_free_is_said() -> None:
    torch.manual_seed(0)
    made = recipe("regression", None, layers(8, 3), 3, [LOSSES.MarginMSE()], select="rmse_to_teacher")
    plan = tt.make_plan(made)
    assert plan.select == "rmse_to_teacher" and "a number added to all values of a row" in plan.selection.why


def test_the_baseline_is_kept_by_what_its_own_losses_lower() -> None:
    torch.manual_seed(0)
    teacher = layers(8, 3)
    labels = teacher(torch.from_numpy(X)).detach().numpy()
    plan = tt.make_plan(recipe("regression", labels, teacher, 3, [LOSSES.MarginMSE()]))
    assert (plan.select, plan.baseline_selection.metric) == ("margin_rmse_to_teacher", "rmse")


def test_f1_does_not_select_where_no_development_label_is_on() -> None:
    torch.manual_seed(0)
    teacher = layers(8, 3)
    logits = teacher(torch.from_numpy(X)).detach().numpy()
    labels = ((logits > np.quantile(logits, 0.8, axis=0)) & (np.array(SPLIT) == "train")[:, None]).astype(np.float32)
    made = recipe("multilabel", labels, teacher, 3, [LOSSES.KLDivergence(outputs="sigmoid")])
    plan = tt.make_plan(made)
    assert plan.select == "nll"
    known = list(available_metrics("multilabel", labels=True))
    assert choose("multilabel", made.losses, [name for name in known if name not in ("micro_f1", "top1")]).metric == (
        "f1_to_teacher"
    )


def test_of_several_seeds_ties_go_to_the_likelier_student(tmp_path: Path) -> None:
    labels, teacher = few_positives()
    made = recipe("classification", labels, teacher, 2, [LOSSES.KLDivergence()], seeds=[0, 1, 2], select="accuracy")
    plan = tt.make_plan(made)
    workspace = Workspace(tmp_path)
    for seed, nll in ((0, 0.3), (1, 0.1), (2, 0.2)):
        folder = workspace.stage("student", seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "done.json").write_text(json.dumps({"development": {"accuracy": 0.96, "nll": nll}}))
    assert _best_seed(plan, workspace) == 1


def test_of_values_in_unlike_units_none_decides_alone_which_weights_are_kept() -> None:
    # A price and a share: in an error pooled over them only the price counts.
    share = 0.01 * np.sin(3 * X[:, 0]) + 0.02 * X[:, 1]
    targets = np.stack([60_000.0 * X[:, 2] + 250_000.0, share], axis=1)
    made = recipe("regression", targets, layers(32, 2), 2, [LOSSES.MeanSquaredError()])
    data = made.data.load()
    chosen = selection_of(made, made.losses, data)
    assert (chosen.metric, chosen.tie) == ("r2", "rmse") and "differ" in chosen.why
    alike = tt.Data(source=tt.Arrays(X, targets / targets.std(axis=0), split=SPLIT)).load()
    assert selection_of(made, made.losses, alike).metric == "rmse"
    one = tt.Data(source=tt.Arrays(X, targets[:, 0], split=SPLIT)).load()
    assert selection_of(made, made.losses, one).metric == "rmse"
