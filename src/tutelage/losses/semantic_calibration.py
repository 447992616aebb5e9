"""Semantic calibration: each layer of the student learns from all layers of the teacher, as much as fits (SemCKD)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import SignalError
from tutelage.losses.base import Loss, Needs, Weight
from tutelage.losses.logits import require_positive
from tutelage.losses.maps import same_size
from tutelage.losses.reduce import full_precision, unit, widen
from tutelage.losses.review_kd import as_maps, convolve
from tutelage.losses.rows import squared_distance
from tutelage.signals import Batch, Request, Signals

__all__ = ["Regressor", "SemanticCalibration", "SimilarityEmbedding", "calibrated", "similarities"]


def similarities(features: Tensor, samples: int) -> Tensor:
    """The dot products of each sample's features with those of all samples: `[B, ...]` -> `[B, samples]`.

    Columns of samples that the batch does not have are 0.
    """
    flat = features.flatten(1)
    with full_precision(flat):
        products = flat @ flat.T
    return F.pad(products, (0, samples - len(products)))


def calibrated(queries: Tensor, keys: Tensor, distances: Tensor, temperature: float) -> Tensor:
    """`(1/L) · Σ_l Σ_t softmax_t(q_l · k_t / T) · d_lt`: the distances, weighted by how alike two layers are.

    Args:
        queries: Of the student's layers, `[B, L, D]`.
        keys: Of the teacher's layers, `[B, T, D]`.
        distances: Between their features, `[B, L, T]`.
        temperature: `T` of the softmax over the teacher's layers.

    Returns:
        `[B]`.
    """
    with full_precision(queries):
        alike = queries @ keys.transpose(1, 2)
    return (torch.softmax(alike / temperature, -1) * distances).sum(-1).mean(-1)


class SimilarityEmbedding(nn.Module):
    """Two linear maps with a ReLU between them, `[B, samples]` -> unit vectors `[B, width]`."""

    def __init__(
        self, samples: int, width: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.inner = nn.Linear(samples, 2 * width, device=device, dtype=dtype)
        self.outer = nn.Linear(2 * width, width, device=device, dtype=dtype)

    def forward(self, rows: Tensor) -> Tensor:
        """Unit vectors in the type of the rows."""
        with full_precision(rows):
            return unit(_linear(self.outer, F.relu(_linear(self.inner, rows))))


class Regressor(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 with ReLUs between them, from the student's channels to the teacher's."""

    def __init__(
        self, student: int, teacher: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(student, 2 * teacher, 1, device=device, dtype=dtype)
        self.second = nn.Conv2d(2 * teacher, 2 * teacher, 3, padding=1, device=device, dtype=dtype)
        self.third = nn.Conv2d(2 * teacher, teacher, 1, device=device, dtype=dtype)

    def widths(self) -> tuple[int, int]:
        """The channels of student and teacher that it was made for."""
        return self.first.in_channels, self.third.out_channels

    def forward(self, maps: Tensor) -> Tensor:
        """`[B, C, H, W]` in the type of the maps."""
        inner = F.relu(convolve(self.second, F.relu(convolve(self.first, maps)).to(maps.dtype)))
        return convolve(self.third, inner.to(maps.dtype)).to(maps.dtype)


def _linear(layer: nn.Linear, rows: Tensor) -> Tensor:
    return F.linear(rows, layer.weight.to(rows.dtype), layer.bias.to(rows.dtype))


class SemanticCalibration(Loss):
    """`(1/L) · Σ_l Σ_t α_lt · mean (t_t - r_lt(s_l))²`, `α_l = softmax_t(q_l · k_t / T)`, for each sample.

    Every layer of the student is compared with every layer of the teacher, through a regressor of its own for each
    pair, and how much a pair counts is learnt: a layer is described by whom its sample is similar to. `q_l` and `k_t`
    are unit vectors that a small network makes of the sample's row in the matrix of dot products of the batch. Where
    maps differ in size the larger one is average-pooled. The networks are made by `prepare`, train with the loss and do
    not ship.

    The networks read rows as long as the batch, so the authors leave the last, smaller batch of an epoch out. Here
    their length is `samples`, and columns that a smaller batch lacks are 0. The authors' regressors have batch norms;
    these are left out here, for they would tie the regressors too to the piece of the batch at hand.

    Shapes: layers `[B, C, H, W]`, or vectors `[B, D]`, which are maps of one place -> `[B]`.

    When to use it: convolutional networks whose layers do not correspond, so that pairs would be a guess. It compares
    the samples of a batch (`per_sample` is False): it is another loss for another batch size, and accumulating small
    batches is not the same as one large one.

    Cost: a regressor for each of the `L·T` pairs: `2·C_t·(C_s + 19·C_t)` multiplications a place forward, twice that
    backward, and as many parameters; this is often more than the student. The rest is small.

    Source: Chen, Mei, Zhang, Wang, Wang, Feng, Chen, "Cross-Layer Distillation with Semantic Calibration", 2021. The
    form is that of the authors' code; its later version has the temperature.

    Args:
        layers: The student's layers, dotted module paths.
        teacher_layers: The teacher's.
        samples: The most samples that are compared at once: the batch size, or that of a piece of it.
        reduction: `q` and `k` have `samples / reduction` numbers.
        temperature: `T > 0` of the softmax over the teacher's layers; a lower one decides for fewer layers.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no layers or one is named twice, `samples` is below 2, `reduction` below 1, or
            `temperature` is not positive.
    """

    per_sample: ClassVar[bool] = False
    fewest_rows: ClassVar[int] = 2

    def __init__(
        self,
        layers: list[str],
        teacher_layers: list[str],
        samples: int,
        *,
        reduction: int = 4,
        temperature: float = 1.0,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        for name, paths in (("layers", layers), ("teacher_layers", teacher_layers)):
            if not paths or len(set(paths)) < len(paths):
                raise ValueError(f"{name} must name at least one layer, each once, found {paths}")
        if samples < 2 or reduction < 1:
            raise ValueError(f"samples must be 2 or more, reduction 1 or more, found {samples} and {reduction}")
        require_positive("temperature", temperature)
        self.layers = layers
        self.teacher_layers = teacher_layers
        self.samples = samples
        self.reduction = reduction
        self.temperature = temperature
        self.queries = nn.ModuleDict()
        self.keys = nn.ModuleDict()
        self.regressors = nn.ModuleDict()

    @property
    def needs(self) -> Needs:
        """The features of all layers."""
        return Needs(
            student=Request(features=frozenset(self.layers)), teacher=Request(features=frozenset(self.teacher_layers))
        )

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the networks for the layers' channels.

        Raises:
            SignalError: A layer gives no maps, or the networks are there already for other channels.
        """
        self._require_maps("student", self.layers, student, batch)
        self._require_maps("teacher", self.teacher_layers, teacher, batch)
        inner = max(1, self.samples // self.reduction)
        for made, paths, signals in (
            (self.queries, self.layers, student),
            (self.keys, self.teacher_layers, teacher),
        ):
            for path in paths:
                if _key(path) not in made:
                    like = signals.features[path]
                    made[_key(path)] = SimilarityEmbedding(self.samples, inner, device=like.device, dtype=_dtype(like))
        for path in self.layers:
            for teacher_path in self.teacher_layers:
                self._ensure_regressor(path, teacher_path, student.features[path], teacher.features[teacher_path])
        super().prepare(student, teacher, batch)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """`[B]`.

        Raises:
            SignalError: The batch holds a single sample, or more than `samples`.
        """
        self._require_samples(batch)
        pairs = {
            (path, other): widen(as_maps(student.features[path]), as_maps(teacher.features[other]))
            for path in self.layers
            for other in self.teacher_layers
        }
        queries = [self._embed(self.queries, path, pairs[path, self.teacher_layers[0]][0]) for path in self.layers]
        keys = [self._embed(self.keys, path, pairs[self.layers[0], path][1]) for path in self.teacher_layers]
        distances = torch.stack([self._distance(*names, *maps) for names, maps in pairs.items()], 1)
        distances = distances.view(len(batch), len(self.layers), len(self.teacher_layers))
        return calibrated(torch.stack(queries, 1), torch.stack(keys, 1), distances, self.temperature)

    def _embed(self, networks: nn.ModuleDict, path: str, maps: Tensor) -> Tensor:
        embedded: Tensor = networks[_key(path)](similarities(maps, self.samples))
        return embedded

    def _distance(self, path: str, teacher_path: str, s: Tensor, t: Tensor) -> Tensor:
        """The mean squared error of one pair, `[B]`."""
        s, t = same_size("SemanticCalibration", path, s, t, "pool")
        regressed = self.regressors[_key(path, teacher_path)](s)
        return squared_distance(regressed.flatten(1), t.flatten(1)) / t[0].numel()

    def _ensure_regressor(self, path: str, teacher_path: str, s: Tensor, t: Tensor) -> None:
        key, widths = _key(path, teacher_path), (s.shape[1], t.shape[1])
        if key not in self.regressors:
            self.regressors[key] = Regressor(*widths, device=s.device, dtype=_dtype(s))
        made = self.regressors[key]
        assert isinstance(made, Regressor)
        if made.widths() != widths:
            raise SignalError(
                f"SemanticCalibration on layer `{path}` of the student and `{teacher_path}` of the teacher",
                expected=f"the channels its regressor was made for, {made.widths()}",
                found=f"shapes {tuple(s.shape)} and {tuple(t.shape)}",
                harm="a new regressor would forget what this one has learnt",
                mend="make a new loss for these models",
            )

    def _require_maps(self, model: str, paths: list[str], signals: Signals, batch: Batch) -> None:
        for path in paths:
            shape = tuple(signals.features[path].shape)
            if len(shape) not in (2, 4) or shape[0] != len(batch):
                raise SignalError(
                    f"SemanticCalibration on layer `{path}` of the {model}",
                    expected=f"maps [B, C, H, W] or vectors [B, D] of a batch of {len(batch)}",
                    found=f"shape {shape}",
                    mend="name convolutional layers or pooled features; for the tokens of transformers use HiddenState",
                )

    def _require_samples(self, batch: Batch) -> None:
        if not 2 <= len(batch) <= self.samples:
            raise SignalError(
                "SemanticCalibration",
                expected=f"2 to {self.samples} samples in a batch, or in a piece of one",
                found=f"{len(batch)}",
                harm="a sample is described by the others: alone it is like none, and the networks read no more than "
                "`samples` of them",
                mend="set `samples` to the batch size, and leave out a last batch of a single sample",
            )


def _key(*paths: str) -> str:
    return " to ".join(paths).replace(".", "/")


def _dtype(features: Tensor) -> torch.dtype:
    """The type of the networks for these features: float32 or wider, for the steps of an optimiser are too small."""
    return torch.promote_types(features.dtype, torch.float32)
