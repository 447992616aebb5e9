"""What decides the last bits of a training beside its recipe, and whether it stayed the same over all of a run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch

from tutelage.errors import CheckpointError
from tutelage.sealed import Damaged, read_sealed, write_sealed
from tutelage.training.setup import make_accelerator

__all__ = ["note_on_surroundings", "read_surroundings", "record_surroundings", "surroundings"]

FILE = "surroundings.json"


def surroundings(*, chunk: int | None = None) -> dict[str, Any]:
    """What sums are computed with: another thread count, library or device adds up in another order.

    Args:
        chunk: Of the recipe: how many rows a model is asked about at once.
    """
    accelerator = make_accelerator()
    device = accelerator.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": accelerator.num_processes,
        "torch": torch.__version__,
        "chunk": chunk,
    }


def record_surroundings(work: Path, here: dict[str, Any], where: str) -> str:
    """Notes in what a training goes on, if it is anything else than before.

    Args:
        work: The folder of the run's work.
        here: `surroundings()`.
        where: Which training, from which step.

    Returns:
        What to tell the user; empty where nothing changed.
    """
    known = read_surroundings(work)
    if known and {**known[-1], "from": ""} == {**here, "from": ""}:
        return ""
    write_sealed(work / FILE, {"every": [*known, {"from": where, **here}]})
    return note_on_surroundings(read_surroundings(work)[-2:])


def read_surroundings(work: Path) -> list[dict[str, Any]]:
    """In what the trainings of a run were made, in their order; each entry says `from` which training on.

    Raises:
        CheckpointError: The file is not what was written.
    """
    path = work / FILE
    try:
        return list(read_sealed(path)["every"]) if path.exists() else []
    except (Damaged, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}). Remove it: the same command goes on, but what the trainings before were "
            "made in is not known then."
        ) from error


def note_on_surroundings(every: list[dict[str, Any]]) -> str:
    """That the promise of equal bits does not hold for a run, and why; empty where it does."""
    changes = []
    for before, after in itertools.pairwise(every):
        differs = [f"{name} {before.get(name)} -> {after.get(name)}" for name in after if _differ(name, before, after)]
        changes.append(f"{', '.join(differs)} from {after['from']}")
    if not changes:
        return ""
    return (
        f"the run went on otherwise than it began ({'; '.join(changes)}): its weights are as good, but not bit for bit "
        "those of a run that was not stopped"
    )


def _differ(name: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
    return name != "from" and before.get(name) != after.get(name)
