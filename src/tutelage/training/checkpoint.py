"""Checkpoints: a folder for each, written beside and renamed, so a kill at any moment leaves a whole one.

A checkpoint is `tensors.safetensors` (weights of student and losses, state of the optimiser) and `state.json` (the step
and what else is needed to go on). Nothing is pickled. Random state is not stored: every random number of a step is a
function of (seed, step, process), so a resumed run draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tutelage.errors import CheckpointError
from tutelage.files import replacing

__all__ = [
    "latest_step",
    "load_checkpoint",
    "load_optimizer",
    "optimizer_tensors",
    "remove_checkpoints",
    "save_checkpoint",
    "save_weights",
]

PREFIX = "step-"


def latest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint in `folder`, or None if there is none."""
    steps = [int(path.name.removeprefix(PREFIX)) for path in folder.glob(f"{PREFIX}*") if path.name[5:].isdigit()]
    return max(steps, default=None)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes tensors as safetensors, atomically. Tensors that share memory are written one by one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, partial)
        _sync(partial)


def save_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Writes the checkpoint of `step` and removes older ones."""
    partial = folder / f"partial-{step}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_weights(partial / "tensors.safetensors", tensors)
    (partial / "state.json").write_text(json.dumps({**state, "step": step}))
    _sync(partial / "state.json")
    final = folder / f"{PREFIX}{step:08d}"
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _sync(folder)
    remove_checkpoints(folder, keep=final)


def remove_checkpoints(folder: Path, *, keep: Path | None = None) -> None:
    """Removes the checkpoints in `folder`, whole and partial, but `keep`."""
    for old in folder.iterdir():
        if old != keep and old.name.startswith((PREFIX, "partial-")):
            shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of the newest checkpoint, or None if there is none.

    Raises:
        CheckpointError: It is damaged.
    """
    step = latest_step(folder)
    if step is None:
        return None
    path = folder / f"{PREFIX}{step:08d}"
    try:
        return load_file(path / "tensors.safetensors"), json.loads((path / "state.json").read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint {path} is damaged ({error}); remove that folder to start again"
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimiser's state as named tensors and plain data."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            (tensors if isinstance(value, Tensor) else plain)[f"{index}.{name}"] = value
    return tensors, plain


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """The inverse of `optimizer_tensors`, into an optimiser over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**plain, **tensors}.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
