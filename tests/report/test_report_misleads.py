"""What a reader in a hurry takes from the page: it must not be more than what was found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_bundle import write_bundle
from test_report_page import read, section, text_of

from tutelage.bundle import disagreements
from tutelage.evaluation.evidence import Evidence
from tutelage.evaluation.plots import worst_disagreements
from tutelage.workspace import write_json


def change_accuracy(folder: Path, **differences: tuple[float, float, float]) -> None:
    content = json.loads((folder / "metrics.json").read_text())
    accuracy = next(m for m in content["metrics"] if m["name"] == "accuracy")
    accuracy["models"]["constant"] = {"value": 0.99, "low": 0.98, "high": 1.0}
    for other, (value, low, high) in differences.items():
        accuracy["differences"][f"student - {other}"] = {"value": value, "low": low, "high": high}
    (folder / "metrics.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("differences", "answer", "words"),
    [
        ({"baseline": (-0.03, -0.04, -0.02)}, "No", "lower than without the teacher"),
        ({"baseline": (0.0, -0.02, 0.03)}, "Not shown", "told apart"),
        ({"baseline": (0.03, 0.02, 0.04)}, "Yes", "higher than without the teacher"),
        ({"baseline": (0.03, 0.02, 0.04), "constant": (-0.1, -0.2, -0.05)}, "No", "still worse than a constant answer"),
        ({"baseline": (0.0, -0.02, 0.03), "constant": (-0.1, -0.2, -0.05)}, "Not shown", "a constant answer is better"),
    ],
)
def test_whether_distillation_helps_stands_beside_the_verdict(
    bundle: Path, differences: dict[str, tuple[float, float, float]], answer: str, words: str
) -> None:
    change_accuracy(bundle, **differences)
    page = read(bundle)
    opening = text_of(page[page.index("<header") : page.index("</header")])
    assert f"Does distillation help? {answer}: " in opening and words in opening
    body = text_of(section(page, "benefit"))
    assert f" {answer}. " in body
    assert ("of no use" in body) == ("constant" in differences)
    assert ("a loss of up to 2.0" in body) == (differences["baseline"][0] == 0.0)  # unseen is not absent


def test_a_difference_from_the_teacher_is_not_called_fidelity(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", kind="regression", rows=300)
    content = json.loads((folder / "metrics.json").read_text())
    fidelity = next(m for m in content["metrics"] if m["kind"] == "fidelity" and not m["higher_is_better"])
    content["metrics"] = [m for m in content["metrics"] if m["kind"] == "quality"] + [fidelity]
    (folder / "metrics.json").write_text(json.dumps(content))
    page = read(folder)
    tiles = re.findall(r"<h3>(.*?)</h3>", page[page.index('id="glance"') : page.index('id="gates"')])
    assert not [title for title in tiles if "idelity" in title]
    assert [title for title in tiles if title.startswith("Distance from the teacher: ")]


class Shown:
    def display(self, row: int) -> dict[str, Any]:
        return {"kind": "text", "input": f"row {row}", "label": None}


def evidence(task: str, teacher: Any, student: Any) -> Evidence:
    arrays = {"teacher": np.asarray(teacher, np.float32), "student": np.asarray(student, np.float32)}
    n = len(arrays["teacher"])
    return Evidence(set="test", task=task, rows=np.arange(n), digests=[str(k) for k in range(n)], outputs=arrays)  # type: ignore[arg-type]


def test_rows_with_the_same_answer_come_after_all_disagreements_and_are_not_called_so(bundle: Path) -> None:
    teacher = [[9.0, 0.0], [0.1, 0.0], [1.0, 0.0]]  # sure, nearly even, the same
    student = [[0.5, 0.0], [0.0, 0.1], [1.0, 0.0]]
    found = evidence("classification", teacher, student)
    assert [row for row, _ in worst_disagreements(found)] == [1, 0, 2]
    write_json(bundle / "disagreements.json", disagreements(found, Shown()))  # type: ignore[arg-type]
    said = text_of(section(read(bundle), "disagreements"))
    assert "different answers on 1 of 3 test rows" in said
    assert said.index("row 1") < said.index("The same answer") < said.index("row 0")
    write_json(bundle / "disagreements.json", disagreements(evidence("classification", teacher, teacher), Shown()))  # type: ignore[arg-type]
    assert "the same answer on all 3 test rows" in text_of(section(read(bundle), "disagreements"))


def test_values_that_differ_are_told_apart_in_their_digits() -> None:
    (item,) = disagreements(evidence("regression", [1003.2], [1003.3]), Shown())["items"]  # type: ignore[arg-type]
    assert (item["teacher"], item["student"]) == ("1003.2", "1003.3")


def test_the_commands_name_no_folder_that_is_elsewhere(bundle: Path) -> None:
    said = text_of(section(read(bundle), "recompute"))
    assert re.findall(r"tutelage (\w+) (\S+)", said) == [("evaluate", "."), ("measure", "."), ("report", ".")]


def test_numbers_of_a_list_share_a_line_and_texts_stay(tmp_path: Path) -> None:
    data = {"samples_ms": [[0.1, 1e-07, -2.5], []], "text": "[1,  2]\n[ 3 ]", "flags": ["a b", "c"], "one": [None, 1]}
    write_json(tmp_path / "x.json", data)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == data and "[0.1,1e-07,-2.5]" in text
