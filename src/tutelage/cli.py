"""Commands only: no logic. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import tutelage
from tutelage.beat import Phase
from tutelage.errors import MissingExtra, RunError, UserError, did_you_mean
from tutelage.system_limits import NO_MEMORY, describe_limit

__all__ = ["main"]

Answer = tuple[int, str]
"""What a command gives: its exit status, which is known before a word is printed, and what it prints."""
RECIPE_COMMANDS = ("distill", "doctor", "label", "match", "generate")
"""The commands that read a recipe, whose fields can be overridden."""

DESCRIPTION = """\
Model distillation: a teacher's signals teach a student until it meets a budget and a policy,
and the evidence leaves with it.

  tutelage doctor   recipes/digits.yaml                    what will be done, and what is wrong
  tutelage distill  recipes/digits.yaml --out runs/digits  do all of it; the same command resumes
  tutelage label    recipes/labelled.yaml --workers 2      store the teacher's answers alone, for a cached teacher
  tutelage generate RECIPE --out news.jsonl                have a chat model write a text about each row
  tutelage evaluate runs/digits                            recompute metrics and verdict from the raw answers
  tutelage explain  losses                                 what a recipe may say there
"""
EXITS = """\
exit status: 0 PASS, 1 FAIL, 3 INCONCLUSIVE, 2 the input was wrong, 4 the run failed, 130 interrupted;
`evaluate` also gives 1 when what is stored differs from what it recomputes"""
OVERRIDES = """\
Any field of the recipe can be overridden by its dotted name; values are YAML:
  --training.steps 500   --student.layers "[0, 2, 5]"   --losses.0.temperature 2   --budget.latency_p95_ms 8
`tutelage explain` lists the fields, `tutelage explain training` those of a section.
"""
TRUSTS = "let the recipe name any function that can be imported, also those that do not say what they make"
WRITES = """\
Any field of the recipe can be overridden by its dotted name; values are YAML:
  --data.limit 100   --teacher.caps.money 2   --teacher.temperature 0.7
The same command goes on where it stopped: what is answered is in the query ledger and is not asked again.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="tutelage", description=DESCRIPTION, epilog=EXITS, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"tutelage {tutelage.__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[..., Answer], text: str, epilog: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, epilog=f"{epilog}\n{EXITS}", formatter_class=raw, allow_abbrev=False
        )
        sub.set_defaults(run=run)
        return sub

    distill = command("distill", _distill, "Train a student, export, measure and judge it.", OVERRIDES)
    distill.add_argument("recipe", help="a recipe: a YAML file")
    distill.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/NAME)")
    distill.add_argument("--fresh", action="store_true", help="remove what an earlier run left there")
    distill.add_argument("--quiet", action="store_true", help="no progress, only the verdict")
    doctor = command("doctor", _doctor, "Show the plan and what is wrong with it; train nothing.", OVERRIDES)
    doctor.add_argument("recipe", help="a recipe: a YAML file")
    doctor.add_argument("--layers", action="store_true", help="list every layer a loss can be set on, with shapes")
    doctor.add_argument("--no-forecast", action="store_true", help="do not time a few steps")
    label = command("label", _label, "Store the answers of the recipe's cached teachers; train nothing.", OVERRIDES)
    label.add_argument("recipe", help="a recipe: a YAML file")
    label.add_argument("--workers", type=int, metavar="N", help="processes that ask (default: this one alone)")
    label.add_argument("--ray", metavar="ADDRESS", help="ask on a Ray cluster: its address, or `local`")
    label.add_argument("--quiet", action="store_true", help="no progress")
    generate = command("generate", _generate, "Have a chat model write a text about each row; train nothing.", WRITES)
    generate.add_argument("recipe", help="a recipe of `generate`: a YAML file (`tutelage explain Generation`)")
    generate.add_argument("--out", metavar="FILE", required=True, help="the set: a file ending in .jsonl or .parquet")
    generate.add_argument("--quiet", action="store_true", help="no progress")
    match = command("match", _match, "Propose pairs of layers for the losses between them; train nothing.", OVERRIDES)
    match.add_argument("recipe", help="a recipe: a YAML file")
    match.add_argument("--by", choices=["stage", "depth", "cka"], help="how (default: as the recipe says, else stage)")
    match.add_argument("--count", type=int, metavar="N", help="how many pairs (default: as many as there are)")
    for each in (distill, doctor, label, generate, match):
        each.add_argument("--trust", action="store_true", help=TRUSTS)
    measure = command("measure", _measure, "Measure what a bundle's student costs on this machine.")
    measure.add_argument("bundle", help="a bundle, or the folder of its run")
    measure.add_argument("--device", default="cpu:1", help="cpu:N for N threads, or cuda:N (default: cpu:1)")
    measure.add_argument("--batch-sizes", default="1,32", metavar="N,N", help="rows in a call (default: 1,32)")
    measure.add_argument("--json", action="store_true", help="print all of it as JSON, raw samples too")
    evaluate = command("evaluate", _evaluate, "Recompute a bundle's metrics and verdict from its raw answers.")
    evaluate.add_argument("bundle", help="a bundle, or the folder of its run")
    report = command("report", _report, "Write a bundle's page again.")
    report.add_argument("bundle", help="a bundle, or the folder of its run")
    ledger = command("ledger", _ledger, "Show what remote teachers were asked, and what that cost.")
    ledger.add_argument("file", help="the file of a query ledger")
    ledger.add_argument("--ask-again", action="store_true", help="let the next run ask the questions given up again")
    explain = command("explain", _explain, "Explain the fields of a recipe, or what a section may hold.")
    explain.add_argument("key", nargs="?", default="", help="a field (training, losses) or a class (KLDivergence)")
    completion = command("completion", _completion, 'Print tab completion: eval "$(tutelage completion bash)"')
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit status."""
    parser = build_parser()
    try:
        words, overrides = split_overrides(parser, list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        _write(f"tutelage: {error}", sys.stderr)
        return 2
    options, unknown = parser.parse_known_args(words)
    if unknown and options.command not in RECIPE_COMMANDS:
        parser.error(f"unknown argument: {unknown[0]}")
    # Threads that wait asleep: on a machine that is shared, spinning ones make each step many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models and data come from folders, never from a hub
    if getattr(options, "trust", False):
        os.environ["TUTELAGE_TRUST"] = "1"  # `callables.TRUST`: the processes that a command starts read it too
    try:
        speaks = not getattr(options, "quiet", False) and os.environ.get("RANK", "0") == "0"
        with Phase(options.command, on=speaks, seconds=10 if options.command == "doctor" else None):
            status, text = options.run(options, [*overrides, *unknown])
        if text:
            _write(text, sys.stdout)
        return int(status)
    except UserError as error:
        _write(f"tutelage: {error}", sys.stderr)
        return 2
    except RunError as error:
        _write(f"tutelage: the run failed: {error}", sys.stderr)
        return 4
    except OSError as error:
        if (told := describe_limit(error)) is None:
            _write(traceback.format_exc().rstrip(), sys.stderr)
            return 4
        _write(f"tutelage: {'' if told.of_input else 'the run failed: '}{told.text}", sys.stderr)
        return 2 if told.of_input else 4
    except MemoryError:
        _write(f"tutelage: the run failed: {NO_MEMORY}", sys.stderr)
        return 4
    except KeyboardInterrupt:
        _write("\ntutelage: interrupted; the same command goes on from the last checkpoint", sys.stderr)
        return 130
    except Exception:  # Python's own status for it would be 1, which says FAIL
        _write(traceback.format_exc().rstrip(), sys.stderr)
        return 4


def _write(text: str, stream: TextIO) -> None:
    """Prints; that nobody reads it any more (`| head`) changes no exit status."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes it once more when it ends


