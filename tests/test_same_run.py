"""What may be changed between two calls of the same command: all that can't change the student."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "ledger"))

from local_server import serving
from test_chat_run import answers, recipe

import tutelage as tt
from tutelage.doctor import describe_plan
from tutelage.errors import CapReached, RecipeError
from tutelage.ledger import Asking, Caps
from tutelage.recipe_file import dump_recipe
from tutelage.teachers import Cached, ModuleTeacher, OpenAICompatible, OpenInference, Teacher
from tutelage.teachers.source import source_digest
from tutelage.training import Training
from tutelage.typed import family
from tutelage.workspace import Workspace


def test_what_a_class_calls_incidental_is_an_argument_of_it() -> None:
    """Catches a misspelt name, which would be part of a run's identity again."""
    kinds = [kind for kind in family(Teacher).values() if kind.__module__.startswith("tutelage.")]
    named = {"caps", "asking", "ledger", "price_in", "price_out", "price_call", "key_variable"}
    for kind in kinds:
        arguments = set(inspect.signature(kind).parameters)
        one = object.__new__(kind)
        one.features = "float16"  # type: ignore[attr-defined]  # what `Cached` looks at
        assert set(one.incidental) <= arguments, kind
        assert named & arguments <= set(one.incidental), kind  # a new remote teacher that forgets them
    assert set(Training.incidental) <= set(inspect.signature(Training).parameters)


def test_a_raised_cap_and_all_that_changes_no_answer_is_the_same_run_and_another_prompt_is_not(tmp_path: Path) -> None:
    """Catches the refusal of what the message of a reached cap advises."""
    with serving() as server:
        server.complete = answers(letters=True)  # type: ignore[method-assign]
        made = recipe(server, tmp_path, tt.losses.KLDivergence(1.0), caps=Caps(calls=60))
        made.training = Training(steps=6, batch_size=16)
        said = describe_plan(tt.make_plan(made), with_forecast=False)
        # 6 steps of 16 rows, 27 of development, 57 of test and the first 2; two of these and a probe were asked
        assert "caps.calls 60 will stop the run: 179 calls are still to be made" in said, said
        assert "come to about 182 calls with the 3 so far" in said
        with pytest.raises(CapReached, match=r"raise `caps\.calls`, then run the same command again"):
            tt.distill(made, tmp_path / "run", progress=False)
        moved = shutil.move(tmp_path / "l.sqlite", tmp_path / "elsewhere.sqlite")
        for name in ("l.sqlite-wal", "l.sqlite-shm"):
            if (tmp_path / name).exists():
                shutil.move(tmp_path / name, tmp_path / name.replace("l.", "elsewhere."))
        assert isinstance(made.teacher, OpenAICompatible)
        teacher = OpenAICompatible(
            made.teacher.url,
            made.teacher.model,
            made.teacher.prompt,
            ledger=str(moved),
            unanswered=0.1,
            caps=Caps(calls=5000, money=9.0, tokens=10**6, seconds=600.0),
            asking=Asking(concurrent=2, requests_per_minute=10**6, timeout=20.0, attempts=3, first_wait=0.02),
            price_in=0.1,
            price_out=0.2,
        )
        training = Training(steps=6, batch_size=16, checkpoint_seconds=2.0, log_every=3)
        assert "will stop the run" not in describe_plan(
            tt.make_plan(replace(made, teacher=teacher)), with_forecast=False
        )
        before = len(server.posts())
        again = replace(made, teacher=teacher, training=training, chunk=32)
        assert tt.distill(again, tmp_path / "run", progress=False).bundle.is_dir()
        assert before >= 60 and len(server.posts()) <= 183  # nothing was asked twice
        stored = tmp_path / "run" / "bundle" / "recipe.yaml"
        assert "calls: 5000" in stored.read_text()  # what is delivered says all of it
        teacher.prompt = "Is this {headline}?"
        with pytest.raises(RecipeError, match="Is this"):
            tt.distill(replace(again, teacher=teacher), tmp_path / "run", progress=False)


