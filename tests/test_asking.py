"""Asking in rounds: strategies against brute force; what is asked, estimated, recorded, and taken up again."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import nn

import tutelage as tt
from tutelage.asking import Asking, k_centre, uncertainty
from tutelage.errors import UserError
from tutelage.plan import make_plan
from tutelage.rounds import run_rounds
from tutelage.signals import Batch, Request, Signals
from tutelage.stages import train_student
from tutelage.workspace import Workspace

RNG = np.random.default_rng(0)


def test_uncertainty_is_the_entropy_and_the_margin_of_float64() -> None:
    logits = RNG.normal(size=(7, 5)) * 4
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = uncertainty(torch.from_numpy(logits), "entropy")
    np.testing.assert_allclose(found, [entropy(row) for row in shares], rtol=1e-10)
    ordered = np.sort(shares, axis=1)
    np.testing.assert_allclose(uncertainty(torch.from_numpy(logits), "margin"), 1 - (ordered[:, -1] - ordered[:, -2]))


def test_k_centre_takes_each_time_the_row_farthest_from_all_centres_those_asked_before_among_them() -> None:
    points, centres = RNG.normal(size=(40, 3)), RNG.normal(size=(300, 3)) + 1
    chosen = k_centre(torch.from_numpy(points), torch.from_numpy(centres), 12)
    taken = [tuple(c) for c in centres]
    for place in chosen:
        nearest = [min(math.dist(p, c) for c in taken) for p in points]
        assert math.dist(points[place], points[int(np.argmax(nearest))]) < 1e-9
        taken.append(tuple(points[place]))
    assert len(set(chosen.tolist())) == 12
    # With copies of one point there is nothing far, but no row is chosen twice.
    same = torch.zeros(5, 2, dtype=torch.float64)
    assert sorted(k_centre(same, same[:1], 5).tolist()) == [0, 1, 2, 3, 4]


class Counting(tt.ModuleTeacher):
    """Notes which rows it was asked about."""

    asked: ClassVar[set[int]] = set()
    times: ClassVar[Counter[int]] = Counter()

    def ask(self, batch: Batch, request: Request) -> Signals:
        if request:
            self.asked.update(batch.rows.tolist())
            self.times.update(batch.rows.tolist())
        return super().ask(batch, request)


def teacher_net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 4))


def recipe(asking: Asking | None, labels: bool = False, **changes: Any) -> tt.Recipe:
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(900, 6)).astype(np.float32)
    settings: dict[str, Any] = {
        "name": "asked",
        "task": "classification",
        "data": tt.Data(source=tt.Arrays(inputs, rng.integers(0, 4, 900) if labels else None)),
        "teacher": Counting(teacher_net()),
        "student": tt.ModuleStudent(lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))),
        "losses": [tt.losses.KLDivergence()],
        "training": tt.Training(steps=40, batch_size=16, learning_rate=1e-2),
        "export": tt.Export(onnx=False),
        "measure": tt.Measure(batch_sizes=[1], rounds=1, seconds=0.05),
        "asking": asking,
    }
    return tt.Recipe(**{**settings, **changes})


def rounds_of(made: tt.Recipe, folder: Path) -> tuple[Any, Any, list[Any], np.ndarray[Any, Any]]:
    """The plan, the plan of the rows asked about, the rounds, and the teacher's answers on the development split."""
    from tutelage.answers import teacher_answers

    plan = make_plan(made)
    says = teacher_answers(made.teacher, plan.data, plan.data.rows("development"), plan.device)
    workspace = Workspace(folder)
    workspace.work.mkdir(parents=True)
    return plan, *run_rounds(plan, workspace, says, progress=False), says


