"""The methods beside each other: one teacher, one student, one recipe and budget for all, three seeds.

    python benchmarks/methods.py --write docs/methods.md

Fashion-MNIST, 5,000 labelled pictures for training, 10,000 held out. A residual network that was trained once on all
labels teaches a CNN of a tenth of its parameters. Each method adds its loss to the same cross-entropy. No weight is
tuned: each loss counts as much as makes its gradient at the start as long as cross-entropy's, so that no method is
helped by a search that another did not get. A method tuned for itself does better than here; what the table shows is
what one gets without. `FlowOfSolution` is not in it: it compares layers of equal width.

A run that is stopped goes on where it was: each method is a run of tutelage's own in `--out`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from intervals import interval

import tutelage as tt
from tutelage.losses.base import Loss
from tutelage.losses.counted import Counted
from tutelage.parts import build_student, introduce
from tutelage.plan import make_plan
from tutelage.recipe import Recipe
from tutelage.signals import Signals
from tutelage.training.step import Learner, global_scales, needs_of

BOTH = {"low": "low", "high": "high"}
LAST = {"high": "high"}


def loss(name: str, **arguments: Any) -> dict[str, Any]:
    """A loss as a recipe says it."""
    return {"class_path": name, "init_args": arguments}


KD = loss("KLDivergence", temperature=4.0)
CRD = loss("ContrastiveRepresentation", layer="output", teacher_layer="output", memory=4096)
METHODS: dict[str, list[dict[str, Any]]] = {
    "no distillation": [],
    "KLDivergence": [KD],
    "SoftCrossEntropy": [loss("SoftCrossEntropy", temperature=4.0)],
    "LogitMSE": [loss("LogitMSE")],
    "DecoupledKD": [loss("DecoupledKD")],
    "DIST": [loss("DIST")],
    "NormalizedKD": [loss("NormalizedKD")],
    "WeightedSoftLabels": [loss("WeightedSoftLabels")],
    "MultiLevelLogit": [loss("MultiLevelLogit")],
    "LogitStandardization": [loss("LogitStandardization", loss=loss("KLDivergence", temperature=2.0))],
    "CurriculumTemperature": [loss("CurriculumTemperature", loss=loss("KLDivergence", temperature=1.0))],
    "VirtualTeacher": [loss("VirtualTeacher")],
    "SelfDistillation": [loss("SelfDistillation", layers=["low", "high"])],
    "Hint": [loss("Hint", pairs=BOTH)],
    "AttentionTransfer": [loss("AttentionTransfer", pairs=BOTH)],
    "FactorTransfer": [loss("FactorTransfer", pairs=LAST)],
    "ActivationBoundary": [loss("ActivationBoundary", pairs={"high.1.1": "high.second.1"})],
    "NeuronSelectivity": [loss("NeuronSelectivity", pairs=BOTH)],
    "VariationalInformation": [loss("VariationalInformation", pairs=BOTH)],
    "MarginReLU": [loss("MarginReLU", pairs={"high.1.1": "high.second.1"})],
    "ChannelWise": [loss("ChannelWise", pairs=BOTH)],
    "PearsonFeature": [loss("PearsonFeature", pairs=BOTH)],
    "MaskedGenerative": [loss("MaskedGenerative", pairs=LAST)],
    "ReviewKD": [loss("ReviewKD", pairs=BOTH, width=64)],
    "SoftmaxRegression": [loss("SoftmaxRegression", pairs=LAST, classifier="output")],
    "SemanticCalibration": [
        loss("SemanticCalibration", layers=["low", "high"], teacher_layers=["low", "high"], samples=64)
    ],
    "ContrastiveRepresentation": [CRD],
    "RelationalDistance": [loss("RelationalDistance", pairs=LAST)],
    "RelationalAngle": [loss("RelationalAngle", pairs=LAST)],
    "SimilarityPreserving": [loss("SimilarityPreserving", pairs=LAST)],
    "CorrelationCongruence": [loss("CorrelationCongruence", pairs=LAST)],
    "ProbabilisticTransfer": [loss("ProbabilisticTransfer", pairs=LAST)],
    "InterChannelCorrelation": [loss("InterChannelCorrelation", pairs=LAST)],
    "KLDivergence + AttentionTransfer": [KD, loss("AttentionTransfer", pairs=BOTH)],
    "KLDivergence + SimilarityPreserving": [KD, loss("SimilarityPreserving", pairs=LAST)],
    "KLDivergence + ContrastiveRepresentation": [KD, CRD],
}


def written(terms: list[dict[str, Any]], options: argparse.Namespace, weights: str | None) -> Recipe:
    """The recipe of a method: what all have in common, and its losses."""
    teacher: dict[str, Any] = {"module": {"class_path": "models.ResNet", "init_args": {"width": 24}}}
    if weights is not None:
        teacher["weights"] = weights
    about = {
        "name": "methods",
        "task": "classification",
        "data": {
            "source": {"class_path": "FashionMNIST"},
            "splits": {"development": 0.02},
            "images": {"mean": [0.286], "std": [0.353]},
            "limit": options.rows,
            "views": {"class_path": "ShiftFlip", "init_args": {"shift": 2, "flip": True}},
        },
        "teacher": {"class_path": "ModuleTeacher", "init_args": teacher},
        "student": {
            "class_path": "ModuleStudent",
            "init_args": {"module": {"class_path": "models.SmallCNN", "init_args": {"width": 8}}},
        },
        "losses": [loss("CrossEntropy"), *terms],
        "training": {
            "steps": options.steps,
            "batch_size": 64,
            "learning_rate": 2e-2,
            "weight_decay": 0.01,
            "warmup": 0.1,
            "evaluate_every": options.steps,
        },
        "baseline": False,
        "seeds": options.seeds,
        "export": {"onnx": False},
        "measure": {"batch_sizes": [1], "rounds": 1, "seconds": 0.05},
    }
    if weights is None:
        about["teacher_training"] = {
            "epochs": options.teacher_epochs,
            "batch_size": 128,
            "learning_rate": 1e-2,
            "weight_decay": 0.05,
            "warmup": 0.2,
        }
    path = Path(options.out) / "recipe.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about), encoding="utf-8")  # JSON is YAML
    return tt.load_recipe(path)


def balanced(terms: list[dict[str, Any]], options: argparse.Namespace, weights: str) -> list[dict[str, Any]]:
    """The terms, each with the weight that makes its gradient at the start as long as cross-entropy's."""
    result = []
    for term in terms:
        plan = make_plan(written([term], options, weights))
        lengths = [gradient_length(plan, one) for one in plan.losses]
        weight = float(f"{lengths[0] / lengths[1]:.3g}")  # three digits, so that a rerun finds its own work
        result.append({**term, "init_args": {**term["init_args"], "weight": weight}})
    return result


