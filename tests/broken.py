"""Recipes made wrong on purpose, and how they must be refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tutelage.cli import main

__all__ = ["RECIPES", "Change", "Recipe", "drop", "put", "refused"]

RECIPES = Path(__file__).parent.parent / "recipes"
Recipe = dict[str, Any]
Change = Callable[[Recipe, Path], object]


def put(path: str, value: Any) -> Change:
    """A change that sets `a.b.0.c` to a value."""

    def change(recipe: Recipe, _: Path) -> None:
        *places, last = path.split(".")
        place: Any = recipe
        for name in places:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value

    return change


def drop(key: str) -> Change:
    return lambda recipe, _: recipe.pop(key)


def refused(change: Change, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The message with which the changed digits recipe is refused: exit status 2, nothing written, no traceback."""
    recipe = yaml.safe_load((RECIPES / "digits.yaml").read_text())
    change(recipe, folder)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    status = main(["distill", str(path), "--out", str(folder / "run"), "--quiet"])
    shown = capsys.readouterr().err
    assert status == 2, shown
    assert "Traceback" not in shown
    assert not (folder / "run").exists()
    return shown
