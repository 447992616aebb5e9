from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tutelage as tt
from tutelage.errors import RecipeError
from tutelage.governance.licence import Licence, check_licences, licence_records
from tutelage.recipe_file import dump_recipe
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers import Ensemble, HuggingFaceTeacher, ModuleTeacher, SeveralTeachers, Teacher

DAY = "2026-01-31"
ALLOWED = Licence(use="allowed", basis="MIT, its LICENSE", date=DAY)
UNKNOWN = Licence(use="unknown", basis="no LICENSE in the folder", date=DAY)
ACCEPTED = Licence(use="unknown", basis="no LICENSE in the folder", date=DAY, accept_unknown=True)
FORBIDDEN = Licence(use="disallowed", basis="terms of service, 2.3: no models from outputs", date=DAY)


class Foreign(ModuleTeacher):
    """A network that somebody else made. It may not be loaded before its licence is known to allow it."""

    loaded = False

    @property
    def comes_from_elsewhere(self) -> bool:
        return True

    def load(self, device: torch.device) -> None:
        Foreign.loaded = True
        super().load(device)


class Remembering(Teacher):
    """Asks another teacher and is none itself, as a cache is."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    @property
    def inner(self) -> Mapping[str, Teacher]:
        return {"": self.teacher}

    def load(self, device: torch.device) -> None: ...

    def check(self, request: Request) -> None: ...

    def ask(self, batch: Batch, request: Request) -> Signals:
        return self.teacher.ask(batch, request)

    def fingerprint(self) -> str:
        return self.teacher.fingerprint()


def foreign() -> Foreign:
    Foreign.loaded = False
    made = nn.Linear(4, 3)
    with torch.no_grad():  # a network that knows the labels
        made.weight.copy_(torch.eye(3, 4))
        made.bias.zero_()
    return Foreign(made)


def recipe(teacher: Teacher, licences: dict[str, Licence] | None = None) -> tt.Recipe:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(240, 4)).astype(np.float32)
    return tt.Recipe(
        name="licensed",
        task="classification",
        data=tt.Data(source=tt.Arrays(inputs, inputs[:, :3].argmax(1))),
        teacher=teacher,
        student=tt.ModuleStudent(lambda: nn.Linear(4, 3)),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=3, batch_size=16),
        licences=licences or {},
        export=tt.Export(onnx=False),
        measure=tt.Measure(batch_sizes=[1], rounds=1, seconds=0.05),
    )


def use_of(teacher: Teacher, licences: dict[str, Licence]) -> dict[str, str]:
    return {record.key: record.licence.use for record in licence_records({"teacher": teacher}, licences)}


def test_a_disallowed_teacher_is_refused_with_the_basis_before_it_is_loaded_even_with_the_override() -> None:
    forbidden = Licence(use="disallowed", basis=FORBIDDEN.basis, date=DAY, accept_unknown=True)
    for licence in (FORBIDDEN, forbidden):
        with pytest.raises(RecipeError, match=r"terms of service, 2\.3: no models from outputs \(2026-01-31\)"):
            tt.make_plan(recipe(foreign(), {"teacher": licence}))
    assert not Foreign.loaded


@pytest.mark.parametrize("licences", [{}, {"teacher": UNKNOWN}], ids=["no record", "unknown"])
def test_a_teacher_of_unknown_terms_is_refused_before_it_is_loaded_and_the_message_says_what_to_write(
    licences: dict[str, Licence],
) -> None:
    with pytest.raises(RecipeError, match=r"unknown(.|\n)*accept_unknown: true"):
        tt.make_plan(recipe(foreign(), licences))
    assert not Foreign.loaded


def test_own_work_needs_no_record_and_what_comes_from_elsewhere_does() -> None:
    assert use_of(ModuleTeacher(nn.Identity()), {}) == {"teacher": "allowed"}
    assert use_of(HuggingFaceTeacher("folder"), {}) == {"teacher": "unknown"}
    assert use_of(HuggingFaceTeacher("folder"), {"teacher": ALLOWED}) == {"teacher": "allowed"}


def test_files_servers_and_what_is_remembered_of_them_come_from_elsewhere_and_what_the_run_fits_does_not() -> None:
    from tutelage.teachers import Cached, LightGBMTeacher, OnnxTeacher, OpenAICompatible, OpenInference

    server = OpenInference("http://127.0.0.1:1", "digits", ledger="a.ledger")
    chat = OpenAICompatible("http://127.0.0.1:1", "chat", "{text}", ledger="a.ledger")
    for teacher in (OnnxTeacher("a.onnx"), server, chat, LightGBMTeacher("a.txt")):
        assert use_of(teacher, {}) == use_of(Cached(teacher, "cache"), {}) == {"teacher": "unknown"}, teacher
    assert use_of(LightGBMTeacher("a.txt", fit={}), {}) == {"teacher": "allowed"}
    assert use_of(Cached(ModuleTeacher(nn.Identity()), "cache"), {}) == {"teacher": "allowed"}


def test_a_teacher_that_is_wrapped_is_asked_for_its_own_licence() -> None:
    within = Ensemble([ModuleTeacher(nn.Identity()), Remembering(foreign())])
    several = SeveralTeachers({"mine": within, "theirs": foreign()}, "mine")
    keys = {"teacher.mine.0": "allowed", "teacher.mine.1": "unknown", "teacher.theirs": "unknown"}
    assert use_of(several, {}) == keys
    assert use_of(several, {"teacher.theirs": ALLOWED}) == {**keys, "teacher.theirs": "allowed"}
    with pytest.raises(RecipeError, match=r"licences\.teacher\.mine\.1"):
        check_licences({"teacher": several}, {"teacher.theirs": ALLOWED})


def test_the_nearest_record_holds_so_that_a_general_one_does_not_hide_a_prohibition() -> None:
    several = SeveralTeachers({"a": foreign(), "b": foreign()}, "a")
    check_licences({"teacher": several}, {"teacher": ALLOWED})
    with pytest.raises(RecipeError, match=r"licences\.teacher\.b"):
        check_licences({"teacher": several}, {"teacher": ALLOWED, "teacher.b": FORBIDDEN})


def test_every_teacher_of_a_recipe_needs_its_record() -> None:
    teachers: dict[str, Teacher] = {"teacher": foreign(), "earlier_stages[0].teacher": foreign()}
    with pytest.raises(RecipeError, match=r"licences\.earlier_stages\[0\]\.teacher"):
        check_licences(teachers, {"teacher": ALLOWED})
    check_licences(teachers, {"teacher": ALLOWED, "earlier_stages[0].teacher": ALLOWED})


@pytest.mark.parametrize(
    ("key", "licence", "named"),
    [
        ("techer", ALLOWED, r"licences\.techer(.|\n)*did you mean `teacher`"),
        ("teacher", Licence(use="allowed", basis=" ", date=DAY), r"licences\.teacher\.basis"),
        ("teacher", Licence(use="allowed", basis="MIT", date="31.1.2026"), r"licences\.teacher\.date"),
        ("teacher", Licence(use="allowed", basis="MIT", date=""), r"licences\.teacher\.date"),
    ],
)
def test_a_record_that_holds_for_nobody_or_says_nothing_is_refused(key: str, licence: Licence, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        check_licences({"teacher": foreign()}, {key: licence})


def test_every_record_and_the_override_leave_with_the_bundle(tmp_path: Path) -> None:
    bundle = tt.distill(recipe(foreign(), {"teacher": ACCEPTED}), tmp_path, progress=False).bundle
    stored = json.loads((bundle / "provenance.json").read_text())["licences"]
    assert stored == {
        "teacher": {
            "teacher": "Linear",
            "use": "unknown",
            "basis": "no LICENSE in the folder",
            "date": DAY,
            "stated_in_the_recipe": True,
            "accepted_although_unknown": True,
        }
    }
    card, page = (bundle / "README.md").read_text(), (bundle / "report.html").read_text()
    assert "unknown (no LICENSE in the folder, 2026-01-31); **accepted although it is unknown**" in card
    assert "Learning from teacher (Linear) is unknown: no LICENSE in the folder" in page
    assert "Licences" in page


def test_a_record_is_read_from_yaml_by_the_key_of_a_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = Path(__file__).parents[2] / "recipes"
    path = tmp_path / "recipe.yaml"
    record = '\nlicences: {"teacher.narrow": {use: allowed, basis: MIT, date: "2026-01-31"}}\n'
    path.write_text((recipes / "several_teachers.yaml").read_text() + record)
    monkeypatch.syspath_prepend(str(recipes))
    read = tt.load_recipe(path)
    assert read.licences == {"teacher.narrow": Licence(use="allowed", basis="MIT", date=DAY)}
    path.write_text(dump_recipe(read))
    assert tt.load_recipe(path).licences == read.licences