def gradient_length(plan: Any, term: Loss) -> float:
    """Length of the gradient of one loss by the student's weights, at the start, over 64 pictures."""
    student = build_student(plan.recipe, 0, plan.device).train()
    introduce([term], plan.recipe.teacher, plan.data)
    batch = plan.data.batch(plan.data.rows("train")[:64])
    request = needs_of([term])[1]
    said = plan.recipe.teacher.ask(batch, request) if request else Signals()
    learner = Learner(student, [term])
    learner.at(0.5)  # a loss that first trains parts of its own has begun to teach by then
    counted = Counted.of(term, batch, said)
    total, _ = learner(batch, said, global_scales([[counted]]), [counted])
    gradients = torch.autograd.grad(total, list(student.parameters()), allow_unused=True)
    learner.close()
    return math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))


def trained_teacher(options: argparse.Namespace) -> str:
    """The file of the teacher's weights, trained once on all labels."""
    short = argparse.Namespace(**{**vars(options), "seeds": [0], "steps": 1})
    tt.distill(written([KD], short, None), Path(options.out) / "teacher", progress=options.progress)
    return str(Path(options.out) / "teacher" / "work" / "teacher" / "best.safetensors")


def run(name: str, options: argparse.Namespace, weights: str) -> dict[str, Any]:
    """The accuracy and the agreement of each seed's student."""
    begin = time.perf_counter()
    terms = balanced(METHODS[name], options, weights)
    folder = Path(options.out) / name.replace(" ", "_")
    bundle = tt.distill(written(terms, options, weights), folder, progress=options.progress).bundle
    stored = json.loads((bundle / "metrics.json").read_text())
    found = {key: [seed["metrics"][key]["student"] for seed in stored["seeds"]] for key in ("accuracy", "agreement")}
    teacher = next(m for m in stored["metrics"] if m["name"] == "accuracy")["models"]["teacher"]["value"]
    factors = [term["init_args"]["weight"] for term in terms]
    return {**found, "teacher": teacher, "weights": factors, "seconds": time.perf_counter() - begin}


def page(results: dict[str, dict[str, Any]], options: argparse.Namespace) -> str:
    """The table in Markdown, the best first."""
    teacher = next(iter(results.values()))["teacher"]
    nothing = results.get("no distillation")
    about = " ".join((__doc__ or "").split("\n\n")[2].split())
    seeds = ", ".join(map(str, options.seeds))
    lines = [
        "# The methods beside each other",
        "",
        f"Written by `python benchmarks/methods.py --write docs/methods.md`. {about}",
        "",
        f"{options.steps:,} steps of 64 of {options.rows:,} pictures, seeds {seeds}. The teacher's accuracy is "
        f"{100 * teacher:.2f}%. Accuracy and agreement (the same class as the teacher's) are in percent, on 10,000 "
        "pictures that none of them saw; ± is a 95% interval over seeds (Student's t), and where there are few of them "
        "it is wide. `gain` is the mean over seeds of the difference to no distillation at the same seed.",
        "",
        "| method | accuracy | gain | agreement | weight |",
        "|---|---|---|---|---|",
    ]
    for name, found in sorted(results.items(), key=lambda item: -statistics.fmean(item[1]["accuracy"])):
        gain = ""
        if nothing is not None and name != "no distillation":
            gain = interval([a - b for a, b in zip(found["accuracy"], nothing["accuracy"], strict=True)])
        weights = ", ".join(f"{weight:g}" for weight in found["weights"])
        lines.append(
            f"| {name} | {interval(found['accuracy'])} | {gain} | {interval(found['agreement'])} | {weights} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="runs/methods", help="where the runs are kept")
    parser.add_argument("--write", metavar="FILE", help="write the table there")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--teacher-epochs", type=int, default=3)
    parser.add_argument("--progress", action="store_true")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))  # where the networks are
    weights = trained_teacher(options)
    results = {}
    for name in options.only:
        results[name] = run(name, options, weights)
        found = results[name]
        print(f"{name}: {interval(found['accuracy'])} ({found['seconds']:.0f} s)", flush=True)
    text = page(results, options)
    print(text)
    if options.write:
        Path(options.write).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
