"""Students that start from what another one has learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from tutelage.errors import ModelError, RecipeError
from tutelage.paths import resolve_path
from tutelage.students.base import Student
from tutelage.taps import find_layer
from tutelage.teachers import Teacher
from tutelage.teachers.weights import name_some, refuse_pickle

__all__ = ["PretrainedStudent"]


class PretrainedStudent(Student):
    """Transfer learning: a student some of whose layers start from weights that were distilled before.

    The baseline beside it is the same student from nothing: what lies between the two is what the representation is
    worth for the new task. Give losses against labels alone to fine-tune it, or add a teacher's.

    ```yaml
    student:
      class_path: PretrainedStudent
      init_args:
        student: {class_path: ModuleStudent, init_args: {module: {class_path: models.Perceptron, init_args: {...}}}}
        weights: runs/representation/bundle
        layers: [hidden]
    ```

    Args:
        student: How the student is made, with random or other weights.
        weights: A bundle, or a safetensors file.
        layers: Dotted paths of the layers that start from these weights; the others stay as they are made.

    Raises:
        RecipeError: No layer is named.
    """

    def __init__(self, student: Student, weights: str, layers: list[str]) -> None:
        if not layers:
            raise RecipeError(
                "student.layers",
                expected="at least one layer",
                found="none",
                harm="nothing would be taken over",
                mend="name the layers that start from these weights, such as all but the head",
            )
        self.student = student
        self.weights = weights
        self.layers = layers

    def build(self, teacher: Teacher) -> nn.Module:
        """A new student with the layers' weights in place.

        Raises:
            ModelError: There is no such file or layer, or the weights do not fit it.
        """
        module = self.student.build(teacher)
        stored = self._stored()
        for path in self.layers:
            layer = find_layer(module, path, model="student")
            own = layer.state_dict()
            given = {name: stored[f"{path}.{name}"] for name in own if f"{path}.{name}" in stored}
            wrong = [name for name in own if name not in given or given[name].shape != own[name].shape]
            if wrong:
                raise ModelError(
                    "student.weights",
                    expected=f"weights of the layer `{path}` in the shapes of this student",
                    found=f"none that fit {name_some([f'{path}.{name}' for name in wrong])} in {self.weights}",
                    harm="these weights would stay random",
                    mend="leave the layer out of student.layers, or build the student like the one that was stored",
                )
            layer.load_state_dict(given)
        return module

    def deliver(self, module: nn.Module) -> nn.Module:
        """As the student inside does."""
        return self.student.deliver(module)

    @property
    def outputs_in_unit(self) -> bool:
        """Whether those of the student inside do."""
        return self.student.outputs_in_unit

    @property
    def delivered(self) -> Student:
        """What is delivered is made as the student inside is."""
        return self.student.delivered

    def from_nothing(self) -> Student:
        """The student without these weights."""
        return self.student.from_nothing()

    def _stored(self) -> dict[str, Any]:
        path = resolve_path(self.weights, key="student.weights", error=ModelError)
        if path.is_dir():
            inside = (path / "model.safetensors", path / "bundle" / "model.safetensors")
            path = next((file for file in inside if file.is_file()), inside[0])
        if path.suffix != ".safetensors":
            refuse_pickle(Path(path), "student.weights")
        try:
            stored = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                "student.weights",
                expected="a bundle, or a safetensors file",
                found=f"{self.weights}: {error}",
                mend="give the folder `bundle` of a run that is complete",
            ) from error
        standardized = {"shift", "scale"} < stored.keys()  # the layers of such a student are those inside it
        return {name.removeprefix("module.") if standardized else name: weight for name, weight in stored.items()}
