"""Whether inputs that are made of few teach: made rows beside none, and beside as many real ones.

    python benchmarks/made.py

scikit-learn's digits as 64 numbers. A perceptron of 512 hidden units that was trained on all labels teaches one of 32
on 100 of the training rows without any label; then on these and 2,000 rows that are made of them; then on all training
rows. The steps are the same for all. Agreement (the same class as the teacher's) and accuracy are on the held-out rows,
with 95% intervals over seeds (Student's t); each seed also draws another 100 rows.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from intervals import interval
from torch import nn

import tutelage as tt
from tutelage.answers import answers, teacher_answers
from tutelage.plan import make_plan
from tutelage.stages import train_student, train_teacher
from tutelage.transfer import Digits, Maker, Mixup, Munge, Noise
from tutelage.workspace import Workspace

MADE: dict[str, list[Maker]] = {
    "100 rows": [],
    "and 2,000 by Mixup": [Mixup(2000)],
    "and 2,000 by Munge (p 0.2, s 5)": [Munge(2000, 0.2, 5.0)],
    "and 2,000 by Munge (p 0.5, s 5)": [Munge(2000, 0.5, 5.0)],
    "and 2,000 by Noise (0.3)": [Noise(2000, 0.3)],
    "all 985 rows": [],
}


def perceptron(hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def recipe(
    source: tt.Arrays, *, limit: int | None, made: list[Maker], seed: int, teacher: tt.ModuleTeacher
) -> tt.Recipe:
    return tt.Recipe(
        name="made",
        task="classification",
        data=tt.Data(
            source=source,
            splits=tt.Splits(development=0.15, test=0.3, seed=seed),
            labelled=None if limit is None and not made else 0,
            limit=limit,
            made=made,
        ),
        teacher=teacher,
        student=tt.ModuleStudent(lambda: perceptron(32)),
        losses=[tt.losses.KLDivergence(4.0)],
        training=tt.Training(steps=800, batch_size=64, learning_rate=5e-3, evaluate_every=800),
        teacher_training=tt.Training(epochs=25, batch_size=64, learning_rate=2e-3, evaluate_every=10_000),
        baseline=False,
        seeds=[seed],
        export=tt.Export(onnx=False),
    )


def of_seed(seed: int) -> dict[str, tuple[float, float]]:
    """Agreement and accuracy of each student on the held-out rows."""
    rows = Digits().load()
    pixels = np.asarray(rows.columns["image"]).reshape(-1, 64).astype(np.float32) / 255
    source = tt.Arrays(pixels, rows.labels)
    teacher = tt.ModuleTeacher(lambda: perceptron(512))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, made) in enumerate(MADE.items()):
            whole = name.startswith("all")
            plan = make_plan(recipe(source, limit=None if whole else 100, made=made, seed=seed, teacher=teacher))
            workspace = Workspace(Path(folder) / str(number))
            workspace.work.mkdir(parents=True)
            if number == 0:
                train_teacher(plan, workspace, progress=False)
            held, data = plan.data.rows("test"), plan.data
            says = teacher_answers(teacher, data, data.rows("development"), plan.device)
            student = train_student(plan, workspace, seed, says, progress=False)
            ours = answers(student, data, held, plan.device).argmax(1)
            theirs = teacher_answers(teacher, data, held, plan.device).argmax(1)
            assert rows.labels is not None
            found[name] = (float((ours == theirs).mean()), float((ours == rows.labels[held]).mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    results = [of_seed(seed) for seed in options.seeds]
    print("| the student learns from | agreement | gain over 100 rows | accuracy |\n|---|---|---|---|")
    for name in MADE:
        agreement, accuracy = ([found[name][at] for found in results] for at in (0, 1))
        base = [found["100 rows"][0] for found in results]
        gain = (
            interval([a - b for a, b in zip(agreement, base, strict=True)], signed=True, digits=1)
            if name != "100 rows"
            else ""
        )
        print(f"| {name} | {interval(agreement, digits=1)} | {gain} | {interval(accuracy, digits=1)} |")


if __name__ == "__main__":
    main()