def test_a_cap_on_money_is_held_against_the_mean_of_the_calls_so_far(tmp_path: Path) -> None:
    with serving() as server:
        server.complete = answers(letters=True)  # type: ignore[method-assign]
        made = recipe(server, tmp_path, tt.losses.KLDivergence(1.0), price_in=1000.0, price_out=1000.0)
        assert isinstance(made.teacher, OpenAICompatible)
        # 31 tokens at 0.001 for each call: the training asks about every row, 240 calls in all
        for money, tokens, warned in ((7.4, 8000, ["money"]), (7.5, 7400, ["tokens"]), (7.5, 7500, [])):
            made.teacher.caps = Caps(money=money, tokens=tokens)
            settings = inspect.signature(OpenAICompatible).parameters
            teacher = OpenAICompatible(**{name: getattr(made.teacher, name) for name in settings})
            said = describe_plan(tt.make_plan(replace(made, teacher=teacher)), with_forecast=False)
            assert re.findall(r"caps\.(\w+) [\d.,]+ will stop the run", said) == warned, said


def test_settings_that_decide_weights_stay_in_the_identity_of_a_run() -> None:
    """Catches an identity that lets too much pass: another temperature, another form, fewer steps."""

    def identity(**changes: object) -> str:
        cached = Cached(ModuleTeacher(lambda: None), "a", **changes)  # type: ignore[arg-type]
        return dump_recipe(cached, decisive=True)  # type: ignore[arg-type]

    same = identity()
    assert identity(lazy=True) == identity(shard_rows=7) == same
    for change in ({"form": "float16"}, {"features": "int8"}, {"temperatures": [1.0, 4.0]}, {"rank": 3}):
        assert identity(**change) != same
    low = identity(features="low_rank")
    assert identity(features="low_rank", shard_rows=7) != low  # the components are fitted on the first shard
    training = dump_recipe(Training(steps=5), decisive=True)  # type: ignore[arg-type]
    assert dump_recipe(Training(steps=5, log_every=1, checkpoint_seconds=1.0), decisive=True) == training  # type: ignore[arg-type]
    for other in (Training(steps=6), Training(steps=5, evaluate_every=2), Training(steps=5, patience=1)):
        assert dump_recipe(other, decisive=True) != training  # type: ignore[arg-type]


def test_a_raised_cap_wakes_no_lazy_teacher_and_another_url_does() -> None:
    """Catches a digest of caps, or of the ledger's own file, which changes with each answer."""
    one = OpenInference("http://a", "m", ledger="l", caps=Caps(calls=1), asking=Asking())
    two = OpenInference("http://a", "m", ledger="k", caps=Caps(calls=2), price_call=1.0)
    other = OpenInference("http://b", "m", ledger="l", caps=Caps(calls=1))
    assert source_digest(one) == source_digest(two) != source_digest(other) != ""


def test_data_mended_before_any_training_go_on_in_the_same_folder_and_are_refused_after_it_began(
    tmp_path: Path,
) -> None:
    """Catches a run that demands --fresh although there is nothing yet that other data could be mixed with."""
    workspace = Workspace(tmp_path)
    workspace.claim("recipe", {"data": "damaged"})  # and then labelling failed
    workspace.stage("student", 0)
    workspace.claim("recipe", {"data": "mended"})
    workspace.claim("recipe, mended too", {"data": "mended"})
    checkpoint = workspace.stage("student", 0) / "checkpoint"  # its history may be gone
    checkpoint.write_text("weights")
    workspace.claim("recipe, mended too", {"data": "mended"})
    for recipe_now, data in (("recipe", "mended"), ("recipe, mended too", "damaged")):
        with pytest.raises(RecipeError, match="give another --out"):
            workspace.claim(recipe_now, {"data": data})