@pytest.mark.parametrize("strategy", ["random", "entropy", "margin", "k_centre"])
def test_each_round_asks_what_its_strategy_prefers_of_rows_not_asked_before_and_an_audit_at_random(
    strategy: Any, tmp_path: Path
) -> None:
    made = recipe(Asking(strategy=strategy, rounds=3, per_round=60, audit=0.25, features="output"))
    plan, taught, rounds, says = rounds_of(made, tmp_path / "run")
    asked = [row for one in rounds for row in (*one.audit, *one.chosen)]
    assert len(asked) == len(set(asked)) == 180 and [one.asked for one in rounds] == [60, 120, 180]
    assert set(asked) <= set(plan.data.rows("train").tolist())
    assert [len(one.audit) for one in rounds] == [0, 15, 15]
    assert taught.data.rows("train").tolist() == sorted(asked)
    np.testing.assert_array_equal(taught.data.rows("test"), plan.data.rows("test"))
    if strategy == "random":
        return
    # The choice of the last round, made once more from a student that is trained once more.
    before = np.array(sorted(rows for one in rounds[:2] for rows in (*one.audit, *one.chosen)))
    from tutelage.rounds import limited

    again = train_student(limited(plan, before), Workspace(tmp_path / "b"), 0, says, role="round 2", progress=False)
    last = rounds[2]
    rest = np.setdiff1d(plan.data.rows("train"), [*before, *last.audit])
    with torch.no_grad():
        logits = again(plan.data.batch(rest).inputs).double().numpy()
        taken = again(plan.data.batch(np.array([*before, *last.audit])).inputs).double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if strategy == "entropy":
        expected = rest[np.argsort(-np.array([entropy(row) for row in shares]))[:45]]
    elif strategy == "margin":
        ordered = np.sort(shares, axis=1)
        expected = rest[np.argsort(ordered[:, -1] - ordered[:, -2])[:45]]
    else:
        far = np.min(np.linalg.norm(logits[:, None] - taken[None], axis=2), axis=1)
        expected = rest[[int(np.argmax(far))]]
        assert last.chosen[0] == expected[0]
        return
    assert set(last.chosen) == set(expected.tolist())


def test_the_audit_compares_the_student_of_the_round_before_with_the_teacher_on_rows_it_never_saw(
    tmp_path: Path,
) -> None:
    from tutelage.rounds import limited

    made = recipe(Asking(strategy="entropy", rounds=2, per_round=100, audit=0.5))
    plan, _, rounds, says = rounds_of(made, tmp_path / "run")
    first, second = rounds
    assert first.agreement is None and not set(second.audit) & set(first.chosen)
    again = train_student(
        limited(plan, np.array(first.chosen)), Workspace(tmp_path / "b"), 0, says, role="round 1", progress=False
    )
    inputs = plan.data.batch(np.array(second.audit)).inputs
    with torch.no_grad():
        theirs = teacher_net()(inputs).argmax(1)
        assert second.agreement == pytest.approx(float((again(inputs).argmax(1) == theirs).float().mean()))
    assert second.low < second.agreement < second.high


def test_the_estimate_of_the_audits_is_unbiased_for_the_rows_that_were_not_asked_about(tmp_path: Path) -> None:
    inputs = np.random.default_rng(1).normal(size=(900, 6)).astype(np.float32)
    with torch.no_grad():
        best = teacher_net()(torch.from_numpy(inputs)).topk(2).values
    inputs = inputs[torch.argsort(best[:, 1] - best[:, 0]).numpy()]  # the clearest rows come first
    errors = []
    for seed in range(8):
        data = tt.Data(source=tt.Arrays(inputs))
        made = recipe(Asking(strategy="margin", rounds=2, per_round=60, audit=0.5), seeds=[seed], data=data)
        plan, _, rounds, says = rounds_of(made, tmp_path / str(seed))
        from tutelage.rounds import limited

        student = train_student(
            limited(plan, np.array(rounds[0].chosen)), Workspace(tmp_path / str(seed)), seed, says, role="round 1",
            progress=False,
        )  # fmt: skip
        rest = np.setdiff1d(plan.data.rows("train"), rounds[0].chosen)
        seen = plan.data.batch(rest).inputs
        with torch.no_grad():
            truth = float((student(seen).argmax(1) == teacher_net()(seen).argmax(1)).float().mean())
        errors.append(rounds[1].agreement - truth)
    # 8 audits of 30 rows: the mean error has a spread of about 0.03.
    assert abs(np.mean(errors)) < 0.09


