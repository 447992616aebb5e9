"""A torch module as the class path and arguments that a bundle records, and back."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.callables import Refused, makes, resolve, runs_code
from tutelage.errors import ModelError
from tutelage.module_factory import ModuleFactory

__all__ = ["build_from_spec", "sequence", "spec_of"]

Spec = dict[str, Any]
"""`{"class_path": "package.module.Name", "init_args": {...}}`; an argument that is a module is a spec itself."""


def build_from_spec(spec: Mapping[str, Any], *, key: str, requires: Sequence[str] = ()) -> nn.Module:
    """Calls the class, or the function, that makes the module; first those that make the modules among its arguments.

    Only what says of itself that it makes a module is called: a subclass of `nn.Module`, or a function whose return
    annotation is one. A bundle is a file from someone else, and may name any function there is.

    Args:
        spec: `{"class_path": "package.module.Name", "init_args": {...}}`.
        key: How to name the file that the spec is from.
        requires: Packages to name where something can't be imported.

    Raises:
        ModelError: It can't be imported here, does not say that it makes a module, or fails.
    """
    path = str(spec["class_path"])
    try:
        factory = resolve(path, nn.Module)
    except Refused as refused:
        install = f"pip install {' '.join(requires)}" if requires else "install the package that defines it"
        raise ModelError(
            f"{key}: class_path `{path}`",
            expected="a subclass of torch.nn.Module that can be imported here, or a function annotated to return one",
            found=refused.found,
            harm="a bundle could have any function called",
            mend=f"{install}, or add its folder to PYTHONPATH; model.onnx runs without it",
        ) from refused
    if not makes(factory, nn.Module):
        raise ModelError(
            f"{key}: class_path `{path}`",
            expected="a subclass of torch.nn.Module, or a function whose return annotation is one",
            found=f"{type(factory).__name__} `{getattr(factory, '__qualname__', path)}`",
            harm="a bundle could have any function called",
            mend=f"annotate it: `def {path.rsplit('.', 1)[-1]}(...) -> nn.Module`",
        )
    arguments = _with_modules(spec.get("init_args") or {}, key, requires)
    try:
        module = factory(**arguments)
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


def _with_modules(value: Any, key: str, requires: Sequence[str]) -> Any:
    """Recorded arguments, with modules in the place of their specs."""
    if isinstance(value, list):
        return [_with_modules(item, key, requires) for item in value]
    if not isinstance(value, Mapping):
        return value
    if isinstance(value.get("class_path"), str) and set(value) <= {"class_path", "init_args"}:
        return build_from_spec(value, key=key, requires=requires)
    for name, item in value.items():
        if runs_code(name, item):
            raise ModelError(
                f"{key}: {name}",
                expected="what it is by default",
                found=repr(item),
                harm="code that comes with some model would be run, which nobody has named",
                mend="build the module yourself and load the weights, or use model.onnx",
            )
    return {name: _with_modules(item, key, requires) for name, item in value.items()}


def sequence(layers: dict[str, nn.Module]) -> nn.Sequential:
    """An `nn.Sequential` of these layers under these names: its own constructor has no names for its arguments."""
    made = nn.Sequential()
    for name, layer in layers.items():
        made.add_module(name, layer)
    return made


def spec_of(module: nn.Module, factories: Mapping[str, Callable[..., nn.Module]]) -> Spec:
    """How a module can be made again, but for its weights: the inverse of `build_from_spec`.

    A part whose factory is given is recorded as that factory, if another process can import it. All else is recorded
    as its class with the arguments that it keeps as attributes under their names, as torch's own layers do. That they
    are the same module has to be checked: a class may keep something else under the name of an argument.

    Args:
        module: The module.
        factories: What makes parts of it, by their dotted path; "" is the module itself.

    Raises:
        ModelError: A part has no factory that can be named, and does not keep its arguments; it says which and why.
    """
    return _Recorder(factories).record(module, "")


class _Unknown(Exception):
    """A factory, or an argument of one, that can't be written down."""


