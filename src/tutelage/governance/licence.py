"""Whether a teacher may be learnt from: one record for each, in the recipe, and with it in the bundle."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tutelage.errors import RecipeError, did_you_mean

__all__ = ["LearntFrom", "Licence", "LicenceRecord", "check_licences", "licence_records", "teachers_within"]

OWN = "own work: trained in the run, or built from the user's own code; the recipe states nothing else"
NOT_STATED = "it comes from elsewhere, and the recipe has no record of its licence"


class LearntFrom(Protocol):
    """What a licence is about: a `Teacher`, or a model that writes texts."""

    @property
    def comes_from_elsewhere(self) -> bool:
        """Whether somebody else may have made it."""

    @property
    def inner(self) -> Mapping[str, LearntFrom]:
        """Those that it asks, by name; empty where it answers itself."""

    def describe(self) -> str:
        """Its short name."""


@dataclass(kw_only=True)
class Licence:
    """What is known of the terms on which a teacher may be learnt from.

    Args:
        use: Whether the terms allow that another model is trained on its answers. `unknown` needs `accept_unknown`.
        basis: What that rests on: the name of the licence and where it stands, a contract, a mail.
        date: When it was looked up, as YYYY-MM-DD: terms change.
        accept_unknown: Distil although the use is unknown. It is said in the bundle, on its page and on its card.
    """

    use: Literal["allowed", "disallowed", "unknown"]
    basis: str
    date: str
    accept_unknown: bool = False

    def check(self, key: str) -> None:
        """Refuses a record that says nothing.

        Raises:
            RecipeError: Naming the field below `key`.
        """
        if not self.basis.strip():
            raise RecipeError(
                f"{key}.basis",
                expected="what the record rests on, such as `MIT, LICENSE of the package`",
                found="nothing",
                harm="nobody could tell later whether it was right",
                mend="name the licence, or say what was looked for in vain",
            )
        try:
            datetime.date.fromisoformat(self.date)
        except (TypeError, ValueError):
            raise RecipeError(
                f"{key}.date",
                expected="the day on which the terms were looked up, as YYYY-MM-DD",
                found=repr(self.date),
                mend='write it in quotes: date: "2026-01-31"',
            ) from None


@dataclass(frozen=True, kw_only=True)
class LicenceRecord:
    """What holds for one teacher.

    Attributes:
        key: Where the recipe names the teacher: `teacher`, `teacher.deep`, `earlier_stages[0].teacher`.
        teacher: Its short name.
        licence: What the recipe states, or what the rule makes of it.
        stated: Whether the recipe states it.
    """

    key: str
    teacher: str
    licence: Licence
    stated: bool

    def to_dict(self) -> dict[str, Any]:
        """As `provenance.json` has it."""
        licence = self.licence
        return {
            "teacher": self.teacher,
            "use": licence.use,
            "basis": licence.basis,
            "date": licence.date or None,
            "stated_in_the_recipe": self.stated,
            "accepted_although_unknown": licence.use == "unknown" and licence.accept_unknown,
        }

    def sentence(self) -> str:
        """As card and page say it."""
        licence = self.licence
        when = f" ({licence.date})" if licence.date else ""
        accepted = " It was accepted explicitly." if licence.use == "unknown" and licence.accept_unknown else ""
        return f"Learning from {self.key} ({self.teacher}) is {licence.use}: {licence.basis}{when}.{accepted}"


def teachers_within(key: str, teacher: LearntFrom) -> Iterator[tuple[str, LearntFrom]]:
    """The teachers that answer themselves, with their keys; one that asks others stands for those."""
    if not teacher.inner:
        yield key, teacher
    for name, each in teacher.inner.items():
        yield from teachers_within(f"{key}.{name}" if name else key, each)


def licence_records(teachers: Mapping[str, LearntFrom], licences: Mapping[str, Licence]) -> list[LicenceRecord]:
    """What holds for each teacher that answers itself.

    A record for a teacher that asks others holds for each of those that has no record of its own. Without any, a
    teacher that comes from elsewhere (`Teacher.comes_from_elsewhere`) is `unknown`, and others are own work.
    """
    records = []
    for root, teacher in teachers.items():
        for key, each in teachers_within(root, teacher):
            stated = next((licences[above] for above in _upwards(key, root) if above in licences), None)
            rule = Licence(use="unknown", basis=NOT_STATED, date="")
            if not each.comes_from_elsewhere:
                rule = Licence(use="allowed", basis=OWN, date="")
            name = each.describe()
            records.append(LicenceRecord(key=key, teacher=name, licence=stated or rule, stated=stated is not None))
    return records


def check_licences(teachers: Mapping[str, LearntFrom], licences: Mapping[str, Licence]) -> None:
    """Refuses to learn from a teacher whose terms forbid it, or are unknown and not accepted.

    Raises:
        RecipeError: Naming the teacher, and what the record rests on.
    """
    for key, licence in licences.items():
        licence.check(f"licences.{key}")
    leaves = [(root, key) for root, teacher in teachers.items() for key, _ in teachers_within(root, teacher)]
    known = {above for root, key in leaves for above in _upwards(key, root)}
    for key in licences:
        if key not in known:
            raise RecipeError(
                f"licences.{key}",
                expected="the key of a teacher of this recipe",
                found="no such teacher",
                harm="the record would hold for nobody",
                mend=did_you_mean(key, known),
            )
    for record in licence_records(teachers, licences):
        _require(record)


def _require(record: LicenceRecord) -> None:
    licence, key = record.licence, f"licences.{record.key}"
    if licence.use == "disallowed":
        raise RecipeError(
            key,
            expected="a teacher that may be learnt from",
            found=f"{record.teacher}, of which that is disallowed: {licence.basis} ({licence.date})",
            harm="the student would be made against the terms of its teacher",
            mend="use another teacher; if the terms have changed, change the record with its date",
        )
    if licence.use == "unknown" and not licence.accept_unknown:
        raise RecipeError(
            key,
            expected="a record that it may be learnt from",
            found=f"{record.teacher}, of which that is unknown: {licence.basis}",
            harm="the student may turn out to be made against the terms of its teacher",
            mend="say that it is your own work, or look its licence up and state it, or say that it is unknown and "
            "accept that (the card tells of it); one of these lines:\n"
            "            licences:\n"
            f'              "{record.key}": {{use: allowed, basis: own work, date: "{datetime.date.today()}"}}\n'
            f'              "{record.key}": {{use: allowed, basis: NAME OF THE LICENCE AND WHERE IT STANDS, '
            'date: "YYYY-MM-DD"}\n'
            f'              "{record.key}": {{use: unknown, accept_unknown: true, basis: WHAT WAS LOOKED FOR, '
            'date: "YYYY-MM-DD"}',
        )


def _upwards(key: str, root: str) -> Iterator[str]:
    """`teacher.a.b`, `teacher.a`, `teacher`: the keys whose record may hold for a teacher, the nearest first."""
    names = key.removeprefix(root).split(".")
    for count in range(len(names), 0, -1):
        yield root + ".".join(names[:count])
