"""Recipes that leave pairs of layers open: what is proposed, what is trained on, what is stored, what is refused."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import tutelage as tt
from tutelage.cli import main
from tutelage.errors import ModelError, RecipeError, UserError
from tutelage.losses import AttentionTransfer, Hint, KLDivergence, all_losses
from tutelage.losses.layer_pairs import PairedLoss
from tutelage.losses.routed import Routed
from tutelage.matching import propose_for
from tutelage.plan import propose_pairs
from tutelage.recipe import Assistant, Match, Stage
from tutelage.recipe_file import build_recipe, dump_recipe
from tutelage.teachers import SeveralTeachers
from tutelage.transfer import TransferSet

RECIPES = Path(__file__).parents[2] / "recipes"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _find_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))


def perceptron(*widths: int) -> nn.Module:
    layers = [x for a, b in itertools.pairwise(widths) for x in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def recipe(**changes: Any) -> tt.Recipe:
    """A teacher with four hidden layers, `1`, `3`, `5`, `7`, and a student with two, `1`, `3`."""
    inputs = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    settings = {
        "name": "open",
        "task": "classification",
        "data": tt.Data(source=tt.Arrays(inputs, np.arange(60) % 3)),
        "teacher": tt.ModuleTeacher(perceptron(4, 8, 8, 8, 8, 3)),
        "student": tt.ModuleStudent(lambda: perceptron(4, 5, 5, 3)),
        "losses": [KLDivergence(), Hint("auto")],
        "training": tt.Training(steps=2, batch_size=8),
    }
    return tt.Recipe(**(settings | changes))


def proposed(name: str, *overrides: str) -> dict[str, str]:
    """The pairs for the first loss between layers of a recipe; where it has none, for any."""
    return propose_pairs(tt.load_recipe(RECIPES / f"{name}.yaml", overrides))[-1].layers


@pytest.mark.parametrize("by", ["stage", "depth", "cka"])
def test_the_networks_for_pictures_are_paired_at_the_ends_of_their_stages(by: str) -> None:
    short = ["--data.limit", "600", "--data.labelled", "200", "--match.by", by]
    assert proposed("fashion", *short) == {"low": "low", "high": "high"}


@pytest.mark.parametrize("by", ["stage", "depth", "cka"])
def test_perceptrons_are_paired_at_their_hidden_layer(by: str) -> None:
    assert proposed("digits", "--match.by", by) == {"hidden": "hidden"}


@pytest.fixture(scope="module")
def minilm() -> tuple[tt.Recipe, TransferSet]:
    """The recipe with its teacher loaded, and its sentences."""
    made = tt.load_recipe(RECIPES / "minilm.yaml", ["--data.limit", "1000"])
    made.teacher.load(CPU)
    return made, made.data.load(made.teacher.tokenizer_folder)


def proposed_for(minilm: tuple[tt.Recipe, TransferSet], layers: list[int], by: Any) -> list[tuple[int, int]]:
    made, data = minilm
    student = tt.CutStudent(layers, dropout=0.0)
    changed = dataclasses.replace(made, student=student, match=Match(by=by))
    found = propose_for(changed, made.teacher, student.build(made.teacher), data, CPU, trained=True)[0].layers
    assert all(path.startswith("model.encoder.layer.") for pair in found.items() for path in pair)
    return [(int(ours.rpartition(".")[2]), int(theirs.rpartition(".")[2])) for ours, theirs in found.items()]


@pytest.mark.parametrize("by", ["stage", "depth"])
def test_of_six_layers_every_second_is_the_counterpart_of_three(minilm: tuple[tt.Recipe, TransferSet], by: str) -> None:
    assert proposed_for(minilm, [0, 2, 5], by) == [(0, 1), (1, 3), (2, 5)]


@pytest.mark.parametrize("cut", [[0, 2, 5], [0, 1, 2, 3], [0]])
def test_cka_finds_the_layers_that_a_student_was_cut_from(
    minilm: tuple[tt.Recipe, TransferSet], cut: list[int]
) -> None:
    assert proposed_for(minilm, cut, "cka") == list(enumerate(cut))


def test_peers_are_matched_at_the_one_that_is_delivered() -> None:
    assert proposed("mutual") == {"peers.0.hidden": "hidden"}


def test_a_head_for_another_task_is_not_paired() -> None:
    assert proposed("multitask") == {"hidden": "hidden"}


@pytest.mark.parametrize("match", [Match(count=2), "auto", Match(by="depth")])
def test_the_plan_trains_on_pairs_and_leaves_the_recipe_as_it_is(match: Any) -> None:
    given = recipe(match=match)
    plan = tt.make_plan(given)
    assert plan.recipe.losses[1].pairs == plan.losses[1].pairs == {"1": "3", "3": "7"}
    assert plan.losses[1].needs.student.features == {"1", "3"}
    assert given.losses[1].is_open
    assert [note for note in plan.notes if "->" in note] == ["losses[1] (Hint): pairs by depth: 1 -> 3, 3 -> 7"]


def test_fewer_pairs_are_spread_over_the_depth() -> None:
    assert tt.make_plan(recipe(match=Match(count=1))).losses[1].pairs == {"3": "7"}


@pytest.mark.parametrize(
    ("ours", "theirs", "count", "expected"),
    [
        (3, 6, None, [(1, 2), (2, 4), (3, 6)]),
        (2, 3, None, [(1, 2), (2, 3)]),  # 1/2 lies between 1/3 and 2/3: the deeper one
        (3, 2, None, [(2, 1), (3, 2)]),  # a student that is deeper: no layer is paired twice
        (6, 12, 3, [(2, 4), (4, 8), (6, 12)]),
        (5, 7, 3, [(2, 2), (3, 5), (5, 7)]),
    ],
)
def test_depth_pairs_the_layers_at_the_nearest_share(
    ours: int, theirs: int, count: int | None, expected: list[tuple[int, int]]
) -> None:
    changed = recipe(
        teacher=tt.ModuleTeacher(perceptron(4, *[8] * theirs, 3)),
        student=tt.ModuleStudent(lambda: perceptron(4, *[5] * ours, 3)),
        match=Match(by="depth", count=count),
    )
    pairs = tt.make_plan(changed).losses[1].pairs  # layer k of the network is module 2k - 1
    assert [((int(i) + 1) // 2, (int(j) + 1) // 2) for i, j in pairs.items()] == expected


def test_each_kind_of_loss_gets_layers_that_it_can_compare() -> None:
    """The kind of which there are most are vectors here; attention maps need maps."""

    def network(channels: int) -> nn.Module:
        vectors = [nn.Linear(16 * channels, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)]
        return nn.Sequential(nn.Conv2d(1, channels, 3, 2, 1), nn.Flatten(), *vectors)

    pictures = np.random.default_rng(0).random(size=(60, 1, 8, 8)).astype(np.float32)
    changed = recipe(
        data=tt.Data(source=tt.Arrays(pictures, np.arange(60) % 3)),
        teacher=tt.ModuleTeacher(network(4)),
        student=tt.ModuleStudent(lambda: network(2)),
        losses=[Hint("auto"), AttentionTransfer("auto")],
    )
    losses = tt.make_plan(changed).losses
    assert [loss.pairs for loss in losses] == [{"3": "3", "5": "5"}, {"0": "0"}]


def test_earlier_stages_are_matched_with_their_own_teacher() -> None:
    checkpoint = tt.ModuleTeacher(perceptron(4, 6, 6, 3))
    stage = Stage(losses=[Hint("auto")], training=tt.Training(steps=1, batch_size=8), teacher=checkpoint)
    plan = tt.make_plan(recipe(earlier_stages=[stage], losses=[Hint("auto")]))
    assert [lesson.losses[0].pairs for lesson in plan.lessons] == [{"1": "1", "3": "3"}, {"1": "3", "3": "7"}]
    assert plan.recipe.earlier_stages[0].losses[0].pairs == {"1": "1", "3": "3"}


def test_generations_that_learn_from_other_models_are_stored_with_pairs_of_their_own() -> None:
    assistant = Assistant(student=tt.ModuleStudent(lambda: perceptron(4, 6, 6, 3)), generations=2)
    plan = tt.make_plan(recipe(assistants=[assistant]))
    assert [found.layers for found in plan.proposals] == [
        {"1": "3", "3": "7"},  # the first generation from the teacher
        {"1": "1", "3": "3"},  # the second from the first
        {"1": "1", "3": "3"},  # the student from the second
    ]
    stored = plan.recipe.assistants
    assert [(one.generations, one.losses[1].pairs) for one in stored] == [
        (1, {"1": "3", "3": "7"}),
        (1, {"1": "1", "3": "3"}),
    ]
    again = tt.make_plan(plan.recipe)
    assert len(again.assistants) == len(plan.assistants) == 2
    assert dump_recipe(again.recipe) == dump_recipe(plan.recipe)


def test_a_loss_that_hears_one_of_several_teachers_is_matched_with_that_one() -> None:
    teachers = {"wide": tt.ModuleTeacher(perceptron(4, 9, 3)), "deep": tt.ModuleTeacher(perceptron(4, 8, 8, 8, 8, 3))}
    losses = [KLDivergence(), Routed(Hint("auto"), member="deep"), Hint("auto")]
    plan = tt.make_plan(recipe(teacher=SeveralTeachers(teachers, main="wide"), losses=losses))
    assert plan.losses[1].loss.pairs == {"1": "3", "3": "7"}
    assert plan.losses[2].pairs == {"3": "1"}
    assert losses[1].loss.is_open


STAGES = [
    *("--losses.2.pairs", "auto", "--earlier_stages.0.losses.0.pairs", "auto", "--earlier_stages.0.training.steps"),
    *("3", "--training.steps", "3", "--teacher_training", "{steps: 3, batch_size: 64}", "--measure.seconds", "0.5"),
]


def test_a_bundle_holds_the_pairs_and_both_recipes_are_the_same_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert main(["distill", str(RECIPES / "stages.yaml"), *out, *STAGES]) in (0, 1, 3)
    assert "pairs by depth: hidden -> hidden" in capsys.readouterr().err
    written = tmp_path / "run" / "bundle" / "recipe.yaml"
    stored = yaml.safe_load(written.read_text())
    assert stored["losses"][2]["init_args"]["pairs"] == {"hidden": "hidden"}
    assert stored["earlier_stages"][0]["losses"][0]["init_args"]["pairs"] == {"hidden": "hidden"}
    for again in ([str(RECIPES / "stages.yaml"), *STAGES], [str(written)]):
        assert main(["distill", *again, *out]) in (0, 1, 3)
        assert "this run is complete" in capsys.readouterr().err


def test_other_pairs_are_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tutelage.pipeline import _claim
    from tutelage.workspace import Workspace

    def claim(match: Match) -> None:
        changed = recipe(match=match, teacher=teacher)
        _claim(tt.make_plan(changed), Workspace(tmp_path), fresh=False)

    teacher = tt.ModuleTeacher(perceptron(4, 8, 8, 8, 8, 3))
    claim(Match())
    claim(Match(by="depth", count=2, rows=99))  # other words for the same pairs
    (tmp_path / "work" / "student-0").mkdir()  # a training has begun: before, it might be another run
    (tmp_path / "work" / "student-0" / "history.jsonl").touch()
    claim(Match(by="depth", count=2, rows=99))
    with pytest.raises(RecipeError, match="the work of another one"):
        claim(Match(count=1))


def test_the_line_that_is_shown_is_the_one_that_a_recipe_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """Paths of digits are the catch: as numbers they would be no paths."""
    plan = tt.make_plan(recipe())
    line = plan.proposals[0].table().splitlines()[-1].strip()
    pasted = yaml.safe_load(line)["pairs"]
    data = yaml.safe_load((RECIPES / "stages.yaml").read_text())
    data["losses"][2]["init_args"]["pairs"] = pasted
    assert build_recipe(data).losses[2].pairs == plan.losses[1].pairs == {"1": "3", "3": "7"}


def test_doctor_shows_the_table_of_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(RECIPES / "stages.yaml"), "--no-forecast", "--losses.2.pairs", "auto"]) == 0
    shown = capsys.readouterr().out
    assert "losses[2] (Hint): pairs by depth" in shown
    assert "hidden   (12,)  hidden   (512,)" in shown
    assert "pairs: {hidden: hidden}" in shown


def test_match_proposes_for_any_recipe_and_says_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--losses.2.pairs", "{hidden: no.such.layer}"]  # what it is to be mended with has to be seen
    assert main(["match", "--by", "cka", str(RECIPES / "stages.yaml"), "--count", "1", *wrong]) == 0
    shown = capsys.readouterr().out
    assert "student and teacher: pairs by cka" in shown
    assert "before the teacher is trained" in shown
    assert "losses[2] (Hint): pairs: {hidden: no.such.layer}" in shown
    assert "earlier_stages[0].losses[0] (Hint): pairs: {hidden: hidden}" in shown


TEACHER_TRAINING = tt.Training(steps=2, batch_size=8)


def warned(given: tt.Recipe) -> list[bool]:
    """For the pairs of each assistant and of the student, whether it is said that their teacher is not trained yet."""
    in_plan, in_match = tt.make_plan(given).proposals, propose_pairs(given)
    found, again = ([any("before the teacher" in note for note in p.notes) for p in x] for x in (in_plan, in_match))
    assert found == again
    assert sum(found) == sum("before the teacher" in note for note in tt.make_plan(given).notes)
    return found


def test_cka_is_a_warning_where_who_teaches_is_trained_in_the_run_and_nowhere_else() -> None:
    """The first assistant learns from the teacher itself; what comes later learns from what the run has made."""
    assistant = Assistant(student=tt.ModuleStudent(lambda: perceptron(4, 6, 6, 3)), generations=2)
    cka = Match(by="cka")
    assert warned(recipe(match=cka)) == [False]
    assert warned(recipe(match=cka, teacher_training=TEACHER_TRAINING)) == [True]
    assert warned(recipe(match=cka, assistants=[assistant])) == [False, True, True]
    assert warned(recipe(match=cka, assistants=[assistant], teacher_training=TEACHER_TRAINING)) == [True, True, True]
    assert warned(recipe(assistants=[assistant], teacher_training=TEACHER_TRAINING)) == [False, False, False]


def test_a_stage_whose_own_teacher_is_ready_is_not_warned_of() -> None:
    checkpoint = tt.ModuleTeacher(perceptron(4, 6, 6, 3))
    stage = Stage(losses=[Hint("auto")], training=tt.Training(steps=1, batch_size=8), teacher=checkpoint)
    given = recipe(match=Match(by="cka"), earlier_stages=[stage], teacher_training=TEACHER_TRAINING)
    assert warned(given) == [False, True]


def refusal(changed: tt.Recipe, kind: type[UserError]) -> str:
    with pytest.raises(kind) as error:
        tt.make_plan(changed)
    for part in ("expected:", "found:", "harm:", "mend:"):
        assert part in str(error.value), error.value
    return str(error.value)


def test_a_teacher_without_layers_is_refused() -> None:
    ensemble = tt.Ensemble([tt.ModuleTeacher(perceptron(4, 6, 3)), tt.ModuleTeacher(perceptron(4, 6, 3))])
    assert "a teacher that is one torch module" in refusal(recipe(teacher=ensemble), RecipeError)


def test_models_without_counterparts_are_refused() -> None:
    said = refusal(recipe(losses=[AttentionTransfer("auto")]), ModelError)
    assert "layers with maps" in said and "losses[0] (AttentionTransfer)" in said
    assert "none in the student" in refusal(recipe(student=tt.ModuleStudent(lambda: perceptron(4, 3))), ModelError)


def test_stages_of_other_sizes_are_refused() -> None:
    def network(stride: int) -> nn.Module:
        head = nn.Linear(2 * (16 // stride) ** 2, 3)
        return nn.Sequential(nn.Conv2d(1, 2, 3, stride, 1), nn.Conv2d(2, 2, 3, 2, 1), nn.Flatten(), head)

    pictures = np.random.default_rng(0).random(size=(60, 1, 32, 32)).astype(np.float32)
    changed = recipe(
        data=tt.Data(source=tt.Arrays(pictures, np.arange(60) % 3)),
        teacher=tt.ModuleTeacher(network(4)),
        student=tt.ModuleStudent(lambda: network(1)),
        losses=[AttentionTransfer("auto")],
    )
    assert "maps of 32x32, 16x16 in the student, 8x8, 4x4 in the teacher" in refusal(changed, ModelError)


@pytest.mark.parametrize("by", ["stage", "depth", "cka"])
def test_more_pairs_than_there_can_be_are_refused(by: Any) -> None:
    assert "at most 2" in refusal(recipe(match=Match(by=by, count=3)), RecipeError)


def test_a_student_that_teaches_itself_is_not_matched_with_itself() -> None:
    routed = Routed(Hint("auto"), teacher_model="student")
    assert "where the student teaches itself" in refusal(recipe(losses=[KLDivergence(), routed]), RecipeError)


def test_a_loss_whose_pairs_are_open_compares_nothing() -> None:
    for loss in (Hint("auto"), Routed(Hint("auto"))):
        with pytest.raises(RecipeError, match="auto, for which no layers have been looked for"):
            _ = loss.needs
    assert Hint("auto").with_pairs({"a": "b"}).needs.student.features == {"a"}


PAIRED = {name: kind for name, kind in all_losses().items() if issubclass(kind, PairedLoss)}


@pytest.mark.parametrize("name", PAIRED)
def test_a_recipe_may_leave_pairs_open_just_where_the_loss_takes_what_is_found(name: str) -> None:
    required = {
        "SoftmaxRegression": {"classifier": "output"},
        "AttentionMap": {"student_heads": 2, "teacher_heads": 2},
    }
    arguments = {"pairs": "auto"} | required.get(name, {})
    term = {"class_path": name, "init_args": arguments}
    data = yaml.safe_load((RECIPES / "stages.yaml").read_text()) | {"losses": [term]}
    if PAIRED[name].compares:
        assert build_recipe(data).losses[0].is_open
    else:
        with pytest.raises(RecipeError, match="pairs"):
            build_recipe(data)
        with pytest.raises(ValueError, match="must be written out"):
            PAIRED[name](**arguments)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["--losses.2.pairs", "atuo"], "keys and values or one of auto"),
        (["--match.by", "depht"], "did you mean `depth`?"),
        (["--match", "atuo"], "auto"),
        (["--match.count", "0"], "at least 1"),
        (["--match.rows", "3"], "at least 4"),
    ],
)
def test_words_that_mean_nothing_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(RecipeError) as error:
        tt.load_recipe(RECIPES / "stages.yaml", overrides)
    assert said in str(error.value)


@pytest.mark.parametrize("match", ["auto", {"by": "cka", "count": 2}])
def test_open_pairs_are_written_and_read_as_they_are(match: Any) -> None:
    data = yaml.safe_load((RECIPES / "stages.yaml").read_text()) | {"match": match}
    data["losses"][2]["init_args"]["pairs"] = "auto"
    written = dump_recipe(build_recipe(data))
    stored = yaml.safe_load(written)
    assert stored["losses"][2]["init_args"]["pairs"] == "auto"
    assert stored["match"] == (match if match == "auto" else {**dataclasses.asdict(Match()), **match})
    assert dump_recipe(build_recipe(stored)) == written
