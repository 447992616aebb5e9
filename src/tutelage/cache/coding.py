"""How a part is stored: which columns, in which numbers, and what error that causes.

A coding takes positions (rows, or tokens that count) on the first axis. What it gives back is float32.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.cache.parts import Part
from tutelage.errors import SignalError
from tutelage.forms import TopK

__all__ = ["Coding", "Int8", "Likeliest", "LowRank", "Numbers", "coding_of", "fit_low_rank"]

Array = np.ndarray[Any, Any]
Sums = dict[str, float]
"""What an error is computed from; sums of shards add up."""

FIT_POSITIONS = 20_000
"""Positions that a basis is fitted on at most."""


class Coding(abc.ABC):
    """Base of the codings: a pure function of the values, the same on every machine that computes alike."""

    name: ClassVar[str]

    @abc.abstractmethod
    def encode(self, part: Part) -> dict[str, Array]:
        """Columns `[P, ...]` by name; the first decides how many positions there are."""

    @abc.abstractmethod
    def decode(self, columns: dict[str, Array]) -> Part:
        """The part that columns are of, as far as the coding keeps it."""

    def error(self, part: Part, columns: dict[str, Array]) -> Sums:
        """Sums over positions from which `stated` tells the error: `Σ (x - x̂)²` and `Σ x²`."""
        assert isinstance(part, Tensor)
        found = self.decode(columns)
        assert isinstance(found, Tensor)
        exact = part.float()
        return {"squared_error": _sum_of_squares(found - exact), "squared": _sum_of_squares(exact)}

    def shaped(self, column: str, values: Array, shape: tuple[int, ...]) -> Array:
        """A column `[P, width]` as `encode` gave it, for positions of this shape."""
        del column
        return values if values.shape[1:] == shape else values.reshape(len(values), *shape)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data."""
        return {"coding": self.name}


class Numbers(Coding):
    """The values themselves, as float32 or float16.

    Values beyond what float16 can say (±65,504) become the largest it can.
    """

    name = "numbers"

    def __init__(self, dtype: Literal["float32", "float16"]) -> None:
        self.dtype = dtype

    def encode(self, part: Part) -> dict[str, Array]:
        """One column."""
        values = torch.from_numpy(_float32(part))
        if self.dtype == "float16":
            narrow = values.half()
            if values.numel() and float(torch.stack(torch.aminmax(values)).abs().max()) > 65504:
                narrow = torch.where(torch.isfinite(values), values.clamp(-65504, 65504), values).half()
            values = narrow
        return {"values": values.numpy()}

    def decode(self, columns: dict[str, Array]) -> Part:
        """As float32."""
        values = columns["values"]
        return torch.from_numpy(values) if self.dtype == "float32" else torch.from_numpy(values).float()

    def error(self, part: Part, columns: dict[str, Array]) -> Sums:
        """None where float32 is stored."""
        return {} if self.dtype == "float32" else super().error(part, columns)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data."""
        return {"coding": self.name, "dtype": self.dtype}


class Int8(Coding):
    """Whole numbers from -127 to 127 and a scale for each position: `x̂ = q · s`, `s = max |x| / 127`."""

    name = "int8"

    def encode(self, part: Part) -> dict[str, Array]:
        """Columns `values` (int8) and `scale` (float32)."""
        values = _float32(part)
        flat = values.reshape(len(values), -1)
        scale = np.abs(flat).max(axis=1) / np.float32(127)
        safe = np.where(scale > 0, scale, 1).astype(np.float32)
        whole = np.rint(flat / safe[:, None]).clip(-127, 127).astype(np.int8)
        return {"values": whole.reshape(values.shape), "scale": scale.astype(np.float32)}

    def shaped(self, column: str, values: Array, shape: tuple[int, ...]) -> Array:
        """See `Coding`."""
        return values[:, 0] if column == "scale" else super().shaped(column, values, shape)

    def decode(self, columns: dict[str, Array]) -> Part:
        """`q · s`."""
        values = torch.from_numpy(columns["values"]).float()
        return values.mul_(torch.from_numpy(columns["scale"]).view(-1, *[1] * (values.dim() - 1)))


class LowRank(Coding):
    """Coefficients of the first principal components of the channels: `x̂ = μ + Vᵀ c`, `c = V (x - μ)` as float16.

    Channels are axis 1 of maps `[P, C, H, W]` and the only one of vectors `[P, C]`.

    Args:
        mean: `μ`, `[C]`.
        basis: `V`, `[rank, C]`, orthonormal rows.
    """

    name = "low_rank"

    def __init__(self, mean: Tensor, basis: Tensor) -> None:
        self.mean = mean
        self.basis = basis

    def encode(self, part: Part) -> dict[str, Array]:
        """Column `coefficients`, `[P, rank, ...]` float16."""
        values = torch.from_numpy(_float32(part)).movedim(1, -1)
        coefficients = ((values - self.mean) @ self.basis.T).movedim(-1, 1)
        return {"coefficients": coefficients.numpy().astype(np.float16)}

    def shaped(self, column: str, values: Array, shape: tuple[int, ...]) -> Array:
        """See `Coding`."""
        return super().shaped(column, values, (len(self.basis), *shape[1:]))

    def decode(self, columns: dict[str, Array]) -> Part:
        """`μ + Vᵀ c`."""
        coefficients = torch.from_numpy(columns["coefficients"].astype(np.float32)).movedim(1, -1)
        return (coefficients @ self.basis + self.mean).movedim(-1, 1).contiguous()

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data; the basis is in a file."""
        return {"coding": self.name, "rank": len(self.basis)}


