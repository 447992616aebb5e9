"""A bundle that was changed after it was judged says so: files, gates, record and page."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_words import named_in

import tutelage as tt
from tutelage.cli import main
from tutelage.errors import DataError
from tutelage.governance.provenance import changed_files, digest_files
from tutelage.report import write_report
from tutelage.sealed import write_sealed


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, 4)).astype(np.float32)
    torch.manual_seed(0)
    teacher = torch.nn.Linear(4, 3)
    with torch.no_grad():
        known = teacher(torch.from_numpy(inputs)).argmax(1).numpy()
    recipe = tt.Recipe(
        name="small",
        task="classification",
        data=tt.Data(source=tt.Arrays(inputs, np.where(rng.random(300) < 0.5, known, rng.integers(0, 3, 300)))),
        teacher=tt.ModuleTeacher(teacher),
        student=tt.ModuleStudent(lambda: torch.nn.Linear(4, 3)),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=200, batch_size=32, learning_rate=3e-2),
        measure=tt.Measure(seconds=0.5, rounds=2),
        budget=tt.Budget(size_mb=1),
        policy=[tt.Gate("agreement", at_least=0.5), tt.Gate("agreement", at_least=0.6)],
    )
    mask = os.umask(0o027)
    try:
        result = tt.distill(recipe, tmp_path_factory.mktemp("run"), progress=False)
    finally:
        os.umask(mask)
    assert result.verdict.verdict == "PASS", result.verdict
    return result.bundle


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    for path in original.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_no_file_of_a_bundle_names_the_machine_the_user_or_a_path(original: Path, tmp_path: Path) -> None:
    assert named_in(original, "torch.nn.Linear(4, 3)") == []
    shutil.copytree(original, tmp_path / "told")
    (tmp_path / "told" / "further.txt").write_text(f"made in {Path.home()}")
    assert named_in(tmp_path / "told") == [("further.txt", str(Path.home()))]


def edit(path: Path, change: Callable[[dict], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data, indent=1) + "\n")


def replace(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def make_digests_fit(bundle: Path) -> None:
    """As one would who knows how each digest is made: of the files, of their record, and of the page."""
    digests = digest_files(bundle, exclude=("provenance.json", "report.html"))
    record = json.loads((bundle / "provenance.json").read_text())
    del record["sha256"]
    write_sealed(bundle / "provenance.json", record | {"files": digests})
    write_report(bundle)


def evaluated(bundle: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    status = main(["evaluate", str(bundle)])
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return status, shown.out + shown.err


def test_a_bundle_as_it_was_made_agrees_also_after_its_page_was_written_again(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(bundle, capsys)[0] == 0
    (bundle / "report.html").write_text("lost")
    assert main(["report", str(bundle)]) == 0
    status, shown = evaluated(bundle, capsys)
    assert (status, shown.splitlines()[0]) == (0, "PASS")
    assert "all agree" in shown


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda b: (b / "model.safetensors").write_bytes(b"other"), "model.safetensors: not the file that was stored"),
        (lambda b: (b / "README.md").write_text("PASS at everything"), "README.md: not the file"),
        (lambda b: (b / "model.onnx").unlink(), "model.onnx: missing"),
        (lambda b: (b / "extra.bin").write_text(""), "extra.bin: not among the files"),
        (lambda b: replace(b / "report.html", "PASS", "PAST"), "report.html: not the page"),
        (lambda b: (b / "report.html").unlink(), "report.html: missing"),
        (
            lambda b: edit(b / "provenance.json", lambda r: r["teacher"].update(description="GPT")),
            "provenance.json: not",
        ),
        (lambda b: replace(b / "cost.json", '"batch": 1', '"batch": 2'), "cost.json: not the file"),
        (lambda b: replace(b / "history.jsonl", "step", "stop"), "history.jsonl: not the file"),
    ],
    ids=["weights", "card", "missing", "extra", "page", "no page", "provenance", "cost", "history"],
)
def test_a_file_that_is_not_the_stored_one_is_named_and_nothing_opens_with_pass(
    change: Callable[[Path], object], told: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(bundle)
    status, shown = evaluated(bundle, capsys)
    assert status == 1
    assert shown.splitlines()[0] == "the bundle does not agree with itself"
    assert shown.count("DIFFERS") == 1 and f"DIFFERS      {told}" in shown


@pytest.mark.parametrize(
    ("field", "value"), [("outcome", "FAIL"), ("value", 0.99), ("low", 0.98), ("high", 1.5), ("threshold", 0.1)]
)
@pytest.mark.parametrize("place", [0, 1, 2])  # two gates on one metric, and the budget
def test_a_gate_that_was_made_up_is_named_even_where_all_digests_were_made_to_fit(
    place: int, field: str, value: object, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(bundle / "verdict.json", lambda verdict: verdict["gates"][place].update({field: value}))
    make_digests_fit(bundle)
    status, shown = evaluated(bundle, capsys)
    name = json.loads((bundle / "verdict.json").read_text())["gates"][place]["name"]
    assert status == 1
    assert shown.count("DIFFERS") == 1 and f"DIFFERS      gate {name}: stored" in shown


def test_a_gate_that_was_dropped_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle / "verdict.json", lambda verdict: verdict["gates"].pop())
    status, shown = evaluated(bundle, capsys)
    assert status == 1 and "recomputed export parity PASS" in shown and "stored nothing" in shown


def test_a_gate_that_was_added_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    invented = {"name": "robustness", "outcome": "PASS", "value": 0.9, "low": 0.8, "high": 1.0, "threshold": 0.5}
    edit(bundle / "verdict.json", lambda verdict: verdict["gates"].append(verdict["gates"][0] | invented))
    make_digests_fit(bundle)
    status, shown = evaluated(bundle, capsys)
    assert status == 1
    assert "DIFFERS      gate robustness: stored robustness PASS" in shown and "recomputed nothing" in shown


def test_a_verdict_that_does_not_follow_from_its_gates_is_named(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(bundle / "verdict.json", lambda verdict: verdict.update(verdict="INCONCLUSIVE"))
    make_digests_fit(bundle)
    status, shown = evaluated(bundle, capsys)
    assert status == 1
    assert shown.count("DIFFERS") == 1 and "verdict: stored INCONCLUSIVE, recomputed PASS" in shown


@pytest.mark.parametrize("change", ["another value", "another metric"])
def test_a_metric_that_was_made_up_is_named(change: str, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def falsify(said: dict) -> None:
        first = said["metrics"][0]
        if change == "another value":
            first["models"]["student"]["value"] += 1e-3
        else:
            said["metrics"].append(first | {"name": "brilliance"})

    edit(bundle / "metrics.json", falsify)
    make_digests_fit(bundle)
    name = json.loads((bundle / "metrics.json").read_text())["metrics"][0]["name"]
    status, shown = evaluated(bundle, capsys)
    assert status == 1 and shown.count("DIFFERS") == 1
    assert f"DIFFERS      {name if change == 'another value' else 'brilliance'}: stored" in shown


DAMAGED = {
    "without digests": "{}",
    "a list": "[1]",
    "no digest": '{"files": {}}',
    "digests as a list": '{"files": ["model.onnx"]}',
    "numbers as digests": '{"files": {"model.onnx": 1}}',
}


@pytest.mark.parametrize("damage", ["missing", "cut off", *DAMAGED])
def test_a_bundle_without_its_record_is_refused(damage: str, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundle / "provenance.json"
    if damage == "missing":
        path.unlink()
    else:
        path.write_text(DAMAGED.get(damage, path.read_text()[:300]))
    status, shown = evaluated(bundle, capsys)
    assert status == 2 and "provenance.json" in shown and "mend:" in shown


def test_missing_evidence_is_named_with_a_mend(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "evidence.parquet").unlink()
    status, shown = evaluated(bundle, capsys)
    assert status == 2
    assert "evidence.parquet" in shown and "no such file" in shown and "mend:" in shown


def test_measuring_a_bundle_whose_onnx_file_is_gone_says_so(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "model.onnx").unlink()
    assert main(["measure", str(bundle), "--batch-sizes", "1"]) == 2
    assert "model.onnx is missing" in capsys.readouterr().err


def test_the_page_of_another_bundle_is_not_taken_for_this_ones(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, page = (bundle / "provenance.json").read_text(), (bundle / "report.html").read_text()
    edit(bundle / "provenance.json", lambda found: found.update(name="another"))
    make_digests_fit(bundle)
    assert evaluated(bundle, capsys)[0] == 0
    (bundle / "report.html").write_text(page)
    assert "DIFFERS      report.html: not the page" in evaluated(bundle, capsys)[1]
    (bundle / "provenance.json").write_text(record)
    assert evaluated(bundle, capsys)[0] == 0


def test_200_flips_in_the_files_of_a_bundle_are_each_named(bundle: Path) -> None:
    flips, names = random.Random(2), sorted(path.name for path in bundle.iterdir())
    for number in range(200):
        name = names[number % len(names)]
        original = (bundle / name).read_bytes()
        data, at = bytearray(original), flips.randrange(len(original))
        data[at] ^= 1 << flips.randrange(8)
        (bundle / name).write_bytes(bytes(data))
        if name == "provenance.json":
            try:
                said = changed_files(bundle)
            except DataError as error:
                said = [str(error)]
            if not said:  # the name of the digest: nothing that it holds is another
                known, found = json.loads(original), json.loads(data)
                assert "sha256" not in found and all(found[key] == known[key] for key in known if key != "sha256")
        else:
            (only,) = changed_files(bundle)
            assert only.startswith(f"{name}: not"), (name, at, only)
        (bundle / name).write_bytes(original)


def test_a_bundle_of_before_the_record_had_a_digest_agrees(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle / "provenance.json", lambda record: record.pop("sha256"))
    replace(bundle / "report.html", "<!-- sha256", "<!-- nothing")
    assert evaluated(bundle, capsys)[0] == 0


def test_every_file_of_a_bundle_may_be_read_by_those_who_may_read_the_others(original: Path) -> None:
    """A file that only its owner may read, or that everyone may though the user's mask says otherwise."""
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in original.iterdir()} == {
        path.name: "0o640" for path in original.iterdir()
    }
