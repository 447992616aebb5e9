"""A PASS beside a better baseline: what the verdict says of it at the terminal, in the bundle and on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tutelage as tt
from tutelage.cli import main
from tutelage.evaluation.results import Estimate, MetricResult
from tutelage.governance.policy import Gate
from tutelage.governance.verdict import Verdict, judge

EQUAL = Estimate(value=0.0, low=-0.004, high=0.004)


def metric(name: str, low: float, high: float, **changes: Any) -> MetricResult:
    """A metric whose `student - baseline` has this interval, with a student that equals its teacher."""
    fields: dict[str, Any] = {
        "name": name,
        "title": name.capitalize(),
        "kind": "quality",
        "set": "test",
        "higher_is_better": True,
        "unit": "%",
        "n": 500,
        "models": {model: Estimate(value=0.5, low=0.49, high=0.51) for model in ("teacher", "student", "baseline")},
        "differences": {
            "student - teacher": EQUAL,
            "student - baseline": Estimate(value=(low + high) / 2, low=low, high=high),
        },
    }
    return MetricResult(**{**fields, **changes})


def warned(metrics: list[MetricResult], *policy: Gate) -> list[str]:
    return judge(metrics, None, policy, None, None).warnings


ACCURACY = Gate("accuracy", at_least=0.1)


@pytest.mark.parametrize(
    ("ends", "count"), [((-0.2, -0.001), 1), ((-0.2, 0.0), 0), ((-0.1, 0.1), 0), ((0.001, 0.2), 0)]
)
def test_a_baseline_that_is_better_with_its_whole_interval_is_warned_of_and_no_other(
    ends: tuple[float, float], count: int
) -> None:
    assert len(warned([metric("accuracy", *ends)], ACCURACY)) == count
    lower = [metric("rmse", -ends[1], -ends[0], higher_is_better=False, unit="")]
    assert len(warned(lower, Gate("rmse", at_most=1.0))) == count


def test_what_is_looked_at_is_what_the_policy_judges_and_the_main_metric_which_it_may_leave_out() -> None:
    worse = (-0.3, -0.2)
    metrics = [
        metric("agreement", *worse, kind="fidelity"),
        metric("accuracy", *worse),
        metric("ece", *worse),
        metric("accuracy:hans", *worse, set="hans"),
    ]
    said = warned(metrics, Gate("agreement", at_least=0.1))
    assert [sentence.split(": ")[1].split()[0] for sentence in said] == ["agreement", "accuracy"]
    (other,) = warned([metric("accuracy", -0.1, 0.1), *metrics[2:]], Gate("accuracy:hans", at_least=0.1))
    assert "-30.00 to -20.00 points" in other and "50.00%, with the teacher 50.00%" in other
    assert warned([metric("accuracy", 0, 0, differences={"student - teacher": EQUAL})], ACCURACY) == []


def test_a_pass_with_warnings_keeps_its_exit_status_and_is_not_called_a_plain_pass() -> None:
    verdict = judge([metric("accuracy", -0.3, -0.2)], None, [ACCURACY], None, None)
    assert (verdict.verdict, verdict.exit_status, verdict.headline) == ("PASS", 0, "PASS, with a warning")
    assert judge([metric("accuracy", -0.1, 0.1)], None, [ACCURACY], None, None).headline == "PASS"
    failed = judge([metric("accuracy", -0.3, -0.2)], None, [Gate("accuracy", at_least=0.9)], None, None)
    assert failed.headline == "FAIL" and failed.warnings


@pytest.mark.parametrize(
    ("ends", "margin", "outcome"),
    [
        ((-0.99, -0.96), 0.05, "INCONCLUSIVE"),
        ((-0.99, -0.051), 0.05, "INCONCLUSIVE"),
        ((-0.99, -0.05), 0.05, "PASS"),
        ((-0.04, -0.01), 0.05, "PASS"),
    ],
)
def test_a_margin_below_a_teacher_that_is_worse_than_none_lets_nothing_pass(
    ends: tuple[float, float], margin: float, outcome: str
) -> None:
    """Teacher 0%, student 0%, baseline 98%: not worse than the teacher, and no student to ship."""
    for found, gate in (
        (metric("accuracy", *ends), Gate("accuracy", margin=margin)),
        (metric("rmse", -ends[1], -ends[0], higher_is_better=False, unit=""), Gate("rmse", margin=margin)),
    ):
        verdict = judge([found], None, [gate], None, None)
        assert verdict.verdict == outcome and len(verdict.reasons) == (outcome != "PASS") and verdict.warnings
        assert all("without the teacher" in reason for reason in verdict.reasons)


def test_a_verdict_of_an_earlier_version_has_no_warnings() -> None:
    verdict = judge([metric("accuracy", -0.3, -0.2)], None, [ACCURACY], None, None)
    stored = verdict.to_dict()
    assert Verdict.from_dict(json.loads(json.dumps(stored))) == verdict
    del stored["warnings"]
    assert Verdict.from_dict(stored).warnings == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tt.Result:
    """A student that agrees with a teacher that hardly knows the labels, which the baseline learns with ease."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4)).astype(np.float32)
    torch.manual_seed(0)
    teacher = torch.nn.Linear(4, 2)
    with torch.no_grad():
        teacher.weight[:, 0] = torch.tensor([-0.1, 0.1])  # all that the labels depend on
    recipe = tt.Recipe(
        name="harmed",
        task="classification",
        data=tt.Data(source=tt.Arrays(x, (x[:, 0] > 0).astype(np.int64))),
        teacher=tt.ModuleTeacher(teacher),
        student=tt.ModuleStudent(lambda: torch.nn.Linear(4, 2)),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=150, batch_size=64, learning_rate=5e-2),
        measure=tt.Measure(seconds=0.2, rounds=2),
        export=tt.Export(onnx=False),
        policy=[tt.Gate("agreement", at_least=0.6)],
    )
    return tt.distill(recipe, tmp_path_factory.mktemp("harmed"), progress=False)


def test_terminal_card_and_page_say_it_beside_the_verdict(run: tt.Result, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.verdict.verdict == "PASS" and len(run.verdict.warnings) == 1
    (warning,) = run.verdict.warnings
    assert "accuracy" in warning
    capsys.readouterr()
    assert main(["evaluate", str(run.bundle)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["PASS, with a warning", f"  WARNING      {warning}"]
    card = (run.bundle / "README.md").read_text().split("\n\n")
    assert card[1].startswith("**PASS, with a warning**") and card[2] == f"**Warning:** {warning}"
    page = run.report.read_text()
    head = page[page.index("<h1") : page.index("</header>")]
    assert "Pass, with a warning" in head and "without the teacher is better" in head
    assert 'class="opening warned"' in page and "<title>PASS, with a warning" in page
    assert head.index('class="warning"') < head.index('class="reason"')


def test_a_warning_that_was_taken_out_of_the_bundle_is_named(
    run: tt.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in run.bundle.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    stored = json.loads((tmp_path / "verdict.json").read_text())
    (tmp_path / "verdict.json").write_text(json.dumps(stored | {"warnings": []}))
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "DIFFERS      warnings: stored none, recomputed [" in capsys.readouterr().out
    del stored["warnings"]  # as an earlier version wrote it
    (tmp_path / "verdict.json").write_text(json.dumps(stored))
    main(["evaluate", str(tmp_path)])
    assert "DIFFERS      warnings" not in capsys.readouterr().out
