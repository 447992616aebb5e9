"""The folder of a run: `work/` for what is under way, `bundle/` for what leaves.

A run is recognised by its recipe, its data and its teacher. The same command finds the work it began and goes on; a
different one is refused, so that two runs are never mixed.
"""

from __future__ import annotations

import difflib
import fcntl
import itertools
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from tutelage.errors import CheckpointError, RecipeError, RunError
from tutelage.files import replacing
from tutelage.owned import RECIPE_AND_IDENTITY, clear_bundle, clear_work, not_of_bundle, not_of_work
from tutelage.sealed import Damaged, read_sealed, sealed_lines, unsealed_lines, write_sealed
from tutelage.training.kept import DONE, read_done
from tutelage.training.loop import EvaluationRecord, StepRecord

__all__ = ["History", "Workspace", "notes_on_training", "write_json"]

_LEARNT_FROM, _EARLIER = "learnt_from", "earlier_data"
_WHOLE = ("data", "inputs")
"""Fingerprints that cover the test rows too."""
_NUMBERS = re.compile(r"\[\n[\s\d.,eE+-]+\]")
"""A list of numbers, one a line; a text of JSON has no line break."""


def write_json(path: Path, data: Any) -> None:
    """Writes plain data as JSON, atomically; a list of numbers takes one line, not one a number."""
    text = _NUMBERS.sub(lambda found: "".join(found[0].split()), json.dumps(data, indent=1, allow_nan=False))
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _exists(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except OSError:  # within a folder that may not be read
        return False


def _holds_something(path: Path) -> bool:
    """Whether there is anything to lose: a file, a link, or a folder that is not empty."""
    return path.is_symlink() or path.is_file() or (path.is_dir() and any(path.iterdir()))


class Workspace:
    """The folder of one run.

    Args:
        folder: Where the run lives; made when it isn't there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.bundle = folder / "bundle"

    def stage(self, role: str, seed: int) -> Path:
        """The folder of one training."""
        name = role.replace(" ", "-")
        path = self.work / (name if role.startswith("teacher") else f"{name}-{seed}")
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def begun(self) -> bool:
        """Whether a training has begun here."""
        return any(self.work.glob("*/history.jsonl"))

    def histories(self, trainings: Sequence[tuple[str, int]]) -> list[Path]:
        """The records of these trainings, by role and seed, and of those of rounds."""
        found = [self.stage(role, seed) / "history.jsonl" for role, seed in trainings]
        return found + sorted(self.work.glob("round-*/history.jsonl"))

    def check(self, *, fresh: bool = False) -> None:
        """Refuses a folder that can't be written, or in which a run would replace what is not tutelage's.

        Args:
            fresh: Whether the work is to be removed.

        Raises:
            RecipeError: The folder can't be made, or something in its `work` or `bundle` is somebody else's.
        """
        there = next(path for path in (self.folder, *self.folder.absolute().parents) if _exists(path))
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise self._unusable(f"`{there}` is {'not writable' if there.is_dir() else 'a file'}")
        ours = all((self.work / name).is_file() for name in RECIPE_AND_IDENTITY)
        if _holds_something(self.work) and not ours and not self._begun():
            raise self._foreign(self.work, "identity.json and recipe.yaml are not in it")
        if fresh and ours and (others := ["a link"] if self.work.is_symlink() else not_of_work(self.work)):
            raise self._holds(self.work, others)
        if not _holds_something(self.bundle):
            return
        found = ["a link"] if self.bundle.is_symlink() else not_of_bundle(self.bundle)
        if found is None:
            raise self._foreign(self.bundle, "no provenance.json that can be read is in it")
        if found:
            raise self._holds(self.bundle, found)

    def _begun(self) -> bool:
        """Whether nothing but the first or last files of a run are there: its removal was killed."""
        return self.work.is_dir() and {path.name for path in self.work.iterdir()} <= set(RECIPE_AND_IDENTITY)

    def _foreign(self, path: Path, why: str) -> RecipeError:
        return RecipeError(
            "--out",
            expected="an empty folder, a new one, or that of a run",
            found=f"`{path}`, of which it can't be told that a run made it: {why}",
            harm="the run would delete it to write its own there",
            mend="give another --out, or move that folder away",
        )

    def _holds(self, path: Path, others: Sequence[str]) -> RecipeError:
        shown = ", ".join(f"`{name[:200]}`" for name in others[:3])
        more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
        return RecipeError(
            "--out",
            expected=f"nothing in `{path}` but the files that the run wrote",
            found=f"{shown}{more}",
            harm="the run replaces that folder, and would delete what is not its own",
            mend="move it to another place, or give another --out",
        )

    def _unusable(self, found: str) -> RecipeError:
        return RecipeError(
            "--out", expected=f"a folder that can be written: `{self.folder}`", found=found, mend="give another --out"
        )

    def clear(self) -> None:
        """Removes the run's work and bundle; what isn't the run's stays."""
        clear_work(self.work)
        clear_bundle(self.bundle)

    def install(self, made: Path) -> None:
        """Puts a new bundle in the place of the one before.

        A file of somebody else's that has come into the old one meanwhile is kept, in a folder `bundle-kept-N`.
        """
        clear_bundle(self.bundle)
        if _holds_something(self.bundle):
            kept = next(p for n in itertools.count(1) if not _exists(p := self.folder / f"{self.bundle.name}-kept-{n}"))
            self.bundle.rename(kept)
            print(f"tutelage: {kept} has what was in {self.bundle} and is not the run's", file=sys.stderr)
        made.rename(self.bundle)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder: a second run in it is refused while this one lives.

        Raises:
            RecipeError: The folder can't be made or written.
            RunError: Another process is at work here.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR)
        except OSError as error:
            raise self._unusable(str(error)) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(f"another run is at work in {self.folder}; wait for it or give another --out") from error
            yield
        finally:
            os.close(handle)

    def claim(
        self, trained_by: str, fingerprints: Mapping[str, str], learnt_from: Mapping[str, str] | None = None
    ) -> bool:
        """Notes whose run this is, or checks that it is the same one as before.

        As long as no training has begun there is nothing that it could be mixed with, and it may be another one. Later
        the data may differ in what nothing was learnt from: in the test rows alone.

        Args:
            trained_by: The parts of the recipe that decide the weights, as YAML.
            fingerprints: Of the data, the teacher and the student as they are before training.
            learnt_from: Of each thing in the data that training and selection read.

        Returns:
            Whether the test rows are others than before.

        Raises:
            RecipeError: The folder holds the work of another recipe, other data or another model.
        """
        parts = dict(learnt_from or {})
        new = {**fingerprints, _LEARNT_FROM: parts}
        identity, recipe_path = self.work / "identity.json", self.work / "recipe.yaml"
        if not (identity.exists() and recipe_path.exists()):
            clear_work(self.work)  # what a removal that was killed has left
            begun = self.folder / f".work-{uuid4().hex}"  # renamed when whole: a `work` without an identity is not ours
            begun.mkdir(parents=True)
            (begun / recipe_path.name).write_text(trained_by, encoding="utf-8")
            write_sealed(begun / identity.name, new)
            begun.rename(self.work)
            return False
        try:
            known = read_sealed(identity)
        except Damaged as error:
            raise RunError(f"{identity} is damaged ({error}): restore it, or give --fresh to begin anew") from error
        if not any(self.work.glob("*/*")):  # no file of a training, a history or other
            with replacing(recipe_path) as partial:
                partial.write_text(trained_by, encoding="utf-8")
            write_sealed(identity, new)
            return False
        before = recipe_path.read_text(encoding="utf-8", errors="replace")
        if before != trained_by:
            difference = difflib.unified_diff(before.splitlines(), trained_by.splitlines(), lineterm="", n=0)
            changed = [line for line in difference if line[:1] in "+-" and line[:3] not in ("+++", "---")]
            raise RecipeError(
                str(self.folder),
                expected="an empty folder, or the work of this very recipe",
                found="the work of another one; it differs in: " + "; ".join(line.strip() for line in changed[:6]),
                harm="what was trained under one recipe would be reported under another",
                mend="give another --out, or --fresh to remove that work and begin anew",
            )
        held = known.get(_LEARNT_FROM) or {}
        free = _WHOLE if parts and held == parts else ()
        for name, value in {**(parts if held else {}), **fingerprints}.items():
            was = held.get(name) if name in parts else known.get(name)
            if was != value and name not in free:
                raise RecipeError(
                    str(self.folder),
                    expected=f"the {name} that this run began with ({(was or '')[:12]})",
                    found=f"another ({value[:12]})",
                    harm="the run would go on with other inputs than it began with",
                    mend="restore them, give another --out, or --fresh to begin anew (test rows alone may be changed)",
                )
        if all(known.get(name) == fingerprints.get(name) for name in _WHOLE):
            return False
        write_sealed(identity, {**new, _EARLIER: [*known.get(_EARLIER, []), known["data"]]})
        return True

    def earlier_data(self) -> list[str]:
        """Fingerprints of the data before each change of the test rows that came after a training had begun."""
        return list(read_sealed(self.work / "identity.json").get(_EARLIER, []))


