"""The whole flow: plan -> fit -> evaluate -> export -> measure -> judge -> bundle."""

from __future__ import annotations

import functools
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tutelage.answers import gather_evidence, select_anew, teacher_answers
from tutelage.asking import Round
from tutelage.beat import Phase
from tutelage.bundle import Findings, finish_bundle, write_findings
from tutelage.bundle_reading import evaluate, measure, read_json, report, sound_fields
from tutelage.checks import look_at_teachers
from tutelage.delivery import export_student, measure_models
from tutelage.described import describe
from tutelage.errors import DataError, RunError, TeacherChanged
from tutelage.evaluation.results import MetricResult
from tutelage.evaluation.seeds import seed_summary
from tutelage.evaluation.statistics import evaluate as evaluate_evidence
from tutelage.governance.licence import licence_records
from tutelage.governance.verdict import Verdict, judge
from tutelage.labelling import caches_of, fill_caches, notes_on_caps, open_caches
from tutelage.owned import new_bundle_folder
from tutelage.parts import build_student
from tutelage.plan import Plan, make_plan
from tutelage.portable import Places
from tutelage.recipe import Recipe
from tutelage.recipe_file import dump_recipe
from tutelage.rounds import RECORD, asking_record, first_round, run_rounds
from tutelage.stages import train_assistants, train_baseline, train_student, train_teacher, trainings
from tutelage.students import ParameterCount
from tutelage.teachers.fingerprint import fingerprint_of
from tutelage.training.device import use_device
from tutelage.training.kept import read_done
from tutelage.training.processes import decided, peers
from tutelage.training.progress import rank
from tutelage.training.setup import make_accelerator
from tutelage.training.surroundings import note_on_surroundings, read_surroundings
from tutelage.workspace import Workspace, notes_on_training, write_json

__all__ = ["Result", "distill", "evaluate", "measure", "report"]


TRAINED_BY = (
    *("task", "data", "teacher", "teacher_training", "student", "losses", "training", "select"),
    *("earlier_stages", "assistants", "heads", "asking"),
)
"""What decides the weights: a run whose recipe differs elsewhere keeps its trainings and is judged anew."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `distill` gives: the verdict, and the folder with everything that shows it."""

    verdict: Verdict
    bundle: Path

    @property
    def report(self) -> Path:
        """The page a person reads."""
        return self.bundle / "report.html"

    def metrics(self) -> list[MetricResult]:
        """The metrics in the bundle, with their intervals."""
        with sound_fields(self.bundle):
            return [MetricResult.from_dict(metric) for metric in read_json(self.bundle / "metrics.json")["metrics"]]

    def seeds(self) -> list[dict[str, Any]]:
        """Each seed's own values of the metrics."""
        with sound_fields(self.bundle):
            return list(read_json(self.bundle / "metrics.json")["seeds"])


def distill(recipe: Recipe, out: str | Path | None = None, *, fresh: bool = False, progress: bool = True) -> Result:
    """Distils a teacher into a student and shows whether it meets its budget and policy.

    Called again after a kill, it goes on where it was; called again when it is done, it gives the same result.

    Args:
        recipe: Everything the run is.
        out: The run's folder; by default `runs/NAME`.
        fresh: Remove what an earlier run left there.
        progress: Show what is being done.

    Raises:
        UserError: The recipe, the data or a model is not right; nothing was computed.
        RunError: The training failed; its last checkpoint is kept.
    """
    workspace = Workspace(Path(out) if out is not None else Path("runs") / recipe.name)
    use_device(recipe.device)
    with peers(), ExitStack() as held:
        say = _Narrator(progress)
        decided(lambda: workspace.check(fresh=fresh))
        with say.phase("plan"):
            plan = make_plan(recipe)
        _require_same_data(plan)
        if recipe.export.onnx and decided(lambda: fresh or not workspace.begun):
            with say.phase("export of the untrained student, to see that it works"):
                decided(plan.rehearse)
        decided(lambda: held.enter_context(workspace.locked()))
        before, test_changed = decided(lambda: _claim(plan, workspace, fresh=fresh))
        if before:
            say(f"going on with the run in {workspace.folder}")
        if test_changed:
            say("the test rows have changed since: what was trained is kept, and all is evaluated on them anew")
        if decided(lambda: _is_complete(plan, workspace)):
            say(f"this run is complete: {workspace.bundle}")
            return _finished(workspace)
        for note in (*plan.notes, *notes_on_caps(plan)):
            say(f"note: {note}")
        return _run(plan, workspace, say, progress=progress)


def _require_same_data(plan: Plan) -> None:
    """Refuses to train together on rows that are not the same: each process reads them itself."""
    if decided(lambda: plan.data.fingerprint) != plan.data.fingerprint:
        raise RunError("this process has read other data than the first one: give all of them the same files")


