"""Any torch module as a teacher."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.parameter import is_lazy

from tutelage.errors import ModelError, UserError, blame
from tutelage.teachers.gives import Gives
from tutelage.teachers.torch_teacher import TorchTeacher
from tutelage.teachers.weights import load_weights

__all__ = ["ModuleTeacher", "made_by", "require_shapes"]


class ModuleTeacher(TorchTeacher):
    """A torch module whose forward gives a tensor, or an object with `.logits`.

    In a recipe:
    ```yaml
    teacher:
      class_path: tutelage.teachers.ModuleTeacher
      init_args:
        module:
          class_path: my_models.ResNet
          init_args: {depth: 18}
        weights: resnet18.safetensors
    ```

    Args:
        module: A class or function that makes the module, or (in Python) the module itself, which is then used as it
            is: it is moved and set to eval mode, not copied.
        weights: A safetensors file that holds exactly the module's weights; None keeps those it is made with.
        gives: What the module's output is: logits; probabilities of classes (its forward ends in softmax); independent
            probabilities (it ends in a sigmoid); or values.
    """

    def __init__(
        self, module: Callable[[], nn.Module] | nn.Module, weights: str | None = None, *, gives: Gives = "logits"
    ) -> None:
        # The property `module` of every teacher is the loaded module; `vars(self)` holds the argument of that name.
        vars(self)["module"] = module
        self.weights = weights
        self.gives = gives

    def make(self) -> nn.Module:
        """The module with its weights.

        Raises:
            ModelError: `module` makes something else than a module, or the weights don't fit it.
        """
        given: Callable[[], nn.Module] | nn.Module = vars(self)["module"]
        module = given if isinstance(given, nn.Module) else made_by(given, "teacher.module")
        require_shapes(module, "teacher.module")
        if self.weights is not None:
            load_weights(module, self.weights, "teacher.weights")
        return module

    def describe(self) -> str:
        """The module's class, and the file of its weights."""
        given = vars(self)["module"] if self.module is None else type(self.module)
        name = getattr(given, "__name__", type(given).__name__)
        return f"{name} with the weights of {self.weights}" if self.weights else name


def made_by(factory: Callable[[], nn.Module], key: str) -> nn.Module:
    """What `factory` makes.

    Raises:
        ModelError: It raises an error, or it makes no `torch.nn.Module`.
    """
    try:
        module: object = factory()
    except UserError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ModelError(
            key,
            expected="a class or function that makes a torch.nn.Module",
            found=f"one that raises {blame(error)}",
            mend="look at its arguments under `init_args`, and at its code",
        ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(
            key,
            expected="a class or function that makes a torch.nn.Module",
            found=f"one that makes a {type(module).__name__}",
            mend="name the class of the model, and its arguments under `init_args`",
        )
    return module


def require_shapes(module: nn.Module, key: str) -> None:
    """Refuses a module with lazy parts that have not been called yet.

    Raises:
        ModelError: Naming the first of them.
    """
    for path, inner in module.named_modules():
        weights = [*inner.parameters(recurse=False), *inner.buffers(recurse=False)]
        if any(is_lazy(weight) for weight in weights):
            raise ModelError(
                key,
                expected="a module whose weights have their shapes",
                found=f"`{path}`: {type(inner).__name__}, which gets them when it is first called",
                harm="there is nothing yet to count, copy or start from the same way for each seed",
                mend="state its number of inputs (nn.Linear(in, out) for nn.LazyLinear(out)), or call the module once "
                "on an example in the function that makes it",
            )