class Likeliest(Coding):
    """Some classes and the mass of the others: `forms.TopK`.

    Args:
        classes: How many there are.
        temperatures: At which the mass of the others is known.
        k: How many classes of dense logits are kept; None: what the teacher names is stored as it is.
    """

    name = "top_k"

    def __init__(self, classes: int, temperatures: tuple[float, ...], k: int | None) -> None:
        self.classes = classes
        self.temperatures = temperatures
        self.k = k

    def encode(self, part: Part) -> dict[str, Array]:
        """Columns `indices` (the smallest unsigned type), `logits` and `tails` (float32)."""
        top = self._top(part)
        indices = top.indices.numpy().astype(np.min_scalar_type(self.classes - 1))
        return {"indices": indices, "logits": top.logits.float().numpy(), "tails": top.tails.float().numpy()}

    def shaped(self, column: str, values: Array, shape: tuple[int, ...]) -> Array:
        """As wide as it is: how many classes are named may differ between shards."""
        del column, shape
        return values

    def decode(self, columns: dict[str, Array]) -> Part:
        """The form in which losses take it."""
        return TopK(
            indices=torch.from_numpy(columns["indices"].astype(np.int64)),
            logits=torch.from_numpy(columns["logits"]),
            tails=torch.from_numpy(columns["tails"]),
            temperatures=self.temperatures,
            classes=self.classes,
        )

    def error(self, part: Part, columns: dict[str, Array]) -> Sums:
        """`Σ KL(p ‖ p̂)` over positions in nats at temperature 1, `p̂` with the rest's mass spread evenly."""
        if isinstance(part, TopK):
            return {}
        found = self.decode(columns)
        assert isinstance(found, TopK)
        exact = F.log_softmax(part.double(), dim=-1)
        divergence = F.kl_div(found.dense().double(), exact, reduction="sum", log_target=True)
        return {"divergence": float(divergence), "positions": float(exact[..., 0].numel())}

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data."""
        return {
            "coding": self.name,
            "classes": self.classes,
            "temperatures": list(self.temperatures),
            **({} if self.k is None else {"k": self.k}),
        }

    def _top(self, part: Part) -> TopK:
        if isinstance(part, Tensor):
            assert self.k is not None
            return TopK.of(part, self.k, self.temperatures)
        if part.classes != self.classes or part.temperatures != self.temperatures:
            raise SignalError(
                "what the teacher says of its likeliest classes",
                expected=f"{self.classes} classes, at temperatures {self.temperatures}, as in its first answer",
                found=f"{part.classes} classes, at temperatures {part.temperatures}",
            )
        return part


def coding_of(data: dict[str, Any], basis: Tensor | None = None) -> Coding:
    """The coding that `Coding.to_dict` described.

    Args:
        data: Plain data.
        basis: `[1 + rank, C]` for a low-rank coding: the mean, then the components.
    """
    kind = data["coding"]
    if kind == Numbers.name:
        return Numbers(data["dtype"])
    if kind == Int8.name:
        return Int8()
    if kind == Likeliest.name:
        return Likeliest(data["classes"], tuple(data["temperatures"]), data.get("k"))
    assert kind == LowRank.name and basis is not None, f"a coding called {kind}"
    return LowRank(basis[0], basis[1:])


def fit_low_rank(part: Tensor, rank: int) -> LowRank:
    """The first `rank` principal components of the channels (axis 1) of `[P, C, ...]`, from at most 20,000 positions.

    Computed in float64; the largest entry of each component is positive, so that the basis does not depend on the
    solver's signs.
    """
    values = part.movedim(1, -1).reshape(-1, part.shape[1]).double()
    values = values[:: max(1, len(values) // FIT_POSITIONS)]
    mean = values.mean(0)
    centred = values - mean
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    basis = vectors.T.flip(0)[:rank]
    largest = basis.gather(1, basis.abs().argmax(1, keepdim=True))
    return LowRank(mean.float(), (basis * largest.sign()).float().contiguous())


def stated(sums: Sums) -> str:
    """The error of a coding in words, from the sums of its shards; empty where it causes none."""
    if sums.get("positions"):
        return f"KL to the teacher's distribution {max(sums['divergence'], 0.0) / sums['positions']:.2g} nats"
    if sums.get("squared"):
        return f"relative error {(sums['squared_error'] / sums['squared']) ** 0.5:.2g}"
    return ""


def _float32(part: Part) -> Array:
    assert isinstance(part, Tensor)
    array: Array = part.detach().float().contiguous().numpy()
    return array


def _sum_of_squares(values: Tensor) -> float:
    """`Σ x²`; position by position in float32, which is quick, and over positions in float64, which loses nothing."""
    if not values.numel():
        return 0.0
    return float(torch.linalg.vector_norm(values.reshape(len(values), -1), dim=1).double().square().sum())
