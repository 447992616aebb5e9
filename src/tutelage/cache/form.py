"""In which form a cache keeps what a teacher says."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

from torch import Tensor

from tutelage.cache.coding import Coding, Int8, Likeliest, Numbers, fit_low_rank
from tutelage.cache.parts import OUTPUT, Part
from tutelage.errors import RecipeError, SignalError, did_you_mean
from tutelage.forms import TopK

__all__ = ["FeatureForm", "Form", "OutputForm"]

OutputForm = Literal["dense", "float16", "top_k"]
FeatureForm = Literal["float32", "float16", "int8", "low_rank"]


@dataclass(frozen=True, kw_only=True)
class Form:
    """What outputs and features are stored as.

    Attributes:
        output: `dense` (float32), `float16`, or `top_k`: the `k` likeliest classes and the mass of the others.
        k: How many classes `top_k` keeps.
        temperatures: At which `top_k` knows the mass of the others; 1 is always among them.
        features: `float32`, `float16`, `int8` (a scale for each row or token) or `low_rank` (principal components).
        rank: How many components `low_rank` keeps.
    """

    output: OutputForm = "dense"
    k: int = 8
    temperatures: tuple[float, ...] = (1.0,)
    features: FeatureForm = "float16"
    rank: int = 64

    def check(self) -> None:
        """Refuses settings that say nothing.

        Raises:
            RecipeError: Naming the argument of `Cached`.
        """
        for key, value, known in (
            ("form", self.output, get_args(OutputForm)),
            ("features", self.features, get_args(FeatureForm)),
        ):
            if value not in known:
                raise RecipeError(
                    key, expected=f"one of {', '.join(known)}", found=repr(value), mend=did_you_mean(value, known)
                )
        for key, number in (("k", self.k), ("rank", self.rank)):
            if number < 1:
                raise RecipeError(key, expected="at least 1", found=str(number))
        if not all(math.isfinite(t) and t > 0 for t in self.temperatures):
            raise RecipeError("temperatures", expected="numbers above 0", found=str(list(self.temperatures)))

    @property
    def lossless(self) -> bool:
        """Whether float32 answers come back bit for bit."""
        return self.output == "dense" and self.features == "float32"

    def to_dict(self) -> dict[str, Any]:
        """What decides how answers are stored: settings that the form does not use are left out."""
        unused = ({"k", "temperatures"} if self.output != "top_k" else set()) | (
            {"rank"} if self.features != "low_rank" else set()
        )
        return {name: _plain(value) for name, value in asdict(self).items() if name not in unused}

    def needs_fitting(self, name: str, part: Part) -> bool:
        """Whether the coding of a part depends on values seen before."""
        return self.features == "low_rank" and not _is_output(name) and cast("Tensor", part).dim() > 1

    def coding(self, name: str, part: Part) -> Coding:
        """The coding of a part; one that has to be fitted is fitted on it.

        Args:
            name: Of the part.
            part: Positions on the first axis.

        Raises:
            SignalError: `top_k` of what is no distribution over classes.
        """
        if isinstance(part, TopK):
            return Likeliest(part.classes, part.temperatures, None)
        if not _is_output(name):
            if self.needs_fitting(name, part):
                return fit_low_rank(part, min(self.rank, part.shape[1]))
            return Int8() if self.features == "int8" else Numbers("float32" if self._wide(part) else "float16")
        if self.output != "top_k":
            return Numbers("float16" if self.output == "float16" else "float32")
        if part.dim() != 2 or part.shape[1] < 2:
            raise SignalError(
                "the form `top_k` of the cached teacher",
                expected="logits of classes, [B, C], or of each token, [B, L, C]",
                found=f"an output of shape {[*part.shape]}",
                harm="the likeliest of what are no classes mean nothing",
                mend="use form: dense or float16",
            )
        return Likeliest(part.shape[1], self._temperatures(), min(self.k, part.shape[1]))

    def _wide(self, part: Tensor) -> bool:
        return self.features == "float32" or (self.features == "low_rank" and part.dim() == 1)

    def _temperatures(self) -> tuple[float, ...]:
        return tuple(sorted({1.0, *self.temperatures}))


def _is_output(name: str) -> bool:
    return name.rpartition("/")[2] == OUTPUT and "features/" not in name


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
