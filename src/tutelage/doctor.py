"""The plan, the cost and what distillation gained as text, for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tutelage.beat import duration
from tutelage.devices.cost import Cost, significant
from tutelage.evaluation.benefit import conclude
from tutelage.evaluation.results import MetricResult
from tutelage.governance.licence import licence_records
from tutelage.labelling import asked_at_most, describe_caches, notes_on_caps
from tutelage.lessons import Lesson
from tutelage.matching import Proposal
from tutelage.plan import Forecast, Plan
from tutelage.signals import Request
from tutelage.teachers import Teacher
from tutelage.teachers.stand_in import remote_teachers
from tutelage.training.step import term_names

__all__ = ["describe_benefit", "describe_cost", "describe_plan", "describe_proposals"]


def describe_plan(plan: Plan, *, with_layers: bool = False, with_forecast: bool = True) -> str:
    """What the run will do: models, data, losses, steps, metrics, what it is judged by, and what it will cost."""
    recipe, data = plan.recipe, plan.data
    example = data.example(2)
    inputs = example.inputs if isinstance(example.inputs, dict) else {"input": example.inputs}
    before, after = plan.teacher_parameters, plan.student_parameters
    lines = [
        f"{recipe.name}: {recipe.task}, on {plan.device}",
        "",
        f"  teacher   {recipe.teacher.describe()}"
        + (f", {before.total:,} parameters ({before.embedding:,} in embeddings)" if before else ""),
        *(f"            {line}" for line in plan.teacher_lines),
        *(f"            {key} is held against labels before students are trained" for key in plan.later),
        f"  student   {type(recipe.student).__name__}, {after.total:,} parameters ({after.embedding:,} in embeddings)"
        + (f", {after.total / before.total:.1%} of the teacher's" if before and before.total else ""),
        *(f"  licence   {record.sentence()}" for record in licence_records(recipe.teachers(), recipe.licences)),
        "  rows      " + ", ".join(f"{count:,} {split}" for split, count in data.sizes.items()),
        f"  labels    {len(data.labelled_rows):,} training rows"
        + (f", {len(plan.classes)} classes" if plan.classes else ""),
        *_asking(plan),
        "  inputs    " + ", ".join(f"{name} {tuple(t.shape)} {t.dtype}" for name, t in inputs.items()),
        *([f"  memory    {plan.question}"] if plan.question else []),
        *(f"  assistant {_assistant(assistant)}" for assistant in plan.assistants),
        *(f"  cache     {line}" for line in describe_caches(plan)),
        *(f"  questions {line}" for line in _questions(plan)),
    ]
    for number, lesson in enumerate(plan.lessons, start=1):
        lines += ["", f"  losses{f' of stage {number}' if lesson is not plan.lessons[-1] else ''}", *_losses(lesson)]
    lines += [
        "",
        f"  steps     {' + '.join(f'{lesson.steps:,}' for lesson in plan.lessons)} of {recipe.training.batch_size} rows"
        + (f" in {recipe.training.micro_batches} pieces" if recipe.training.micro_batches > 1 else "")
        + f", for each of {len(recipe.seeds)} seed(s)"
        + (", and as many for the baseline" if plan.has_baseline else ""),
        f"  keeps     the weights with the best value on the development split of {plan.selection}",
        f"  metrics   {', '.join(plan.metrics)}",
    ]
    lines += [f"  judged by {gate}" for gate in _gates(plan)] or ["  judged by nothing"]
    for proposal in plan.proposals:
        lines += ["", *(f"  {line}" for line in proposal.table().splitlines())]
    if with_layers:
        for model, found in plan.layers().items():
            lines += ["", f"  layers of the {model}"]
            lines += [f"    {x.path:<44} {x.kind:<24} {x.shape!s:<20} {x.parameters:>12,}" for x in found]
    if with_forecast:
        lines += ["", *_forecast(plan.forecast())]
    lines += ["", *[f"  note: {note}" for note in [*plan.notes, *notes_on_caps(plan), *_looked_at(plan)]]]
    return "\n".join(lines).rstrip()


def describe_proposals(proposals: Sequence[Proposal], written: Sequence[str] = ()) -> str:
    """Pairs of layers as tables, each with the line that a recipe would say; and those that the recipe does say."""
    tables = [proposal.table() for proposal in proposals]
    stated = ["\n".join(["the recipe itself says", *(f"  {line}" for line in written)])] if written else []
    return "\n\n".join([*tables, *stated])


def _losses(lesson: Lesson) -> list[str]:
    """A line for each loss: weight, name, what it reads, what it trains."""
    lines = []
    for name, loss in zip(term_names(lesson.losses), lesson.losses, strict=True):
        reads = sorted({*_reads("student", loss.needs.student), *_reads("teacher", loss.needs.teacher)})
        reads += ["labels"] if loss.needs.labels else []
        own = sum(p.numel() for p in loss.parameters())
        weight = (
            " ".join(f"{factor:g}@{share:.0%}" for share, factor in loss.weight)
            if isinstance(loss.weight, list)
            else f"{loss.weight:g}"
        )
        lines.append(
            f"    {weight:<6} {name}"
            + (f"  reads {', '.join(reads)}" if reads else "")
            + (f"  trains {own:,} parameters of its own" if own else "")
        )
    return lines


def _reads(model: str, request: Request) -> Iterator[str]:
    """What a loss reads of inner layers, and of the members of several teachers."""
    yield from (f"{model} {path}" for path in request.features)
    for name, wanted in request.members.items():
        yield from ([f"{model} {name}"] if wanted.output else [])
        yield from _reads(f"{model} {name}:", wanted)


def _asking(plan: Plan) -> list[str]:
    asking = plan.recipe.asking
    if asking is None:
        return []
    stop = "" if asking.stop_gain is None else f", until 1,000 questions gain less than {asking.stop_gain:g}"
    return [
        f"  asking    up to {asking.rounds} rounds of {asking.per_round:,} training rows by {asking.strategy}, "
        f"{asking.audited:,} of them at random{stop}"
    ]


def _assistant(plan: Plan) -> str:
    after = plan.student_parameters
    return f"{type(plan.recipe.student).__name__}, {after.total:,} parameters, {plan.steps:,} steps"


def _forecast(forecast: Forecast) -> list[str]:
    parts = {
        "students": forecast.student_seconds,
        "assistants": forecast.assistant_seconds,
        "baselines": forecast.baseline_seconds,
        "teacher": forecast.teacher_seconds,
        "evaluations": forecast.evaluation_seconds,
    }
    shown = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items() if seconds)
    whose = f"{forecast.teacher_share:.0%} of it the teacher's"
    if forecast.teacher_row_seconds:
        whose += f", reckoned from a few rows: it takes {forecast.teacher_row_seconds:.2g} s a row"
    if forecast.untimed:
        whose = f"without the time to ask {' and '.join(forecast.untimed)}"
    return [
        f"  forecast  {forecast.step_seconds * 1000:.0f} ms a step, {whose}",
        f"            {duration(forecast.training_seconds)} of training: {shown}; export and measuring come on top",
    ]


def _questions(plan: Plan) -> list[str]:
    """What the run takes of teachers whose questions cost something, were nothing stored."""
    return [
        f"at most {remote.price_of(*asked_at_most(plan, remote))}; what is stored is not asked again"
        for remote in _remote(plan)
    ]


def _remote(plan: Plan) -> list[Teacher]:
    return list({id(x): x for each in plan.recipe.teachers().values() for x in remote_teachers(each)}.values())


def _looked_at(plan: Plan) -> list[str]:
    """What it took to look at teachers whose questions cost something."""
    return [
        f"{remote.calls_sent:,} calls were made to look at {remote.describe()}; the answers are in its ledger"
        for remote in _remote(plan)
    ]


def _gates(plan: Plan) -> list[str]:
    gates = [f"{name} <= {limit:g}" for name, limit in plan.recipe.budget.limits().items()]
    for gate in plan.recipe.policy:
        if gate.margin is not None:
            gates.append(f"{gate.metric} within {gate.margin:g} of the teacher's")
        else:
            gates.append(
                f"{gate.metric} " + (f">= {gate.at_least:g}" if gate.at_least is not None else f"<= {gate.at_most:g}")
            )
    return gates


def describe_cost(cost: Cost) -> str:
    """Latency, size and memory as a table."""
    about = ", ".join(f"{key}: {value}" for key, value in cost.device.items() if isinstance(value, (str, int, float)))
    lines = [about, ""]
    for name, model in cost.models.items():
        counted = [f"{model.parameters:,} parameters"] if model.parameters is not None else []
        counted += [f"{significant(model.size_bytes / 1e6)} MB"] if model.size_bytes is not None else []
        lines.append(f"{name}: {', '.join(counted) or 'of no known size'}")
        for form, peak in model.peak_memory_bytes.items():
            lines.append(f"  {form}: peak memory {significant(peak / 1e6)} MB")
        for x in model.latencies:
            lines.append(
                f"  {x.form:<16} batch {x.batch:<4} p50 {significant(x.p50_ms):>8} ms   "
                f"p95 {significant(x.p95_ms):>8} ms {_ends(x.p95_low_ms, x.p95_high_ms)}   "
                f"p99 {significant(x.p99_ms):>8} ms"
            )
    lines += _ratios(cost)
    lines += [f"{form}: {what}" for form, what in cost.forms.items()]
    return "\n".join(lines)


def _ends(low: float | None, high: float | None) -> str:
    """Both ends of an interval; a dash for one that the samples are too few to set."""
    return f"[{', '.join('-' if end is None else significant(end) for end in (low, high))}]"


def _ratios(cost: Cost) -> list[str]:
    """The student's time as a share of the teacher's, and where other work disturbed it."""
    lines = []
    for key, wall in cost.ratios.items():
        lines.append(f"student / teacher, {key}: {significant(wall.value)} {_ends(wall.low, wall.high)}")
        cpu = cost.cpu_ratios.get(key)
        if cpu is not None and cost.disturbed.get(key):
            lines.append(f"  by CPU time: {significant(cpu.value)} {_ends(cpu.low, cpu.high)}")
    lines += [
        f"other work disturbed {kept:,} rounds of {key}, which could not be replaced: a quiet machine tells more"
        for key, kept in cost.disturbed.items()
        if kept
    ]
    return lines


def describe_benefit(
    metrics: Sequence[MetricResult], gated: Collection[str] = (), seeds: Sequence[Mapping[str, Any]] = ()
) -> str:
    """What distillation gained over the same student without it, in one line; empty where there is no baseline.

    Args:
        metrics: Of every evaluation set.
        gated: Names of the metrics that the policy judges: the first quality metric among them is told of.
        seeds: Each seed's own values, as `metrics.json` has them.
    """
    found = conclude(metrics, seeds, gated)
    if found.lead is None:
        return ""
    metric, of = found.lead.metric, found.lead.seeds or found.lead.rows
    scale, places, what = (100, ".1f", "points of ") if metric.unit == "%" else (1, ".3g", "in ")
    value, low, high = (f"{scale * x:+{places}}" for x in (of.value, of.low, of.high))
    harm = "did harm: " if found.lead.standing == "worse" else "of no use: "
    shown = {"yes": "", "no": harm, "not shown": "not shown to help: "}.get(found.answer, "")
    interval = f"{metric.confidence:.0%} interval {low} to {high}"
    text = f"distillation: {shown}{value} {what}{metric.name} over the same student without it ({interval})"
    if found.constant in ("worse", "open"):
        ours, constant = (metric.models[name].value for name in ("student", "constant"))
        worse = "is better" if found.constant == "worse" else "is not shown to be worse"
        text += f"; the best constant answer, which looks at no input, {worse} ({scale * constant:{places}} against "
        text += f"{scale * ours:{places}}{'%' if metric.unit == '%' else ''})"
    return text
