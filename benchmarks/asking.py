"""Which inputs to ask about: strategies beside random choice, at an equal budget of questions.

    python benchmarks/asking.py --write docs/asking.md

Fashion-MNIST without labels: a perceptron of 512 hidden units that was trained once on all labels answers a number of
5,000 training pictures, chosen in four rounds; one of 32 hidden units learns from its answers alone. All strategies
share the first round, the audit of a tenth of each further round, the students' starts and the steps. Of the same
budget and seed the difference to random choice is paired.

A benchmark that is stopped goes on where it was: rounds, checkpoints and results are kept in `--out`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from intervals import half_width, interval

import tutelage as tt
from tutelage.answers import answers, teacher_answers
from tutelage.asking import Asking
from tutelage.plan import Plan, make_plan
from tutelage.recipe import Recipe
from tutelage.rounds import run_rounds
from tutelage.stages import train_student
from tutelage.transfer import FashionMNIST
from tutelage.workspace import Workspace, write_json

STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"strategy": "random"},
    "entropy": {"strategy": "entropy"},
    "margin": {"strategy": "margin"},
    "k_centre on the output": {"strategy": "k_centre"},
    "k_centre on the hidden layer": {"strategy": "k_centre", "features": "hidden"},
    "k_centre on the pixels": {"strategy": "k_centre", "features": "inputs"},
}
ROUNDS = 4


def perceptron(hidden: int) -> dict[str, Any]:
    """A network with one hidden layer, as a recipe says it."""
    return {"class_path": "models.Perceptron", "init_args": {"inputs": 784, "hidden": hidden, "classes": 10}}


def written(options: argparse.Namespace, weights: str | None) -> Recipe:
    """The recipe that all runs share."""
    teacher: dict[str, Any] = {"module": perceptron(512)}
    about: dict[str, Any] = {
        "name": "asking",
        "task": "classification",
        "data": {
            "source": {"class_path": "FashionMNIST"},
            "splits": {"development": 0.02},
            "images": {"mean": [0.286], "std": [0.353]},
        },
        "teacher": {"class_path": "ModuleTeacher", "init_args": teacher},
        "student": {"class_path": "ModuleStudent", "init_args": {"module": perceptron(32)}},
        "losses": [{"class_path": "KLDivergence", "init_args": {"temperature": 4.0}}],
        "training": {
            "steps": options.steps,
            "batch_size": 64,
            "learning_rate": 3e-3,
            "evaluate_every": options.steps,
        },
        "baseline": False,
        "export": {"onnx": False},
        "measure": {"batch_sizes": [1], "rounds": 1, "seconds": 0.05},
    }
    if weights is None:
        about["teacher_training"] = {"epochs": options.teacher_epochs, "batch_size": 128, "learning_rate": 1e-3}
        about["training"]["steps"] = 1
    else:
        teacher["weights"] = weights
        about["data"] |= {"labelled": 0, "limit": options.pool}
        budget = min(options.budgets)
        about["asking"] = {"rounds": ROUNDS, "per_round": budget // ROUNDS}
    path = Path(options.out) / "recipe.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about), encoding="utf-8")  # JSON is YAML
    return tt.load_recipe(path)


def trained_teacher(options: argparse.Namespace) -> str:
    """The file of the teacher's weights, trained once on all labels."""
    tt.distill(written(options, None), Path(options.out) / "teacher", progress=options.progress)
    return str(Path(options.out) / "teacher" / "work" / "teacher" / "best.safetensors")


