"""What it costs a student when its teacher's stored answers are about another view than the one it sees.

    python benchmarks/views.py                        # prints
    python benchmarks/views.py --write docs/cache.md  # puts the table there

Fashion-MNIST, 6,000 training pictures, moved by up to 2 pixels and mirrored, a new view each epoch. A residual network
that was trained on the same rows teaches the CNN of `recipes/fashion.yaml` by its outputs alone, for three seeds:

* live: the teacher is asked about what the student sees, at each step;
* consistent: the answers are stored by (row, view);
* inconsistent: the answers are stored by row, about the picture as it is, whatever view the student sees;
* no views: neither sees anything but the pictures as they are.

The consistent student's accuracy may differ from the live one's in the last digit: a teacher's float32 answer to a row
depends in its last bits on which rows are in the batch. Where it does not, both have the same weights, bit for bit
(`tests/labelling/test_labelling.py`).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import numpy as np
import torch
from models import ResNet, SmallCNN
from safetensors.torch import save_file

import tutelage as tt
from tutelage import losses
from tutelage.answers import answers, teacher_answers
from tutelage.cache import Keys
from tutelage.labelling import fill_caches
from tutelage.labelling.fill import batches_of
from tutelage.plan import Plan
from tutelage.signals import Batch, Request, Signals
from tutelage.stages import train_student, train_teacher
from tutelage.teachers import Cached, ModuleTeacher
from tutelage.transfer import FashionMNIST, ShiftFlip
from tutelage.workspace import Workspace

MODES = ("live", "consistent", "inconsistent", "no views")


class Unaware(Cached):
    """Stored answers about each row as it is, given whatever view is asked about."""

    def ask(self, batch: Batch, request: Request) -> Signals:
        """The answer in view 0."""
        return super().ask(replace(batch, views=torch.zeros_like(batch.views)), request)


def recipe(teacher: Any, steps: int, **changes: Any) -> tt.Recipe:
    """The training that all have in common."""
    data = tt.Data(
        source=FashionMNIST(),
        splits=tt.Splits(development=0.03),
        images=tt.Images(mean=[0.286], std=[0.353]),
        limit=6000,
        views=ShiftFlip(shift=2),
    )
    settings: dict[str, Any] = {
        "name": "views",
        "task": "classification",
        "data": data,
        "teacher": teacher,
        "student": tt.ModuleStudent(SmallCNN),
        "losses": [losses.KLDivergence(4.0)],
        "training": tt.Training(steps=steps, batch_size=128, learning_rate=2e-2, warmup=0.2, evaluate_every=steps),
        "baseline": False,
        "seeds": [0, 1, 2],
    }
    return tt.Recipe(**{**settings, **changes})


def trained_teacher(folder: Path, epochs: int) -> str:
    """The file with the weights of a teacher that was trained on the rows."""
    training = tt.Training(epochs=epochs, batch_size=128, learning_rate=1e-2, weight_decay=0.05, warmup=0.2)
    plan = tt.make_plan(recipe(ModuleTeacher(ResNet), 1, teacher_training=training))
    train_teacher(plan, Workspace(folder / "teacher"), progress=False)
    module = plan.recipe.teacher.module
    assert module is not None
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, folder / "teacher.safetensors")
    return str(folder / "teacher.safetensors")


def plan_of(mode: str, folder: Path, weights: str, steps: int) -> Plan:
    """The plan of a mode, its cache filled."""
    live = ModuleTeacher(ResNet, weights)
    kinds = {"live": live, "inconsistent": Unaware(live, str(folder / mode))}
    chosen = recipe(kinds.get(mode, Cached(live, str(folder / mode))), steps)
    if mode == "no views":
        chosen = replace(chosen, data=replace(chosen.data, views=None))
    plan = tt.make_plan(chosen)
    if mode == "inconsistent":
        fill_as_they_are(plan)
    else:
        fill_caches(plan, progress=False)
    return plan


def fill_as_they_are(plan: Plan) -> None:
    """Stores the answers about all rows in view 0 alone."""
    cached, data = plan.recipe.teacher, plan.data
    assert isinstance(cached, Cached)
    store = cached.opened()
    rows = np.concatenate([data.rows(split) for split in ("train", "development", "test")])
    with store.locked():
        for job in cached.missing([Keys(rows, np.zeros_like(rows), ("output",))]):
            store.keep(cached.answer(job, batches_of(data, job, lambda _: None)))
    cached.opened()


def measured(mode: str, folder: Path, weights: str, steps: int) -> tuple[list[float], list[float]]:
    """Accuracy and agreement with the teacher on the test split, of the student of each seed."""
    plan = plan_of(mode, folder, weights, steps)
    data, rows = plan.data, plan.data.rows("test")
    assert data.labels is not None
    teacher = ModuleTeacher(ResNet, weights)
    teacher.load(plan.device)
    says = teacher_answers(teacher, data, rows, plan.device)
    development = teacher_answers(teacher, data, data.rows("development"), plan.device)
    accuracy, agreement = [], []
    for seed in plan.recipe.seeds:
        student = train_student(plan, Workspace(folder / f"run-{mode}"), seed, development, progress=False)
        chosen = answers(student, data, rows, plan.device).argmax(1)
        accuracy.append(float(np.mean(chosen == data.labels[rows])))
        agreement.append(float(np.mean(chosen == says.argmax(1))))
        print(f"{mode}, seed {seed}: accuracy {accuracy[-1]:.4f}, agreement {agreement[-1]:.4f}", flush=True)
    return accuracy, agreement


def row(mode: str, accuracy: list[float], agreement: list[float]) -> str:
    cells = [
        f"{100 * statistics.mean(values):.2f} ({', '.join(f'{100 * value:.2f}' for value in values)})"
        for values in (accuracy, agreement)
    ]
    return f"| {mode} | {' | '.join(cells)} |"


def main() -> None:
    """Runs all modes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--teacher-epochs", type=int, default=4)
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "| stored answers | accuracy, % (each seed) | agreement with teacher, % (each seed) |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        weights = trained_teacher(Path(name), options.teacher_epochs)
        for mode in MODES:
            lines.append(row(mode, *measured(mode, Path(name), weights, options.steps)))
    print("\n".join(lines))
    if options.write is not None:
        before, rest = options.write.read_text(encoding="utf-8").split("<!-- views -->")
        after = rest.split("<!-- /views -->")[1]
        text = f"{before}<!-- views -->\n" + "\n".join(lines) + f"\n<!-- /views -->{after}"
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
