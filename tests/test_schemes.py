"""The schemes beyond one teacher and one stage: each recipe runs as it is, and did what its scheme says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import tutelage as tt
from tutelage.cli import main
from tutelage.errors import ModelError, RecipeError, SignalError
from tutelage.parts import build_student

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `runs/` is made, as for someone who follows the recipes' comments."""
    path, before = tmp_path_factory.mktemp("schemes"), Path.cwd()
    torch.set_num_threads(1)
    os.chdir(path)
    yield path
    os.chdir(before)


def distil(name: str, *overrides: str) -> Path:
    path = Path("runs") / name / "bundle"
    if not (path / "verdict.json").exists() or overrides:
        arguments = ["distill", str(RECIPES / f"{name}.yaml"), "--out", f"runs/{name}", "--quiet"]
        quick = ["--measure.seconds", "0.2", "--export.onnx", str(name == "mutual").lower()]
        assert main([*arguments, *quick, *overrides]) == (3 if overrides else 0), "the recipe's own policy"
    return path


def history(bundle: Path) -> list[dict]:
    return [json.loads(line) for line in (bundle / "history.jsonl").read_text().splitlines()]


def metrics(bundle: Path) -> dict[str, dict]:
    return {metric["name"]: metric for metric in json.loads((bundle / "metrics.json").read_text())["metrics"]}


def gain(bundle: Path, metric: str = "accuracy") -> float:
    models = metrics(bundle)[metric]["models"]
    return models["student"]["value"] - models["baseline"]["value"]


def best(name: str, role: str) -> dict[str, torch.Tensor]:
    return load_file(Path("runs") / name / "work" / role / "best.safetensors")


def test_a_stage_trains_its_losses_alone_and_the_next_goes_on_from_there() -> None:
    bundle = distil("stages")
    lines = history(bundle)
    first = [line for line in lines if line["role"] == "student stage 1" and "terms" in line]
    assert {name for line in first for name in line["terms"]} == {"Hint"}
    assert first[-1]["step"] == 200
    second = [line for line in lines if line["role"] == "student" and "terms" in line]
    assert set(second[0]["terms"]) == {"KLDivergence", "CrossEntropy", "Hint"}
    baseline = [line for line in lines if line["role"] == "baseline" and "terms" in line]
    assert baseline[-1]["step"] == 800, "as many steps as both stages together"
    before = best("stages", "student-stage-1-0")
    fresh = build_student(tt.load_recipe(bundle / "recipe.yaml"), 0, torch.device("cpu")).state_dict()
    assert not torch.equal(before["hidden.1.weight"], fresh["hidden.1.weight"])
    assert torch.equal(before["output.weight"], fresh["output.weight"]), "the hint reaches the hidden layer alone"


def test_a_weight_on_a_schedule_is_in_the_total_as_it_is_at_that_step() -> None:
    lines = [line for line in history(distil("stages")) if line["role"] == "student" and "terms" in line]
    for line in lines:
        terms, middle = line["terms"], (line["step"] - 5.5) / line["steps"]  # the mean over ten steps
        weight = max(0.0, 0.01 * (1 - 2 * middle))
        expected = 0.9 * terms["KLDivergence"] + 0.1 * terms["CrossEntropy"] + weight * terms["Hint"]
        assert line["loss"] == pytest.approx(expected, rel=2e-3)


def test_several_teachers_are_trained_each_and_heard_each() -> None:
    bundle = distil("several_teachers")
    lines = history(bundle)
    assert {line["role"] for line in lines} == {"teacher wide", "teacher narrow", "student", "baseline"}
    terms = next(line["terms"] for line in lines if line["role"] == "student" and "terms" in line)
    assert set(terms) == {"KLDivergence", "Routed", "CrossEntropy"}
    assert gain(bundle) > 0.02


def test_an_assistant_learns_first_and_teaches_the_student() -> None:
    bundle = distil("assistant")
    lines = history(bundle)
    assert list(dict.fromkeys(line["role"] for line in lines)) == [
        "teacher",
        "assistant 1",
        "student",
        "baseline",
    ]
    assert best("assistant", "assistant-1-0")["hidden.1.weight"].shape == (48, 64)
    assert gain(bundle) > 0.02


def test_the_student_of_an_assistant_learns_from_the_trained_assistant() -> None:
    """The assistant's answers, not those of its random start: its divergence falls far below the teacher's entropy."""
    lines = history(distil("assistant"))
    last = [line for line in lines if line["role"] == "student" and "terms" in line][-1]
    assert last["terms"]["KLDivergence"] < 0.2


