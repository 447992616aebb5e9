"""What looking at a recipe may ask of a teacher whose questions cost something."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "ledger"))

from local_server import serving
from test_chat_run import answers, recipe

import tutelage as tt
from tutelage.doctor import describe_plan
from tutelage.labelling import fill_caches
from tutelage.ledger import Caps, Ledger
from tutelage.teachers import Cached, Ensemble, OpenAICompatible, SeveralTeachers, Teacher

WRAPPED: dict[str, Any] = {
    "alone": lambda teacher, folder: teacher,
    "cached": lambda teacher, folder: Cached(teacher, str(folder / "cache")),
    "in an ensemble": lambda teacher, folder: Ensemble([teacher]),
    "one of several, cached": lambda teacher, folder: SeveralTeachers(
        {"chat": Cached(teacher, str(folder / "cache"))}, main="chat"
    ),
}


@pytest.mark.parametrize("way", WRAPPED)
def test_doctor_buys_no_answers_but_to_the_probe_and_two_rows_and_says_how_many(tmp_path: Path, way: str) -> None:
    with serving() as server:
        server.complete = answers(letters=True)  # type: ignore[method-assign]
        made = recipe(server, tmp_path, tt.losses.KLDivergence(1.0))
        teacher: Teacher = WRAPPED[way](made.teacher, tmp_path)
        said = describe_plan(tt.make_plan(replace(made, teacher=teacher)))
        assert len(server.posts()) == 1 + 2
    assert "3 calls were made to look at OpenAICompatible tiny" in said
    assert "without the time to ask OpenAICompatible tiny" in said
    assert "of it the teacher's" not in said


def test_doctor_says_how_many_calls_the_run_takes_and_what_they_cost(tmp_path: Path) -> None:
    with serving() as server:
        server.complete = answers(letters=True)  # type: ignore[method-assign]
        made = recipe(server, tmp_path, tt.losses.KLDivergence(1.0))
        assert isinstance(made.teacher, OpenAICompatible)
        made.teacher.price_in, made.teacher.caps = 3.0, Caps(calls=5000)
        plan = tt.make_plan(replace(made, teacher=Cached(made.teacher, str(tmp_path / "cache"))))
        found = re.search(
            r"questions at most ([\d,]+) calls \(.*some ([\d.]+) in money.*caps.calls 5,000", describe_plan(plan)
        )
        assert found is not None
        fill_caches(plan, progress=False)
        assert len(server.posts()) == 1 + int(found[1].replace(",", ""))  # the probe, and each row once
        assert Ledger(made.teacher.ledger).spent()[2] == pytest.approx(float(found[2]), rel=0.2)
