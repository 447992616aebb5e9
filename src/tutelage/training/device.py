"""Which device a run trains on, where the recipe names one."""

from __future__ import annotations

import os
import re

import torch
from accelerate.state import AcceleratorState, PartialState

from tutelage.errors import RecipeError

__all__ = ["use_device"]

_VARIABLE = "ACCELERATE_TORCH_DEVICE"
_named: list[str] = []
"""The device that a recipe has named in this process: one that the environment names is not ours to take back."""


def use_device(name: str | None) -> None:
    """Has this process train on a device: `cpu`, `cuda`, `cuda:N` or `mps`. None: the fastest that there is.

    Raises:
        RecipeError: It is not here, or several processes were launched, which take a device each.
    """
    if name is not None:
        _require(name)
    if name == (_named[-1] if _named else None):
        return
    _named[:] = [] if name is None else [name]
    if name is None:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = name
    AcceleratorState._reset_state(reset_partial_state=True)  # else the first device of a process would be its last
    PartialState()
    if name is not None and name.startswith("cuda"):
        torch.cuda.set_device(torch.device(name).index or 0)


def _require(name: str) -> None:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise RecipeError(
            "device",
            expected="none: each of several processes takes a device of its own",
            found=f"{name!r}, with {processes} processes",
            mend="remove it, and choose devices by CUDA_VISIBLE_DEVICES",
        )
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = ["cpu", *(["cuda"] if cuda else []), *(f"cuda:{number}" for number in range(cuda))]
    here += ["mps"] if torch.backends.mps.is_available() else []
    if name not in here:
        meant = [each for each in here if each in ("cuda", "mps")] or ["cpu"]
        by_default = f"write device: {' or '.join(meant)}, or leave it out: the fastest that is here is taken"
        known = re.fullmatch(r"cpu|mps|cuda(:\d+)?", name)
        raise RecipeError(
            "device",
            expected=f"a device of this machine: {', '.join(here)}",
            found=repr(name) + ("" if known else ", which is the name of none"),
            mend="threads of the CPU are set by OMP_NUM_THREADS" if name.startswith("cpu:") else by_default,
        )
