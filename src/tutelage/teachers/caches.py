"""Caches within a teacher, and the teacher within its cache."""

from __future__ import annotations

from tutelage.teachers.base import Teacher
from tutelage.teachers.cached import Cached

__all__ = ["cached_teachers", "uncached"]


def cached_teachers(teacher: Teacher) -> list[Cached]:
    """Every `Cached` that a teacher is or is made of, the inner ones first."""
    inner: list[Cached] = []
    for value in vars(teacher).values():
        members = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
        inner += [found for each in members if isinstance(each, Teacher) for found in cached_teachers(each)]
    return [*inner, teacher] if isinstance(teacher, Cached) else inner


def uncached(teacher: Teacher) -> Teacher:
    """The teacher itself, where its answers are stored."""
    return uncached(teacher.teacher) if isinstance(teacher, Cached) else teacher
