"""Checkpoints: a folder for each, written beside and renamed, so a kill at any moment leaves a whole one.

A checkpoint is `tensors.safetensors` (weights of student and losses, state of the optimiser) and `state.json` (the step
and what else is needed to go on). Each carries a digest, which is checked when it is read; the checkpoint before the
newest is kept for when that one is damaged. Nothing is pickled. Random state is not stored: every random number of a
step is a function of (seed, step, process), so a resumed run draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tutelage.errors import CheckpointError
from tutelage.files import replacing
from tutelage.sealed import SEAL, Damaged, read_sealed, write_sealed

__all__ = [
    "Weights",
    "checkpoint_steps",
    "latest_step",
    "load_checkpoint",
    "load_optimizer",
    "load_weights",
    "optimizer_tensors",
    "remove_checkpoints",
    "save_checkpoint",
    "save_weights",
]

TENSORS, STATE = "tensors.safetensors", "state.json"
WHOLE, PARTIAL = re.compile(r"step-(\d{8,})"), re.compile(r"partial-\d+")
_IO_ERROR = re.compile(r"I/O error.*\(os error (\d+)\)")


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in `folder`, the newest first."""
    found = [match for path in folder.glob("step-*") if (match := WHOLE.fullmatch(path.name))]
    return sorted((int(match[1]) for match in found), reverse=True)


def latest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint in `folder`, or None if there is none."""
    return next(iter(checkpoint_steps(folder)), None)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Weights(NamedTuple):
    """Tensors of a training after `step` steps, and their digest."""

    tensors: dict[str, Tensor]
    step: int
    digest: str


def save_weights(path: Path, tensors: dict[str, Tensor], step: int) -> str:
    """Writes tensors as safetensors, atomically, and gives their digest, which the file's metadata holds.

    Tensors that share memory are written one by one.

    Raises:
        OSError: The disk is full, or the file can't be written for another reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    digest = _digest(copies, step)
    with replacing(path) as partial:
        try:
            save_file(copies, partial, metadata={SEAL: digest, "step": str(step)})
        except SafetensorError as error:
            match = _IO_ERROR.search(str(error))
            number = int(match[1]) if match else errno.EIO
            raise OSError(number, os.strerror(number) if match else str(error), str(path)) from error
        _sync(partial)
    return digest


def load_weights(path: Path) -> Weights:
    """The tensors of a file that `save_weights` wrote.

    Raises:
        CheckpointError: The file is missing, or is not what was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            about = file.metadata() or {}
        step = int(about.get("step", 0))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read ({error})") from error
    digest = _digest(tensors, step)
    if about.get(SEAL, digest) != digest:  # a file of an earlier version has none
        raise CheckpointError(f"{path} is damaged: the digest of its tensors is not the one that it was written with")
    return Weights(tensors, step, digest)


def _digest(tensors: dict[str, Tensor], step: int) -> str:
    """SHA-256 over the step and the names, types, shapes and bytes of the tensors."""
    digest = hashlib.sha256(f"{step}\0".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Writes the checkpoint of `step`, keeps the newest one before it, and removes older ones."""
    before = [_path(folder, old) for old in checkpoint_steps(folder) if old != step]
    partial = folder / f"partial-{step}"
    _remove(partial)
    partial.mkdir(parents=True)
    digest = save_weights(partial / TENSORS, tensors, step)
    write_sealed(partial / STATE, {**state, "step": step, "tensors": digest})
    _sync(partial / STATE)
    final = _path(folder, step)
    _remove(final)
    partial.rename(final)
    _sync(folder)
    remove_checkpoints(folder, keep=[final, *before[:1]])


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def remove_checkpoints(folder: Path, *, keep: list[Path] | None = None) -> None:
    """Removes the checkpoints in `folder`, whole and partial, but those to keep."""
    for old in folder.iterdir():
        if old not in (keep or ()) and (WHOLE.fullmatch(old.name) or PARTIAL.fullmatch(old.name)):
            _remove(old)


def _remove(checkpoint: Path) -> None:
    """Removes what a checkpoint consists of; what else is in its folder isn't ours, and stays."""
    for path in _files_of(checkpoint):
        path.unlink(missing_ok=True)
    try:
        checkpoint.rmdir()
    except OSError:  # not there, or not empty
        return


def _files_of(checkpoint: Path) -> Iterator[Path]:
    for name in (STATE, TENSORS):
        yield checkpoint / name
        yield from checkpoint.glob(f".partial-*-{name}")


def load_checkpoint(folder: Path, step: int | None = None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of a checkpoint, or None if there is none.

    Args:
        folder: Of the training.
        step: The step of the checkpoint; by default the newest one.

    Raises:
        CheckpointError: It is damaged.
    """
    step = latest_step(folder) if step is None else step
    if step is None:
        return None
    path = _path(folder, step)
    try:
        state = read_sealed(path / STATE)
    except (OSError, Damaged) as error:
        raise CheckpointError(f"{path / STATE} is damaged: {error}") from error
    weights = load_weights(path / TENSORS)
    if state.get("tensors", weights.digest) != weights.digest or state.get("step") != step:
        raise CheckpointError(f"{path} is damaged: {TENSORS} and {STATE} in it are not of one checkpoint")
    return weights.tensors, state


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