class History:
    """The records of one training, a JSON line each; a resumed training drops what it will do again.

    Args:
        path: The file.
        role: `teacher`, `student`, `baseline`, `student stage 1`, `assistant 1` and so on.
        seed: Of this training.
        resumed_at: The step from which the training goes on.
    """

    def __init__(self, path: Path, role: str, seed: int, *, resumed_at: int) -> None:
        self.path, self.role, self.seed = path, role, seed
        kept = [line for line in read_lines(path) if line["step"] <= resumed_at]
        self.before, text = "", ""  # the digest of the last line
        for line, self.before in sealed_lines(kept):
            text += line
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")

    def write(self, record: StepRecord | EvaluationRecord) -> None:
        """Adds a record."""
        data = {"role": self.role, "seed": self.seed, **asdict(record)}
        ((line, self.before),) = sealed_lines([data], self.before)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)


def notes_on_training(histories: Sequence[Path]) -> list[str]:
    """How many of the rows that a model was trained on taught it nothing, a line for each role and reason."""
    rows, lost = Counter[str](), Counter[tuple[str, str]]()
    for path in histories:
        for record in read_lines(path):
            rows[record["role"]] += record.get("rows", 0)
            for reason in _REASONS:
                lost[record["role"], reason] += record.get(reason, 0)
    return [
        f"{role}: {count:,} of the {rows[role]:,} rows in its batches ({count / rows[role]:.2%}) {_REASONS[reason]}"
        for (role, reason), count in lost.items()
        if count
    ]


_REASONS = {
    "unanswered": "have no answer of the teacher: they taught nothing of it, and are in no mean of its losses",
    "empty": "have no token: they taught nothing, and are in no mean",
}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a training's history; a last line cut off by a kill is dropped.

    Raises:
        CheckpointError: A line is not what was written, or lines of a complete training are missing.
    """
    complete = path.with_name(DONE).exists()
    if not path.exists() and not complete:
        return []
    try:
        text = path.read_bytes().decode()
        records = list(unsealed_lines(text))
        if complete and (text[-1:] != "\n" or records[-1]["step"] < read_done(path.parent)["step"]):
            raise Damaged("its last lines are missing")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); restore it, or remove the folder {path.parent}, and the same command does "
            "that training again"
        ) from error
    return records
