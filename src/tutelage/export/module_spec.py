"""A torch module from the class path and arguments that a bundle records."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Mapping
from typing import Any

from torch import nn

from tutelage.errors import ModelError

__all__ = ["build_from_spec"]


def build_from_spec(spec: Mapping[str, Any], *, key: str) -> nn.Module:
    """Calls the class, or the function, that makes the module.

    Only what says of itself that it makes a module is called: a subclass of `nn.Module`, or a function whose return
    annotation is one. A bundle is a file from someone else, and may name any function there is.

    Args:
        spec: `{"class_path": "package.module.Name", "init_args": {...}}`.
        key: How to name the file that the spec is from.

    Raises:
        ModelError: It can't be imported here, does not say that it makes a module, or fails.
    """
    path = str(spec["class_path"])
    factory = _import(path, key)
    if not _makes_modules(factory):
        raise ModelError(
            f"{key}: class_path `{path}`",
            expected="a subclass of torch.nn.Module, or a function whose return annotation is one",
            found=f"{type(factory).__name__} `{getattr(factory, '__qualname__', path)}`",
            harm="a bundle could have any function called",
            mend=f"annotate it: `def {path.rsplit('.', 1)[-1]}(...) -> nn.Module`",
        )
    try:
        module = factory(**(spec.get("init_args") or {}))
    except Exception as error:  # the user's own code may raise anything
        raise ModelError(
            f"{key}: class_path `{path}`",
            expected="that it can be called with the recorded init_args",
            found=f"{type(error).__name__}: {error}",
            mend="install the version of the code that the student was made with",
        ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{key}: class_path `{path}`", expected="a torch module", found=type(module).__name__)
    return module


def _import(path: str, key: str) -> Any:
    parts = path.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for name in parts[split:]:
            found = getattr(found, name, None)
        if found is not None:
            return found
        break
    raise ModelError(
        f"{key}: class_path `{path}`",
        expected="a class or function that can be imported here",
        found="none",
        mend="install the package that defines it, or add its folder to PYTHONPATH; model.onnx runs without it",
    )


def _makes_modules(factory: object) -> bool:
    made: object = factory
    if inspect.isfunction(factory):
        try:
            made = typing.get_type_hints(factory).get("return")
        except Exception:  # annotations may name what can't be resolved here
            return False
    return isinstance(made, type) and issubclass(made, nn.Module)
