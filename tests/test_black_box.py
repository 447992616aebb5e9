"""Teachers that give a label alone, or little more, through the whole road."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from torch import nn

import tutelage as tt
from tutelage.cli import main
from tutelage.errors import SignalError
from tutelage.evaluation.evidence import Evidence
from tutelage.evaluation.metrics import metrics_for, point_values
from tutelage.forms import TopK
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers.base import Teacher, refuse_features, refuse_members
from tutelage.teachers.black_box import top_of_probabilities
from tutelage.transfer import Digits

ROOT = Path(__file__).parent.parent


class LabelAlone(Teacher):
    """Says a class of each digit and nothing else."""

    def load(self, device: torch.device) -> None:
        rows = Digits().load()
        pixels = rows.columns["image"].reshape(len(rows), -1) / 255
        self.model = LogisticRegression(max_iter=100).fit(pixels[:300], rows.labels[:300])

    def check(self, request: Request) -> None:
        refuse_members(self, request)
        refuse_features(self, request)

    def ask(self, batch: Batch, request: Request) -> Signals:
        assert batch.raw is not None
        labels = self.model.predict(batch.raw()["image"].reshape(len(batch), -1) / 255)
        return Signals(top=TopK.of_labels(torch.from_numpy(labels), 10)) if request.output else Signals()

    def fingerprint(self) -> str:
        return "0" * 64


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    recipe = tt.Recipe(
        name="label-alone",
        task="classification",
        data=tt.Data(source=Digits(), splits=tt.Splits(development=0.1, test=0.4), labelled=60),
        teacher=LabelAlone(),
        student=tt.ModuleStudent(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10))),
        losses=[tt.losses.SoftCrossEntropy(1.0, weight=0.5), tt.losses.ForwardCorrection(0.1, weight=0.5)],
        training=tt.Training(steps=120, batch_size=64, learning_rate=1e-2),
        export=tt.Export(onnx=False),
        measure=tt.Measure(seconds=0.5, rounds=2, batch_sizes=[1]),
        policy=[tt.Gate("accuracy", margin=0.2), tt.Gate("agreement", at_least=0.5), tt.Gate("nll", margin=0.1)],
    )
    return tt.distill(recipe, tmp_path_factory.mktemp("label") / "run", progress=False).bundle


def stored(bundle: Path, name: str) -> dict:
    return json.loads((bundle / name).read_text())


def test_a_teacher_that_gives_labels_alone_is_judged_by_what_it_states(bundle: Path) -> None:
    table = pq.read_table(bundle / "evidence.parquet")
    labels = np.array(table["label"].to_pylist())
    says = {name: np.array(table[name].to_pylist(), np.float64) for name in ("teacher", "student", "baseline")}
    shares = {name: np.exp(z - z.max(1, keepdims=True)) for name, z in says.items()}
    shares = {name: p / p.sum(1, keepdims=True) for name, p in shares.items()}
    metrics = {metric["name"]: metric for metric in stored(bundle, "metrics.json")["metrics"]}
    chosen = shares["teacher"].argmax(1)
    for name, p in shares.items():
        value = {metric: metrics[metric]["models"].get(name, {}).get("value") for metric in metrics}
        assert value["accuracy"] == pytest.approx(accuracy_score(labels, p.argmax(1)))
        assert value["brier"] == pytest.approx(2 * brier_score_loss(labels, p, scale_by_half=True))
        if name != "teacher":
            assert value["kl"] == pytest.approx(log_loss(chosen, p, labels=range(10)), rel=1e-5)
            assert value["nll"] == pytest.approx(log_loss(labels, p), rel=1e-5)
    wrong = (chosen != labels).mean()
    assert 0 < wrong < 0.3
    assert metrics["ece"]["models"]["teacher"]["value"] == pytest.approx(wrong)
    assert "teacher" not in metrics["nll"]["models"]  # it is infinite


def test_the_gate_on_what_the_teacher_does_not_have_is_inconclusive_and_the_page_says_it(bundle: Path) -> None:
    verdict = stored(bundle, "verdict.json")
    outcomes = {gate["name"]: gate["outcome"] for gate in verdict["gates"]}
    assert outcomes["agreement"] == "PASS" and outcomes["nll"] == "INCONCLUSIVE"
    page = (bundle / "report.html").read_text()
    assert len(page) > 20_000
    assert not re.search(r"\b(nan|NaN|-?[Ii]nf(inity)?)\b", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S))
    assert "difference from the teacher" in page
    assert tt.evaluate(bundle)[1] == []


def evidence(teacher: np.ndarray) -> Evidence:
    student = np.random.default_rng(0).normal(size=teacher.shape)
    return Evidence(
        set="test",
        task="classification",
        rows=np.arange(len(teacher)),
        digests=[str(row) for row in range(len(teacher))],
        outputs={"teacher": teacher.astype(np.float32), "student": student.astype(np.float32)},
        labels=np.zeros(len(teacher), np.int64),
        labelled=np.ones(len(teacher), bool),
    )


def test_cut_off_probabilities_give_the_divergence_of_what_is_left() -> None:
    p = np.array([[0.6, 0.4, 0.0], [0.0, 0.0, 1.0], [0.2, 0.3, 0.5]])
    with np.errstate(divide="ignore"):
        set_of = evidence(np.log(p))
    q = np.exp(set_of.outputs["student"].astype(float))
    q /= q.sum(1, keepdims=True)
    by_hand = [sum(a * np.log(a / b) for a, b in zip(*pair, strict=True) if a > 0) for pair in zip(p, q, strict=True)]
    assert point_values("classification", set_of)["kl"]["student"] == pytest.approx(np.mean(by_hand), rel=1e-5)


@pytest.mark.parametrize("row", [[np.nan, 0, 0], [np.inf, 0, 0], [-np.inf, -np.inf, -np.inf]])
def test_what_is_no_distribution_is_still_refused(row: list[float]) -> None:
    with pytest.raises(SignalError, match="1 of 2 rows"):
        metrics_for("classification", evidence(np.array([row, [0.0, 1.0, 2.0]])))


@pytest.fixture(scope="module")
def server() -> Iterator[object]:
    sys.path.insert(0, str(ROOT / "examples"))
    import black_box_server

    running = black_box_server.serve(black_box_server.train(tt.Splits(development=0.15, test=0.3)), port=0)
    yield running
    running.shutdown()


def distil(out: Path, ledger: Path, port: int, *overrides: str) -> int:
    torch.set_num_threads(1)
    teacher = ["--teacher.url", f"http://127.0.0.1:{port}", "--teacher.ledger", str(ledger)]
    short = ["--training.steps", "40", "--seeds", "[0]", "--measure.seconds", "0.5", "--export.onnx", "false"]
    limits = ["--budget.latency_p95_ms", "null"]
    recipe = str(ROOT / "recipes" / "blackbox_api.yaml")
    return main(["distill", recipe, "--out", str(out), "--quiet", *teacher, *short, *limits, *overrides])


def test_the_recipe_stops_at_its_cap_goes_on_from_there_and_then_needs_no_server(
    server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, ledger = server.server_address[1], tmp_path / "l.ledger"
    out = tmp_path / "run"
    assert distil(out, ledger, port, "--teacher.caps.calls", "12") == 4
    stopped = capsys.readouterr().err
    assert "the cap on calls is reached: 12 of 12" in stopped and "it asks only what is missing" in stopped
    first = server.served
    assert distil(out, ledger, port, "--teacher.caps.calls", "500", "--fresh") in (0, 1, 3)
    assert server.served - first < 45
    server.shutdown()
    server.server_close()
    answered = server.served
    assert distil(tmp_path / "again", ledger, port) in (0, 1, 3)
    assert server.served == answered
    once, again = (pq.read_table(folder / "bundle" / "evidence.parquet") for folder in (out, tmp_path / "again"))
    assert once.equals(again)
    accuracy = next(m for m in stored(out / "bundle", "metrics.json")["metrics"] if m["name"] == "accuracy")["models"]
    assert accuracy["teacher"]["value"] > 0.95
    assert {"student", "baseline"} <= set(accuracy)


def test_the_servers_model_has_seen_training_rows_alone() -> None:
    recipe, script = (
        (ROOT / path).read_text() for path in ("recipes/blackbox_api.yaml", "examples/black_box_server.py")
    )
    assert re.findall(r"splits: \{development: (\S+), test: (\S+)\}", recipe) == [("0.15", "0.3")]
    assert re.findall(r"Splits\(development=(\S+), test=(\S+)\)\)", script) == [("0.15", "0.3")]
    assert 'data.batch(data.rows("train"))' in script


def test_a_row_whose_probabilities_are_all_rounded_to_nothing_says_nothing_of_any_class() -> None:
    top = top_of_probabilities(torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.7, 0.0, 0.2, 0.0]]))
    expected = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.7, 0.05, 0.2, 0.05]])
    torch.testing.assert_close(top.dense().exp(), expected)
    flat = Batch(inputs=torch.empty(2, 0), rows=torch.arange(2), views=torch.zeros(2, dtype=torch.long))
    value = tt.losses.KLDivergence(1.0)(Signals(output=torch.zeros(2, 4)), Signals(top=top), flat)
    assert value[0].abs() < 1e-6 and torch.isfinite(value).all()