def test_generations_follow_each_other_and_the_last_is_delivered() -> None:
    bundle = distil("born_again")
    roles = list(dict.fromkeys(line["role"] for line in history(bundle)))
    assert roles == ["teacher", "assistant 1", "assistant 2", "student", "baseline"]
    first, second = (best("born_again", f"assistant-{n}-0")["output.weight"] for n in (1, 2))
    assert not torch.equal(first, second)


def test_of_two_peers_one_is_delivered_and_nothing_of_the_other() -> None:
    bundle = distil("mutual")
    delivered = load_file(bundle / "model.safetensors")
    assert set(delivered) == {"hidden.1.weight", "hidden.1.bias", "output.weight", "output.bias"}
    trained = best("mutual", "student-0")
    assert torch.equal(delivered["output.weight"], trained["peers.0.output.weight"])
    assert not torch.equal(trained["peers.1.output.weight"], trained["peers.0.output.weight"])
    assert json.loads((bundle / "export.json").read_text())["safetensors"]["loads"]


def test_the_classifiers_of_self_distillation_do_not_ship() -> None:
    bundle = distil("self_distillation")
    names = {"hidden.1.weight", "hidden.1.bias", "output.weight", "output.bias"}
    assert set(load_file(bundle / "model.safetensors")) == names
    terms = next(line["terms"] for line in history(bundle) if line["role"] == "student" and "terms" in line)
    assert set(terms) == {"CrossEntropy", "SelfDistillation"}


def test_each_head_has_a_teacher_and_is_judged_on_its_own_task() -> None:
    bundle = distil("multitask")
    found = metrics(bundle)
    table = pq.read_table(bundle / "evidence-odd.parquet")
    truth, student = table["label"].to_pylist(), torch.tensor(table["student"].to_pylist()).argmax(1).tolist()
    assert set(truth) == {0, 1}
    by_hand = sum(a == b for a, b in zip(truth, student, strict=True)) / len(truth)
    assert found["accuracy:odd"]["models"]["student"]["value"] == pytest.approx(by_hand)
    main_truth = pq.read_table(bundle / "evidence.parquet")["label"].to_pylist()
    assert [digit % 2 for digit in main_truth] == truth
    assert gain(bundle) > 0.02
    assert "accuracy:odd" in [gate["name"] for gate in json.loads((bundle / "verdict.json").read_text())["gates"]]


def test_what_was_distilled_before_is_where_the_student_starts_and_the_baseline_does_not() -> None:
    distil("representation")
    bundle = distil("transfer")
    before = load_file(Path("runs/representation/bundle/model.safetensors"))
    recipe = tt.load_recipe(bundle / "recipe.yaml")
    start = build_student(recipe, 0, torch.device("cpu")).state_dict()
    nothing = build_student(recipe, 0, torch.device("cpu"), from_nothing=True).state_dict()
    assert torch.equal(start["hidden.1.weight"], before["hidden.1.weight"])
    assert not torch.equal(nothing["hidden.1.weight"], before["hidden.1.weight"])
    assert start["output.weight"].shape == (2, 128)
    seeds = json.loads((bundle / "metrics.json").read_text())["seeds"]
    gains = [seed["metrics"]["accuracy"]["student"] - seed["metrics"]["accuracy"]["baseline"] for seed in seeds]
    assert sum(gains) / len(gains) > 0


def refused(name: str, *overrides: str) -> str:
    with pytest.raises((RecipeError, ModelError, SignalError)) as caught:
        tt.distill(tt.load_recipe(RECIPES / f"{name}.yaml", list(overrides)), "runs/refused", progress=False)
    assert not Path("runs/refused/work").exists(), "before any compute"
    return str(caught.value)


def test_a_member_that_does_not_exist_is_refused_with_the_nearest_name() -> None:
    message = refused("several_teachers", "--losses.1.init_args.member", "narow")
    assert "member `narow`" in message and "narrow" in message


def test_a_member_of_a_single_teacher_is_refused() -> None:
    loss = "{class_path: Routed, init_args: {loss: {class_path: KLDivergence}, member: deep}}"
    assert "SeveralTeachers" in refused("digits", "--losses", f"[{loss}]")