def test_it_stops_when_a_thousand_questions_gain_too_little_and_asks_no_more_than_the_audit(tmp_path: Path) -> None:
    made = recipe(Asking(rounds=6, per_round=50, audit=0.4, stop_gain=1e6))
    _, taught, rounds, _ = rounds_of(made, tmp_path / "run")
    assert [one.stopped for one in rounds] == [False, False, True]  # two audits are needed for a gain
    second, third = rounds[1], rounds[2]
    assert third.gain_per_1000 == pytest.approx((third.agreement - second.agreement) * 1000 / 50)
    assert third.chosen == [] and len(third.audit) == 20
    assert len(taught.data.rows("train")) == 120
    never = recipe(Asking(rounds=3, per_round=50, audit=0.4, stop_gain=-1e6))
    assert len(rounds_of(never, tmp_path / "b")[2]) == 3


def test_the_teacher_is_asked_about_no_other_training_row_and_the_bundle_says_which(tmp_path: Path) -> None:
    made = recipe(Asking(strategy="k_centre", rounds=3, per_round=40, features="0"), labels=True, seeds=[0, 1])
    data = make_plan(made).data
    Counting.asked.clear()
    bundle = tt.distill(made, tmp_path / "run", progress=False).bundle
    record = json.loads((bundle / "asking.json").read_text())
    rows = {row for one in record["rounds"] for row in (*one["audit"], *one["chosen"])}
    asked = Counting.asked & set(data.rows("train").tolist())
    # The plan traces the models on its first two training rows.
    assert asked - set(data.rows("train")[:2].tolist()) <= rows <= asked
    assert record["asked"] == len(rows) == 120 and record["asked_by_the_plan"] == 2
    assert record["asked_for_evaluation"] == {name: data.sizes[name] for name in ("development", "test")}
    page = (bundle / "report.html").read_text()
    assert "What was asked" in page and "k_centre" in page and "Round 2" in page
    history = [json.loads(line) for line in (bundle / "history.jsonl").read_text().splitlines()]
    assert {"round 1", "round 2", "student", "baseline"} <= {line["role"] for line in history}
    assert tt.evaluate(bundle)[1] == []


def test_a_run_that_was_killed_between_rounds_goes_on_with_the_rounds_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tutelage.rounds as module

    def made() -> tt.Recipe:
        return recipe(Asking(strategy="margin", rounds=4, per_round=40))

    whole = tt.distill(made(), tmp_path / "whole", progress=False).bundle
    real: Callable[..., Any] = module._next

    def killed(plan: Any, asking: Any, rounds: Any, student: Any, audit: Any) -> Any:
        if len(rounds) == 2:
            raise KeyboardInterrupt
        return real(plan, asking, rounds, student, audit)

    monkeypatch.setattr(module, "_next", killed)
    with pytest.raises(KeyboardInterrupt):
        tt.distill(made(), tmp_path / "killed", progress=False)
    left = json.loads((tmp_path / "killed" / "work" / "asking.json").read_text())
    assert len(left["rounds"]) == 2
    trained = (tmp_path / "killed" / "work" / "round-1-0" / "done.json").stat().st_mtime_ns
    gone_through: list[int] = []

    def counted(plan: Any, asking: Any, rounds: Any, student: Any, audit: Any) -> Any:
        gone_through.append(len(rounds) + 1)
        return real(plan, asking, rounds, student, audit)

    monkeypatch.setattr(module, "_next", counted)
    again = tt.distill(made(), tmp_path / "killed", progress=False).bundle
    for name in ("asking.json", "model.safetensors"):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name
    assert (tmp_path / "killed" / "work" / "round-1-0" / "done.json").stat().st_mtime_ns == trained
    assert gone_through == [3, 4]


