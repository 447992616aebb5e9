"""Weights from files, strictly, and never by unpickling."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from tutelage.errors import ModelError
from tutelage.paths import resolve_path

__all__ = ["PICKLES", "load_weights", "name_some", "refuse_pickle", "require_numbers"]

PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})
"""Suffixes of files that hold, or may hold, a pickle."""


def load_weights(module: nn.Module, file: str, key: str) -> None:
    """Copies the weights of a safetensors file into `module`; each name and shape must fit.

    Args:
        module: The model to fill.
        file: A path, or `package:NAME/sub/path`.
        key: How to name the file in messages.

    Raises:
        ModelError: The file does not exist, is a pickle or damaged, or its tensors are not exactly those of `module`.
    """
    if Path(file).suffix != ".safetensors":
        refuse_pickle(Path(file), key)
    path = resolve_path(file, key=key, error=ModelError)
    try:
        missing, unexpected = load_model(module, path, strict=False)
    except (SafetensorError, RuntimeError, OSError) as error:  # damaged; shapes that differ; a folder
        raise ModelError(
            key,
            expected=f"the weights of {type(module).__name__} in safetensors format",
            found=f"{path}: {error}",
            mend="give the file that was saved from this architecture with these arguments",
        ) from error
    if missing or unexpected:
        found = [f"missing: {name_some(missing)}"] * bool(missing)
        found += [f"unexpected: {name_some(unexpected)}"] * bool(unexpected)
        raise ModelError(
            key,
            expected=f"exactly the weights of {type(module).__name__}",
            found=f"{path}: {'; '.join(found)}",
            harm="weights that are missing would keep random values",
            mend="give the file that was saved from this architecture, or rename the tensors in it",
        )


def refuse_pickle(path: Path, key: str, *, target: str | None = None) -> None:
    """Raises the `ModelError` that says why `path` is not loaded, and how to convert it.

    Args:
        path: A file that is not in safetensors format.
        key: How to name it in messages.
        target: The name of the converted file; `path` with another suffix by default.
    """
    if path.suffix in PICKLES:
        found, harm = f"{path.name}, a pickle", "unpickling runs whatever code the file holds"
    else:
        found, harm = f"{path.name}, of an unknown format", ""
    target = target or path.with_suffix(".safetensors").name
    raise ModelError(
        key,
        expected="a .safetensors file",
        found=found,
        harm=harm,
        mend="convert it once, in Python:\n"
        "            import torch, safetensors.torch\n"
        f'            weights = torch.load("{path.name}", map_location="cpu", weights_only=True)\n'
        "            weights = {name: tensor.clone().contiguous() for name, tensor in weights.items()}\n"
        f'            safetensors.torch.save_file(weights, "{target}", {{"format": "pt"}})',
    )


def require_numbers(module: nn.Module, key: str) -> None:
    """Raises a `ModelError` that names the first parameter with a NaN or an infinity in it."""
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise ModelError(
                key,
                expected="finite weights",
                found=f"NaN or infinity in `{name}`",
                harm="each answer, and each student taught with it, would be NaN",
                mend="use a checkpoint from before the training diverged",
            )


def name_some(names: Collection[str], at_most: int = 6) -> str:
    """The first few of `names`, and how many there are."""
    shown = ", ".join(sorted(names)[:at_most])
    return shown if len(names) <= at_most else f"{shown}, ... ({len(names)} in all)"