def _claim(plan: Plan, workspace: Workspace, *, fresh: bool) -> tuple[bool, bool]:
    """Makes the folder this run's own, and says whether it was so before, with other test rows."""
    if fresh:
        workspace.clear()
    recipe, before = plan.recipe, workspace.work.exists()
    learnt_from = plan.data.learnt_from
    if plan.teacher_data is not None and plan.teacher_data is not plan.data:
        learnt_from |= {f"{name} of the teacher": sha for name, sha in plan.teacher_data.learnt_from.items()}
    test_changed = workspace.claim(
        dump_recipe(recipe, only=TRAINED_BY, decisive=True),
        {
            "data": plan.data.fingerprint,
            "inputs": plan.data.inputs_fingerprint,
            **_fingerprints(recipe),
            "student": fingerprint_of(build_student(recipe, recipe.seeds[0], plan.device)),
        },
        learnt_from,
    )
    return before, test_changed


def _fingerprints(recipe: Recipe) -> dict[str, str]:
    """The fingerprint of each teacher that is there before the run, by its key."""
    return {key: teacher.fingerprint() for key, teacher in recipe.teachers().items()}


def _is_complete(plan: Plan, workspace: Workspace) -> bool:
    """Whether the bundle is that of this very recipe and data; where only its judgement differs, it is made again.

    Raises:
        DataError: It is, but it has changed since it was judged.
    """
    bundle = workspace.bundle
    if not ((bundle / "verdict.json").exists() and (bundle / "recipe.yaml").exists()):
        return False
    if (bundle / "recipe.yaml").read_bytes() != dump_recipe(plan.recipe, portable=True).encode():
        return False
    _, differences = evaluate(bundle)
    if differences:
        raise DataError(
            str(bundle),
            expected="the bundle that this run made",
            found="; ".join(differences[:6]),
            harm="the verdict in it may not be that of its student",
            mend="restore what was changed; or remove the folder: the same command makes it again, and trains nothing",
        )
    with sound_fields(bundle):
        return bool(read_json(bundle / "provenance.json")["data"]["fingerprint"] == plan.data.fingerprint)


class _Narrator:
    """Says on standard error what the run is doing, on the main process."""

    def __init__(self, on: bool) -> None:
        self.on = on and make_accelerator().is_main_process

    def __call__(self, text: str) -> None:
        if self.on:
            tqdm.write(f"tutelage: {text}", file=sys.stderr)

    def phase(self, text: str) -> Phase:
        """Says what begins, and every half minute that it goes on."""
        self(text)
        return Phase(text, on=self.on)


def _finished(workspace: Workspace) -> Result:
    with sound_fields(workspace.bundle):
        verdict = Verdict.from_dict(read_json(workspace.bundle / "verdict.json"))
    return Result(verdict=verdict, bundle=workspace.bundle)