def test_answers_are_stored_for_the_rows_of_a_round_and_its_audit_before_they_are_used(tmp_path: Path) -> None:
    from tutelage.answers import teacher_answers
    from tutelage.rounds import first_round

    made = recipe(Asking(strategy="margin", rounds=3, per_round=40, audit=0.25))
    plan = make_plan(made)
    says = teacher_answers(made.teacher, plan.data, plan.data.rows("development"), plan.device)
    workspace = Workspace(tmp_path)
    workspace.work.mkdir(parents=True)
    labelled: list[set[int]] = []
    asked_then: list[set[int]] = []
    train = set(plan.data.rows("train").tolist())
    Counting.asked.clear()

    def label(limited: Any) -> None:
        labelled.append(set(limited.data.rows("train").tolist()))
        asked_then.append(Counting.asked & train)

    taught, rounds = run_rounds(plan, workspace, says, label=label, progress=False)
    whole = [set(one.audit) | set(one.chosen) for one in rounds]
    first, second = whole[0], whole[0] | whole[1]
    expected = [first, first | set(rounds[1].audit), second, second | set(rounds[2].audit), second | whole[2]]
    assert labelled == expected
    assert all(asked <= had for asked, had in zip(asked_then[1:], labelled, strict=False))
    assert set(first_round(plan).data.rows("train").tolist()) == first
    assert set(taught.data.rows("train").tolist()) == expected[-1]


def test_a_cached_teacher_is_asked_once_about_each_row_of_the_rounds_and_about_no_other(tmp_path: Path) -> None:
    from tutelage.labelling.fill import require_fillable

    asking = Asking(strategy="margin", rounds=3, per_round=40, audit=0.25)
    cached = tt.Cached(Counting(teacher_net()), str(tmp_path / "cache"))
    made = recipe(asking, teacher=cached, seeds=[0, 1])
    with pytest.raises(UserError, match=r"^asking"):
        require_fillable(make_plan(made))
    Counting.times.clear()
    bundle = tt.distill(made, tmp_path / "run", progress=False).bundle
    record = json.loads((bundle / "asking.json").read_text())
    rows = {row for one in record["rounds"] for row in (*one["audit"], *one["chosen"])}
    data = make_plan(made).data
    train = set(data.rows("train")[2:].tolist())  # the first two are those that plans are traced on
    asked = {row: times for row, times in Counting.times.items() if row in train}
    assert asked == dict.fromkeys(rows & train, 1)


def test_epochs_are_those_of_the_rows_asked_about(tmp_path: Path) -> None:
    made = recipe(Asking(rounds=2, per_round=64), training=tt.Training(epochs=3, batch_size=16))
    plan, taught, _, _ = rounds_of(made, tmp_path / "run")
    assert plan.steps == taught.steps == 3 * 128 // 16


@pytest.mark.parametrize(
    ("asking", "changes", "key"),
    [
        (Asking(audit=0.0), {}, r"asking\.audit"),
        (Asking(rounds=0), {}, r"asking\.rounds"),
        (Asking(per_round=1), {}, r"asking\.per_round"),
        (Asking(features="inputs"), {}, r"asking\.features"),
        (Asking(rounds=9, per_round=100), {}, r"rounds x per_round up to"),
        (Asking(rounds=1, per_round=9, strategy="k_centre", features="hiden"), {}, r"hiden"),
        (Asking(rounds=1, per_round=9), {"losses": [tt.losses.CrossEntropy()]}, r"^losses"),
        (Asking(rounds=1, per_round=9), {"task": "regression"}, r"^task"),
        (Asking(rounds=1, per_round=9, training=tt.Training()), {}, r"asking\.training"),
    ],
)
def test_what_can_not_be_meant_is_refused_by_its_key(asking: Asking, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=key):
        make_plan(recipe(asking, labels=True, **changes))