class _Recorder:
    def __init__(self, factories: Mapping[str, Callable[..., nn.Module]]) -> None:
        self.factories = factories

    def record(self, module: nn.Module, path: str) -> Spec:
        """The spec of the module at a dotted path."""
        why = ""
        if path in self.factories:
            try:
                return self._of_factory(self.factories[path], path)
            except _Unknown as error:
                why = f"it is made by {error}, and "
        try:
            return self._of_instance(module, path)
        except _Unknown as error:
            raise ModelError(
                f"`{path}` of the student" if path else "the student",
                expected="a class or function that can be imported, or a class that keeps its arguments as attributes",
                found=f"{why}{error}",
                harm="a bundle can't say how to build it again",
                mend="make it by a class or an annotated function of a module (`def make() -> nn.Module` in a file)",
            ) from error

    def _of_factory(self, factory: Callable[..., nn.Module], path: str) -> Spec:
        target, arguments = _unwrapped(factory)
        name = _import_path(target)
        if not makes(target, nn.Module):
            raise _Unknown(f"`{name}`, which does not say that it makes a module (`-> nn.Module`)")
        return {"class_path": name, "init_args": {n: self._plain(v, n, path) for n, v in arguments.items()}}

    def _of_instance(self, module: nn.Module, path: str) -> Spec:
        if type(module) is nn.Sequential:
            layers = {name: self.record(layer, _joined(path, name)) for name, layer in module.named_children()}
            return {"class_path": f"{__name__}.{sequence.__name__}", "init_args": {"layers": layers}}
        name = _import_path(type(module))
        arguments = {n: self._plain(v, n, path) for n, v in _kept_arguments(module)}
        return {"class_path": name, "init_args": arguments}

    def _plain(self, value: Any, name: str, path: str) -> Any:
        """An argument as JSON holds it; a module as its spec."""
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (list, tuple)):
            return [self._plain(item, name, path) for item in value]
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: self._plain(item, name, path) for key, item in value.items()}
        if isinstance(value, nn.Module):
            return self.record(value, _joined(path, name))
        raise _Unknown(f"the argument `{name}`, a {type(value).__name__}, is not what JSON can hold")


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _unwrapped(factory: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The class or function behind a factory, and the arguments that a partial gives it."""
    if isinstance(factory, ModuleFactory):
        with torch.random.fork_rng(devices=()):
            return factory.target, factory.made_arguments()
    if not isinstance(factory, functools.partial):
        return factory, {}
    try:
        bound = inspect.signature(factory.func).bind_partial(*factory.args, **factory.keywords)
    except (TypeError, ValueError) as error:
        raise _Unknown(f"a partial whose arguments Python can't tell ({error})") from error
    parameters = bound.signature.parameters
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if parameters[name].kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            raise _Unknown("a partial with arguments that have no name")
        arguments |= value if parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return factory.func, arguments


def _import_path(target: Any) -> str:
    """`package.module.Name`, by which another process finds it too."""
    if not (inspect.isclass(target) or inspect.isfunction(target)):
        raise _Unknown(f"a {type(target).__name__}")
    name = target.__qualname__
    if "<" in name:
        raise _Unknown(f"`{name}`, which no import finds")
    if target.__module__ == "__main__":
        raise _Unknown(f"`{name}` of the script that was run, which no other program can import")
    return f"{target.__module__}.{name}"


def _kept_arguments(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The arguments of a module's constructor, read back from its attributes."""
    kind = type(module)
    if kind is nn.Identity:  # takes any arguments and keeps none
        return
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in ("device", "dtype") or name.startswith("_"):
            continue  # where and how the weights lie: they are loaded
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise _Unknown(f"`{kind.__qualname__}` takes any arguments (`{parameter}`)")
        if not hasattr(module, name):
            raise _Unknown(f"`{kind.__qualname__}` does not keep its argument `{name}` as an attribute of that name")
        value = getattr(module, name)
        # Torch's `bias: bool` becomes the parameter `bias`, or None.
        switch = isinstance(parameter.default, bool) and (value is None or isinstance(value, Tensor))
        yield name, value is not None if switch else value