def run(plan: Plan, name: str, budget: int, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Agreement and accuracy on the test split of the student that learnt from all rows asked about."""
    folder = Path(options.out) / f"{name}-{budget}-{seed}".replace(" ", "_")
    if (folder / "found.json").exists():
        return dict(json.loads((folder / "found.json").read_text()))
    asking = Asking(rounds=ROUNDS, per_round=budget // ROUNDS, audit=0.1, **STRATEGIES[name])
    plan = replace(plan, recipe=replace(plan.recipe, asking=asking, seeds=[seed]))
    data, teacher = plan.data, plan.recipe.teacher
    says = teacher_answers(teacher, data, data.rows("development"), plan.device)
    workspace = Workspace(folder)
    workspace.work.mkdir(parents=True, exist_ok=True)
    taught, _ = run_rounds(plan, workspace, says, progress=options.progress)
    student = train_student(taught, workspace, seed, says, progress=options.progress)
    rows = data.rows("test")
    ours = answers(student, data, rows, plan.device).argmax(1)
    theirs = teacher_answers(teacher, data, rows, plan.device).argmax(1)
    labels = FashionMNIST().load().labels
    assert labels is not None
    found = {"agreement": float((ours == theirs).mean()), "accuracy": float((ours == labels[rows]).mean())}
    write_json(folder / "found.json", found)
    return found


def judged(gains: list[float]) -> str:
    """What a paired difference to random choice says."""
    if len(gains) < 2:
        return ""
    half = half_width(gains)
    mean = statistics.fmean(gains)
    return "helps" if mean - half > 0 else "does harm" if mean + half < 0 else "not shown to help"


def page(results: dict[int, dict[str, list[dict[str, float]]]], options: argparse.Namespace) -> str:
    """The tables in Markdown."""
    about = " ".join((__doc__ or "").split("\n\n")[2].split())
    seeds = ", ".join(map(str, options.seeds))
    lines = [
        "# Which inputs to ask about",
        "",
        f"Written by `python benchmarks/asking.py --write docs/asking.md`. {about}",
        "",
        f"Each student makes {options.steps:,} steps of 64 pictures; seeds {seeds}. Agreement (the same class as the "
        "teacher's) and accuracy are in percent, on 10,000 held-out pictures; ± is a 95% interval over seeds "
        "(Student's t). `gain` is the mean over seeds of the difference in agreement to random choice at the same "
        "seed: it helps, or does harm, where the interval leaves out 0.",
    ]
    for budget, found in results.items():
        lines += [
            "",
            f"## {budget:,} questions",
            "",
            "| strategy | agreement | gain | | accuracy |",
            "|---|---|---|---|---|",
        ]
        for name, runs in found.items():
            gain, says = "", ""
            if name != "random" and "random" in found:
                pairs = zip(runs, found["random"], strict=True)
                gains = [a["agreement"] - b["agreement"] for a, b in pairs]
                gain, says = interval(gains, signed=True), judged(gains)
            agreement, accuracy = (interval([one[key] for one in runs]) for key in ("agreement", "accuracy"))
            lines.append(f"| {name} | {agreement} | {gain} | {says} | {accuracy} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="runs/asking", help="where the runs are kept")
    parser.add_argument("--write", metavar="FILE", help="write the tables there")
    parser.add_argument("--only", nargs="+", choices=STRATEGIES, default=list(STRATEGIES), metavar="STRATEGY")
    parser.add_argument("--budgets", type=int, nargs="+", default=[400, 1600])
    parser.add_argument("--pool", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--teacher-epochs", type=int, default=4)
    parser.add_argument("--progress", action="store_true")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))  # where the networks are
    plan = make_plan(written(options, trained_teacher(options)))
    results: dict[int, dict[str, list[dict[str, float]]]] = {}
    for budget in options.budgets:
        results[budget] = {name: [] for name in options.only}
        for seed in options.seeds:
            for name in options.only:
                begin = time.perf_counter()
                found = run(plan, name, budget, seed, options)
                results[budget][name].append(found)
                seconds = time.perf_counter() - begin
                print(f"{budget} {seed} {name}: {100 * found['agreement']:.2f} ({seconds:.0f} s)", flush=True)
    text = page(results, options)
    print(text)
    if options.write:
        Path(options.write).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