def test_a_layer_of_an_early_stage_is_refused_by_the_key_of_its_stage() -> None:
    stage = "{losses: [{class_path: Hint, init_args: {pairs: {hiden: hidden}}}], training: {steps: 5}}"
    message = refused("stages", "--earlier_stages", f"[{stage}]")
    assert "earlier_stages[0].losses[0] (Hint)" in message and "`hidden`" in message


def test_what_does_not_fit_an_assistant_is_refused_by_its_key() -> None:
    student = "{class_path: ModuleStudent, init_args: {module: {class_path: models.Perceptron, init_args: "
    student += "{inputs: 64, hidden: 8, classes: 7}}}}"
    assert "assistants[0]" in refused("assistant", "--assistants", f"[{{student: {student}}}]")


def test_a_head_on_a_layer_or_task_that_does_not_exist_is_refused() -> None:
    assert "further" in refused("multitask", "--heads.odd.student", "furhter")
    assert "`odd`" in refused("multitask", "--heads.odd.labels", "od")


def test_a_task_that_is_no_column_is_refused() -> None:
    assert "data.tasks" in refused("multitask", "--data.tasks", "[even]")


def test_weights_that_are_not_there_are_refused() -> None:
    assert "student.weights" in refused("transfer", "--student.init_args.weights", "runs/elsewhere")
    distil("representation")
    message = refused("transfer", "--student.init_args.layers", "[output]")
    assert "output.weight" in message and "random" in message


def test_a_checkpoint_of_the_teacher_may_teach_an_early_stage() -> None:
    """Route-constrained optimisation: the stage's teacher is asked, and the main one afterwards."""
    from safetensors.torch import save_file

    recipe = tt.load_recipe(RECIPES / "digits.yaml")
    recipe.teacher.load(torch.device("cpu"))
    module = recipe.teacher.module
    assert module is not None
    with torch.no_grad():
        early = {name: torch.zeros_like(tensor) for name, tensor in module.state_dict().items()}
    save_file(early, "early.safetensors")
    teacher = "{class_path: ModuleTeacher, init_args: {weights: early.safetensors, module: {class_path: "
    teacher += "models.Perceptron, init_args: {inputs: 64, hidden: 512, classes: 10}}}}"
    stage = f"{{losses: [{{class_path: KLDivergence}}], teacher: {teacher}, training: {{steps: 200}}}}"
    bundle = distil(
        "digits", "--earlier_stages", f"[{stage}]", "--training.steps", "20", "--policy", "[]", "--budget", "{}"
    )
    # An early teacher of zeros finds all classes alike: its divergence from the student vanishes.
    lines = [line for line in history(bundle) if line["role"] == "student stage 1" and "terms" in line]
    assert lines[-1]["terms"]["KLDivergence"] < 0.01


def test_a_head_that_is_called_like_the_test_set_is_refused() -> None:
    """Its evidence would take the place of the test set's."""
    heads = "{test: {student: further, task: classification, teacher: odd, labels: odd}}"
    assert "no evaluation set has" in refused("multitask", "--heads", heads)


def test_the_weights_of_a_stage_s_teacher_are_part_of_what_a_run_is() -> None:
    from safetensors.torch import save_file

    def distil_by(value: float) -> None:
        recipe = tt.load_recipe(RECIPES / "digits.yaml", overrides)
        module = recipe.earlier_stages[0].teacher
        assert isinstance(module, tt.ModuleTeacher)
        shapes = {
            "hidden.1.weight": (512, 64),
            "hidden.1.bias": (512,),
            "output.weight": (10, 512),
            "output.bias": (10,),
        }
        save_file({name: torch.full(shape, value) for name, shape in shapes.items()}, "stage.safetensors")
        tt.distill(recipe, "runs/stage-teacher", progress=False)

    teacher = "{class_path: ModuleTeacher, init_args: {weights: stage.safetensors, module: {class_path: "
    teacher += "models.Perceptron, init_args: {inputs: 64, hidden: 512, classes: 10}}}}"
    stage = f"{{losses: [{{class_path: KLDivergence}}], teacher: {teacher}, training: {{steps: 2}}}}"
    quick = ["--teacher_training", "{steps: 2}", "--training.steps", "2", "--export.onnx", "false", "--budget", "{}"]
    overrides = ["--earlier_stages", f"[{stage}]", "--measure.seconds", "0.1", *quick]
    distil_by(0.0)
    with pytest.raises(RecipeError, match=r"earlier_stages\[0\]\.teacher that this run began with"):
        distil_by(0.5)
