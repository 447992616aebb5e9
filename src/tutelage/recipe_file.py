"""Recipes as YAML: reading with overrides, checking with messages that help, and writing as resolved.

`check` walks the plain data along the types of `Recipe` and finds every mistake at once, with the nearest right word.
jsonargparse then builds the objects from the same types, so the meaning of a recipe is theirs alone.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml

from tutelage.described import describe
from tutelage.errors import RecipeError, UserError, blame
from tutelage.generation import Generation
from tutelage.governance.policy import Budget, Gate, check_budget, check_gates
from tutelage.losses import all_losses
from tutelage.paths import look_beside
from tutelage.portable import Places, require_places
from tutelage.recipe import Recipe
from tutelage.recipe_size import require_size
from tutelage.typed import Problem, check_value, parameters

__all__ = ["build_recipe", "dump_recipe", "load_generation", "load_recipe", "policy_of", "read_recipe"]

Kind = TypeVar("Kind", Recipe, Generation)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, with fields overridden as on the command line.

    Args:
        path: A YAML file.
        overrides: `["--training.steps", "100", "--losses.0.temperature=2"]`; values are YAML.

    Raises:
        RecipeError: The file is missing or not YAML, or a key is unknown, missing or of the wrong type; all mistakes
            are named in one message.
    """
    folder = Path(path).resolve().parent
    data = read_recipe(path, overrides)
    require_places(data)
    look_beside(folder)  # parts may look for their files when they are built
    recipe = build_recipe(data)
    recipe.folder = folder
    return recipe


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain data of a recipe file with overrides applied, not yet checked."""
    path = Path(path)
    if not path.is_file():
        raise RecipeError(
            str(path),
            expected="a recipe (YAML file)",
            found="a folder" if path.is_dir() else "no such file",
            mend=_similar_file(path),
        )
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_EachKeyOnce)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: bytes or a number that can't be read
        raise RecipeError(str(path), expected="YAML", found=_yaml_problem(error)) from error
    require_size(data, path)
    if not isinstance(data, dict):
        raise RecipeError(str(path), expected="keys and values (`name: ...`)", found=f"a {type(data).__name__}")
    # The recipe's own modules (`class_path: my_models.Net`) may stand beside it or in the current folder.
    for folder in (str(Path.cwd()), str(path.resolve().parent)):
        if folder not in sys.path:
            sys.path.append(folder)
    for key, value in parse_overrides(overrides):
        _override(data, key, value)
    return data


class _EachKeyOnce(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML would keep the last and drop the other without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise RecipeError(
                        key.value,
                        expected="each key once",
                        found=f"it is there again in line {key.start_mark.line + 1}",
                        harm="only the last would count",
                        mend="remove one of them",
                    )
                seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def _yaml_problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "sections within sections, deeper than can be read"
    if "integer string conversion" in str(error):
        return "a whole number of more than 4,300 digits"
    return " ".join(str(error).split())


def _similar_file(path: Path) -> str:
    beside = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    return f"recipes in that folder: {', '.join(sorted(beside))}" if beside else "give the path of a recipe"


def parse_overrides(arguments: Sequence[str]) -> list[tuple[str, Any]]:
    """`--a.b VALUE` and `--a.b=VALUE` as pairs of a dotted key and a YAML value."""
    pairs: list[tuple[str, Any]] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise RecipeError(
                f"argument `{word}`",
                expected="--key value, as --training.steps 100",
                found=word,
                mend="see `tutelage distill --help`",
            )
        key, equals, text = word[2:].partition("=")
        if not equals:
            if not rest:
                raise RecipeError(f"--{key}", expected="a value after it", found="nothing")
            text = rest.pop(0)
        try:
            pairs.append((key, yaml.safe_load(text)))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            found = text if isinstance(error, yaml.YAMLError) else _yaml_problem(error)
            raise RecipeError(f"--{key}"[:200], expected="a YAML value", found=found[:400]) from error
    return pairs


def _override(data: dict[str, Any], key: str, value: Any) -> None:
    """Sets `a.b.0.c`, looking through `init_args` where a part is given by class."""
    place: Any = data
    names = key.split(".")
    for depth, name in enumerate(names):
        last = depth == len(names) - 1
        where = ".".join(names[: depth + 1])
        if isinstance(place, list):
            if not name.isdigit() or int(name) >= len(place):
                raise RecipeError(f"--{key}", expected=f"a number below {len(place)} in `{where}`", found=name)
            if last:
                place[int(name)] = value
            else:
                place = place[int(name)]
            continue
        if isinstance(place, dict) and "class_path" in place and name not in ("class_path", "init_args"):
            place = place.setdefault("init_args", {})
        if not isinstance(place, dict):
            raise RecipeError(f"--{key}", expected=f"a section at `{where}`", found=repr(place))
        if last:
            place[name] = value
        else:
            if place.get(name) is None:
                place[name] = {}
            place = place[name]


def load_generation(path: str | Path, overrides: Sequence[str] = ()) -> Generation:
    """The recipe of `tutelage generate` in a YAML file, with fields overridden as on the command line.

    Raises:
        RecipeError: As `load_recipe` does.
    """
    look_beside(Path(path).resolve().parent)
    return _build(read_recipe(path, overrides), Generation)


def build_recipe(data: dict[str, Any]) -> Recipe:
    """The recipe that plain data describes.

    Raises:
        RecipeError: One or more keys are unknown, missing or of the wrong type.
    """
    all_losses()  # imports them: a class is found by its name among those that are imported
    return _build(data, Recipe)


def _build(data: dict[str, Any], kind: type[Kind]) -> Kind:
    problems: list[Problem] = []
    resolved = check_value(data, kind, "", problems)
    if problems:
        raise _error_of([_of_another_section(problem, kind) for problem in problems])
    from jsonargparse import ArgumentParser, set_loader

    set_loader("plain", lambda text: text)  # YAML is read already: a text for an untyped argument is no YAML again
    parser = ArgumentParser(exit_on_error=False, parser_mode="plain")
    parser.add_class_arguments(kind, fail_untyped=False)
    try:
        recipe = kind(**vars(parser.instantiate(parser.parse_object(copy.deepcopy(resolved)))))
    except UserError:
        raise
    except Exception as error:  # jsonargparse raises many kinds; constructors raise ValueError for bad values
        key, found = _culprit(error, resolved) or ("recipe", _root_message(error))
        raise RecipeError(key, expected="values its parts accept", found=found) from error
    recipe.check()
    return recipe


def _of_another_section(problem: Problem, kind: type) -> Problem:
    """The same problem; a field that no other name here resembles is looked for in the other sections."""
    name = problem.key.rpartition(".")[2]
    if problem.found != "no such field" or not problem.mend.startswith("choose one of"):
        return problem
    top = parameters(kind)
    sections = {
        section: inner
        for section, (hint, _) in top.items()
        for inner in (hint, *get_args(hint))
        if inspect.isclass(inner) and dataclasses.is_dataclass(inner)
    }
    found = [f"`{section}.{name}`" for section, inner in sections.items() if name in parameters(inner)]
    found = [f"`{name}` outside all sections", *found] if name in top else found
    return dataclasses.replace(problem, mend=f"it is {' or '.join(found)}") if found else problem


def _culprit(error: BaseException, resolved: Any) -> tuple[str, str] | None:
    """The key of the part whose constructor or factory raised, and what it raised."""
    seen: BaseException | None = error
    while seen is not None:
        for frame, _ in traceback.walk_tb(seen.__traceback__):
            code = frame.f_code
            made = type(frame.f_locals.get("self"))
            of_class = code.co_name in ("__init__", "__post_init__")
            home, name = (
                (made.__module__, made.__qualname__) if of_class else (frame.f_globals["__name__"], code.co_name)
            )
            keys = _keys_of(f"{home}.{name}", resolved, "")
            if keys:
                # Our own checks begin with the name of the argument; where in our code they stand is no help.
                argument = str(seen).partition(" ")[0] if isinstance(seen, ValueError) else ""
                if argument in inspect.signature(made if of_class else frame.f_globals[code.co_name]).parameters:
                    return " or ".join(f"{key}.{argument}" for key in keys), " ".join(str(seen).split())
                return " or ".join(keys), blame(seen)
        seen = seen.__cause__ or seen.__context__
    return None


def _keys_of(class_path: str, value: Any, key: str) -> list[str]:
    """Where a class is named in plain data."""
    if isinstance(value, list):
        return [found for i, item in enumerate(value) for found in _keys_of(class_path, item, f"{key}[{i}]")]
    if not isinstance(value, dict):
        return []
    here = [key] if value.get("class_path") == class_path else []
    inner = value.get("init_args") if "class_path" in value else value
    below = [(f"{key}.{name}".lstrip("."), item) for name, item in (inner or {}).items()]
    return [*here, *(found for name, item in below for found in _keys_of(class_path, item, name))]


def _root_message(error: BaseException) -> str:
    cause = error.__cause__ or error.__context__
    return _root_message(cause) if cause is not None and str(cause) else str(error).replace("\n", " ")


def _error_of(problems: Sequence[Problem]) -> RecipeError:
    first = problems[0]
    error = RecipeError(first.key, expected=first.expected, found=first.found, mend=first.mend)
    if len(problems) > 1:
        texts = [str(RecipeError(p.key, expected=p.expected, found=p.found, mend=p.mend)) for p in problems]
        error.args = (f"{len(problems)} mistakes in the recipe\n" + "\n".join(texts),)
    return error


def dump_recipe(recipe: Recipe, *, only: Sequence[str] = (), decisive: bool = False, portable: bool = False) -> str:
    """The recipe as YAML, with every default written out. Objects made in Python are described, not stored.

    Args:
        recipe: The recipe.
        only: The fields to write; all by default.
        decisive: Leave out what can't change a result: caps, prices, pace, where answers are stored, and the like.
        portable: Tell paths as a bundle does (`Places`).
    """
    data = describe(recipe, decisive=decisive)
    if portable:
        data = Places(data, recipe.folder).told(data)
    chosen = {key: data[key] for key in only} if only else data
    return yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True, width=110)


def policy_of(path: Path) -> tuple[list[Gate], Budget]:
    """Policy and budget in a recipe file, without building the rest: enough to judge a bundle again.

    Raises:
        RecipeError: The file is missing or broken, or they can't be judged.
    """
    data = read_recipe(path)
    problems: list[Problem] = []
    gates = check_value(data.get("policy") or [], list[Gate], "policy", problems)
    budget = check_value(data.get("budget") or {}, Budget, "budget", problems)
    if problems:
        raise _error_of(problems)
    policy, limits = [Gate(**gate) for gate in gates], Budget(**budget)
    check_gates(policy)
    check_budget(limits)
    return policy, limits
