"""Commands only: no logic. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tutelage
from tutelage.errors import MissingExtra, RunError, UserError

__all__ = ["main"]

DESCRIPTION = """\
Model distillation: a teacher's signals teach a student until it meets a budget and a policy,
and the evidence leaves with it.

  tutelage doctor   recipes/digits.yaml                    what will be done, and what is wrong
  tutelage distill  recipes/digits.yaml --out runs/digits  do all of it; the same command resumes
  tutelage evaluate runs/digits                            recompute metrics and verdict from the raw answers
  tutelage explain  losses                                 what a recipe may say there
"""
EXITS = "exit status: 0 PASS, 1 FAIL, 3 INCONCLUSIVE, 2 the input was wrong, 4 the run failed, 130 interrupted"
OVERRIDES = """\
Any field of the recipe can be overridden by its dotted name; values are YAML:
  --training.steps 500   --student.layers "[0, 2, 5]"   --losses.0.temperature 2   --budget.latency_p95_ms 8
`tutelage explain` lists the fields, `tutelage explain training` those of a section.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="tutelage", description=DESCRIPTION, epilog=EXITS, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"tutelage {tutelage.__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[..., int], text: str, epilog: str = "") -> argparse.ArgumentParser:
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
    measure = command("measure", _measure, "Measure what a bundle's student costs on this machine.")
    measure.add_argument("bundle", help="a bundle, or the folder of its run")
    measure.add_argument("--device", default="cpu:1", help="cpu:N for N threads, or cuda:N (default: cpu:1)")
    measure.add_argument("--batch-sizes", default="1,32", metavar="N,N", help="rows in a call (default: 1,32)")
    measure.add_argument("--json", action="store_true", help="print all of it as JSON, raw samples too")
    evaluate = command("evaluate", _evaluate, "Recompute a bundle's metrics and verdict from its raw answers.")
    evaluate.add_argument("bundle", help="a bundle, or the folder of its run")
    report = command("report", _report, "Write a bundle's page again.")
    report.add_argument("bundle", help="a bundle, or the folder of its run")
    explain = command("explain", _explain, "Explain the fields of a recipe, or what a section may hold.")
    explain.add_argument("key", nargs="?", default="", help="a field (training, losses) or a class (KLDivergence)")
    completion = command("completion", _completion, 'Print tab completion: eval "$(tutelage completion bash)"')
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit status."""
    parser = build_parser()
    options, overrides = parser.parse_known_args(arguments)
    if overrides and options.command not in ("distill", "doctor"):
        parser.error(f"unknown argument: {overrides[0]}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models and data come from folders, never from a hub
    try:
        return int(options.run(options, overrides))
    except UserError as error:
        print(f"tutelage: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"tutelage: the run failed: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        print("\ntutelage: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


def _distill(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from tutelage.pipeline import distill
    from tutelage.recipe_file import load_recipe

    recipe = load_recipe(options.recipe, overrides)
    result = distill(recipe, options.out, fresh=options.fresh, progress=not options.quiet)
    _print_verdict(result.verdict)
    print(f"report: {result.report}")
    return result.verdict.exit_status


def _print_verdict(verdict: Any) -> None:
    print(verdict.verdict)
    for gate in verdict.gates:
        print(f"  {gate.outcome:<12} {gate.explanation}")
    for reason in verdict.reasons if not verdict.gates else ():
        print(f"  {reason}")


def _doctor(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from tutelage.doctor import describe_plan
    from tutelage.plan import make_plan
    from tutelage.recipe_file import load_recipe

    plan = make_plan(load_recipe(options.recipe, overrides))
    print(describe_plan(plan, with_layers=options.layers, with_forecast=not options.no_forecast))
    return 0


def _measure(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tutelage.doctor import describe_cost
    from tutelage.pipeline import measure

    try:
        sizes = [int(size) for size in options.batch_sizes.split(",")]
    except ValueError:
        raise UserError("--batch-sizes", expected="whole numbers, as 1,32", found=options.batch_sizes) from None
    cost = measure(options.bundle, device=options.device, batch_sizes=sizes)
    print(json.dumps(cost.to_dict()) if options.json else describe_cost(cost))
    return 0


def _evaluate(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tutelage.pipeline import evaluate

    verdict, differences = evaluate(options.bundle)
    _print_verdict(verdict)
    for difference in differences:
        print(f"  DIFFERS      {difference}")
    print("recomputed from the raw answers; " + ("it differs from what is stored" if differences else "all agree"))
    return 1 if differences else verdict.exit_status


def _report(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tutelage.pipeline import report

    print(f"report: {report(options.bundle)}")
    return 0


def _explain(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tutelage.explain import explain

    print(explain(options.key))
    return 0


def _completion(options: argparse.Namespace, _: Sequence[str]) -> int:
    try:
        import shtab
    except ImportError:
        raise MissingExtra("shtab", "completion", "tutelage completion") from None
    from tutelage.explain import dotted_fields

    parser = build_parser()
    commands: Any = next(action for action in parser._actions if action.dest == "command")
    for name in ("distill", "doctor"):
        sub = commands.choices[name]
        for field in dotted_fields():
            sub.add_argument(f"--{field}")
        next(action for action in sub._actions if action.dest == "recipe").complete = shtab.FILE
    print(shtab.complete(parser, options.shell))
    return 0