def _run(plan: Plan, workspace: Workspace, say: _Narrator, *, progress: bool) -> Result:
    """Everything after the plan."""
    recipe, teacher = plan.recipe, plan.recipe.teacher
    accelerator = make_accelerator()
    show = progress and accelerator.is_main_process
    if recipe.teacher_training is not None:
        train_teacher(plan, workspace, progress=show)
    before = _fingerprints(recipe)
    _label(plan if recipe.asking is None else first_round(plan), say, progress=show)
    development = plan.data.rows("development")
    with Phase("the teacher's answers to the development split", on=say.on):
        says = decided(lambda: teacher_answers(teacher, plan.data, development, plan.device, plan.chunk))
    for note in (skewed := select_anew(plan, says)):
        say(f"note: {note}")
    with Phase("the teacher is held against labels", on=say.on):
        looks = look_at_teachers(recipe, plan.data, plan.device, before=False, only=plan.later)
    for line in (*looks.lines, *looks.notes):
        say(f"teacher: {line}")
    doubts = [*plan.doubts, *looks.doubts]
    taught, rounds = plan, list[Round]()
    if recipe.asking is not None:
        label = functools.partial(_label, say=say, progress=show)
        taught, rounds = run_rounds(plan, workspace, says, label=label, progress=show)
    train_assistants(taught, workspace, says, progress=show)
    students, baselines = {}, {}
    for seed in recipe.seeds:
        students[seed] = train_student(taught, workspace, seed, says, progress=show)
        if plan.has_baseline:  # labels cost no question: it has them all, for as many steps
            baselines[seed] = train_baseline(replace(taught, data=plan.data), workspace, seed, says, progress=show)
    changed = [key for key, fingerprint in _fingerprints(recipe).items() if fingerprint != before[key]]
    if changed:
        raise TeacherChanged(
            f"the weights of {', '.join(changed)} changed during the run: no student of it can be trusted"
        )
    if accelerator.is_main_process:
        untaught = notes_on_training(workspace.histories(trainings(plan)))
        for note in untaught:
            say(f"note: {note}")
        partial = new_bundle_folder(workspace.work)
        shipped = _best_seed(plan, workspace)
        with say.phase("evaluate on the test split") as phase:
            sets = gather_evidence(plan, students, baselines, shipped)
            left_out = len(plan.data.rows("test")) - len(sets[0])
            phase.at("metrics and their intervals")
            metrics = [metric for evidence in sets for metric in evaluate_evidence(evidence)]
        with say.phase("export"):
            export, teacher_onnx, notes = export_student(plan, students[shipped], partial, workspace.work)
        with say.phase("measure latency, memory and size"):
            student_onnx = partial / "model.onnx" if export["onnx"] is not None else None
            cost, unmeasured = measure_models(plan, students[shipped], student_onnx, teacher_onnx)
        findings = Findings(
            sets=sets,
            metrics=metrics,
            seeds=seed_summary(sets),
            cost=cost,
            export=export,
            verdict=judge(metrics, cost, recipe.policy, recipe.budget, export, sets=sets, doubts=doubts),
            doubts=doubts,
            notes=[
                *(note for note in plan.notes if note not in notes),
                *looks.notes,
                *skewed,
                *untaught,
                *filter(None, [note_on_surroundings(read_surroundings(workspace.work))]),
                *_note_on_earlier(workspace.earlier_data()),
                *notes,
                *unmeasured,
                *([_silent(left_out)] if left_out else []),
            ],
        )
        if rounds:
            write_json(partial / RECORD, asking_record(plan, rounds))
        with say.phase("write the bundle"):
            _write(plan, workspace, partial, findings, before["teacher"])
    accelerator.wait_for_everyone()
    return _finished(workspace)


def _note_on_earlier(data: list[str]) -> list[str]:
    if not data:
        return []
    was = ", ".join(fingerprint[:12] for fingerprint in data)
    return [
        "the test rows were changed after the training had begun: the students are those of before, and the evaluation "
        f"is on the rows as they are now (fingerprint of the data before each change: {was})"
    ]


def _silent(rows: int) -> str:
    return f"test rows without an answer of the teacher: {rows:,}; they are left out of the evaluation for all models"


def _label(plan: Plan, say: _Narrator, *, progress: bool) -> None:
    """Has the cached teachers answer what the run will ask; one process asks, the others wait and read."""
    accelerator = make_accelerator()
    if not caches_of(plan.recipe):
        return
    if accelerator.is_main_process:
        for filled in fill_caches(plan, progress=progress):
            say(f"teacher's answers in {filled}")
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        open_caches(plan)


def _best_seed(plan: Plan, workspace: Workspace) -> int:
    """The seed whose student was best on the development split."""

    def development(seed: int) -> dict[str, float]:
        return dict(read_done(workspace.stage("student", seed))["development"])

    return max(plan.recipe.seeds, key=lambda seed: rank(development(seed), plan.selection.directions))


def _write(plan: Plan, workspace: Workspace, partial: Path, findings: Findings, teacher_digest: str) -> None:
    """Writes the bundle, page and all, and moves it to its place."""
    recipe = plan.recipe
    places = Places(describe(recipe), recipe.folder)
    findings = replace(findings, notes=places.told(findings.notes))
    (partial / "recipe.yaml").write_text(dump_recipe(recipe, portable=True), encoding="utf-8")
    write_findings(partial, findings, task=recipe.task, data=plan.data, histories=workspace.histories(trainings(plan)))
    provenance = {
        "name": recipe.name,
        "teacher": {
            "description": places.told(recipe.teacher.describe()),
            "fingerprint": teacher_digest,
            "parameters": _counts(plan.teacher_parameters),
        },
        "licences": {
            record.key: places.told(record.to_dict()) for record in licence_records(recipe.teachers(), recipe.licences)
        },
        "student": {
            "description": type(recipe.student).__name__,
            "parameters": _counts(plan.student_parameters),
        },
        "data": {
            "fingerprint": plan.data.fingerprint,
            "learnt_from": plan.data.learnt_from,
            "earlier_fingerprints": workspace.earlier_data(),
            "rows": dict(plan.data.sizes),
            "labelled_training_rows": len(plan.data.labelled_rows),
            "made_training_rows": plan.data.made_counts,
            "classes": list(plan.classes),
        },
        "trainings": read_surroundings(workspace.work),
    }
    finish_bundle(partial, workspace, provenance, findings)


def _counts(count: ParameterCount | None) -> dict[str, int] | None:
    return None if count is None else {"total": count.total, "embedding": count.embedding}