def split_overrides(parser: argparse.ArgumentParser, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What argparse is to read, and the overrides of a recipe's fields, wherever they stand on the line.

    An override is an option that the command does not have; the word after it is its value. argparse alone would take
    that value for the recipe.
    """
    if not words or words[0] not in RECIPE_COMMANDS:
        return list(words), []
    own, overrides = [words[0]], []
    known = _options(parser, words[0])
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if not word.startswith("--") or name in known:
            own.append(word)
        else:
            _refuse_misspelt(name, known, words[0])
            overrides.append(word)
            overrides += [rest.pop(0)] if rest and not equals else []
    return own, overrides


def _refuse_misspelt(name: str, known: set[str], command: str) -> None:
    """Refuses `--outt`: no field of a recipe, and nearly an option."""
    near = did_you_mean(name, {option for option in known if option.startswith("--")}, list_up_to=0)
    if "." in name or not near.startswith("did you mean"):
        return
    from tutelage.explain import dotted_fields

    if name.removeprefix("--") not in {field.partition(".")[0] for field in dotted_fields(command)}:
        raise UserError(name, expected="an option, or a field of the recipe", found="no such one", mend=near)


def _subparser(parser: argparse.ArgumentParser, command: str) -> argparse.ArgumentParser:
    commands: Any = next(action for action in parser._actions if action.dest == "command")
    found: argparse.ArgumentParser = commands.choices[command]
    return found


def _options(parser: argparse.ArgumentParser, command: str) -> set[str]:
    return {text for action in _subparser(parser, command)._actions for text in action.option_strings}


def _distill(options: argparse.Namespace, overrides: Sequence[str]) -> Answer:
    from tutelage.doctor import describe_benefit
    from tutelage.pipeline import distill
    from tutelage.recipe_file import load_recipe
    from tutelage.training.processes import is_first

    recipe = load_recipe(options.recipe, overrides)
    result = distill(recipe, options.out, fresh=options.fresh, progress=not options.quiet)
    if not is_first():  # of several processes one speaks; a launcher that sees another fail would end it before it has
        return 0, ""
    gained = describe_benefit(result.metrics(), [gate.name for gate in result.verdict.gates], result.seeds())
    lines = [*_verdict_lines(result.verdict), *([gained] if gained else []), f"report: {result.report}"]
    return result.verdict.exit_status, "\n".join(lines)


def _verdict_lines(verdict: Any) -> list[str]:
    warned = [f"  {'WARNING':<12} {warning}" for warning in verdict.warnings]
    told = [f"  {gate.outcome:<12} {gate.explanation}" for gate in verdict.gates]
    explained = {gate.explanation for gate in verdict.gates}
    why = [f"  {verdict.verdict:<12} {reason}" for reason in verdict.reasons if reason not in explained]
    return [verdict.headline, *warned, *told, *why]


def _doctor(options: argparse.Namespace, overrides: Sequence[str]) -> Answer:
    from tutelage.doctor import describe_plan
    from tutelage.plan import make_plan
    from tutelage.recipe_file import load_recipe

    plan = make_plan(load_recipe(options.recipe, overrides))
    plan.rehearse()
    return 0, describe_plan(plan, with_layers=options.layers, with_forecast=not options.no_forecast)


def _label(options: argparse.Namespace, overrides: Sequence[str]) -> Answer:
    from tutelage.labelling import label_recipe

    if options.workers is not None and options.workers < 1:
        raise UserError("--workers", expected="at least 1", found=str(options.workers))
    fills = label_recipe(
        options.recipe, overrides, workers=options.workers, ray=options.ray, progress=not options.quiet
    )
    return 0, "\n".join(str(filled) for filled in fills)


def _generate(options: argparse.Namespace, overrides: Sequence[str]) -> Answer:
    from tutelage.generation import generate
    from tutelage.recipe_file import load_generation

    return 0, str(generate(load_generation(options.recipe, overrides), options.out, progress=not options.quiet))


def _match(options: argparse.Namespace, overrides: Sequence[str]) -> Answer:
    from tutelage.doctor import describe_proposals
    from tutelage.matching import written_pairs
    from tutelage.plan import propose_pairs
    from tutelage.recipe_file import load_recipe

    asked = {f"--match.{name}": value for name in ("by", "count") if (value := getattr(options, name)) is not None}
    recipe = load_recipe(options.recipe, [*overrides, *(str(word) for pair in asked.items() for word in pair)])
    return 0, describe_proposals(propose_pairs(recipe), written_pairs(recipe))


def _measure(options: argparse.Namespace, _: Sequence[str]) -> Answer:
    from tutelage.devices import Target
    from tutelage.doctor import describe_cost
    from tutelage.pipeline import measure

    try:
        sizes = [int(size) for size in options.batch_sizes.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise UserError("--batch-sizes", expected="whole numbers from 1, as 1,32", found=options.batch_sizes)
    Target.parse(options.device, key="--device").require(key="--device")
    cost = measure(options.bundle, device=options.device, batch_sizes=sizes)
    return 0, json.dumps(cost.to_dict()) if options.json else describe_cost(cost)


def _evaluate(options: argparse.Namespace, _: Sequence[str]) -> Answer:
    from tutelage.pipeline import evaluate

    verdict, differences = evaluate(options.bundle)
    if not differences:
        return verdict.exit_status, "\n".join([*_verdict_lines(verdict), "recomputed from the raw answers; all agree"])
    first, *gates = _verdict_lines(verdict)
    lines = ["the bundle does not agree with itself", *(f"  DIFFERS      {difference}" for difference in differences)]
    return 1, "\n".join([*lines, f"recomputed from the raw answers: {first}", *gates])


def _report(options: argparse.Namespace, _: Sequence[str]) -> Answer:
    from tutelage.pipeline import report

    return 0, f"report: {report(options.bundle)}"


def _ledger(options: argparse.Namespace, _: Sequence[str]) -> Answer:
    from tutelage.ledger import Ledger, describe_ledger

    shown = describe_ledger(options.file)
    if options.ask_again:
        shown += f"\nto be asked again: {Ledger(options.file).ask_again():,} questions"
    return 0, shown


def _explain(options: argparse.Namespace, _: Sequence[str]) -> Answer:
    from tutelage.explain import explain

    return 0, explain(options.key)


def _completion(options: argparse.Namespace, _: Sequence[str]) -> Answer:
    try:
        import shtab
    except ImportError:
        raise MissingExtra("shtab", "completion", "tutelage completion") from None
    from tutelage.explain import dotted_fields

    parser = build_parser()
    for name in RECIPE_COMMANDS:
        sub = _subparser(parser, name)
        for field in dotted_fields(name):
            sub.add_argument(f"--{field}")
        recipe: Any = next(action for action in sub._actions if action.dest == "recipe")
        recipe.complete = shtab.FILE
    return 0, shtab.complete(parser, options.shell)
