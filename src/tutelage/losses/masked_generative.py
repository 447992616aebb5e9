"""Masked generative distillation: from a part of its own map the student is to generate the teacher's whole one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tutelage.losses.base import Weight, require_choice
from tutelage.losses.layer_pairs import Pairs
from tutelage.losses.map_pairs import MapPairs
from tutelage.losses.maps import Resize
from tutelage.losses.networks import Networks
from tutelage.losses.reduce import widen
from tutelage.signals import Batch, Signals

__all__ = ["MaskedGenerative", "scattered"]


def scattered(keys: Tensor, count: int) -> Tensor:
    """Numbers in [0, 1) that look drawn at random, `count` for each key: `[B]` int64 -> `[B, count]` float64.

    Each is a function of its key and its place alone: the same on every device, in any batch and after resuming.
    """
    places = torch.arange(count, device=keys.device)
    return _mixed(_mixed(keys)[:, None] + places).double() / 2**32


def _mixed(number: Tensor) -> Tensor:
    """A 32-bit integer hash: each bit of the result depends on every bit of the number's lowest 32."""
    number = number & 0xFFFFFFFF
    for _ in range(2):
        # Factors below 2^31 keep the products within int64.
        number = ((number ^ (number >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return number ^ (number >> 16)


def generator(channels: int) -> nn.Sequential:
    """Two 3x3 convolutions with a ReLU between them."""
    first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.ReLU(), second)


class MaskedGenerative(MapPairs):
    """`Σ_chw (t - G(M · a(s)))²`: a random part of the student's map is set to 0, and `G` generates the teacher's.

    `a` is a 1x1 convolution with bias where widths differ, `G` two 3x3 convolutions with bias and a ReLU between them,
    both made by `prepare`; they train with the loss and do not ship. The mask `M` is 0 with probability `ratio` for
    each place (all its channels), or for each channel (all its places).

    Paper and official code agree in the formula. In the paper the mask is over places; the code for classification
    masks channels, with a ratio of 0.15 and weight 7e-5, that for detection and segmentation places, with 0.45 and 5e-7
    (detectors of two stages), 0.65 and 2e-5 (of one) or 0.75 and 2e-5 (segmentation).

    The mask is a function of the row's number, its view, the share of the training that is done, the layer and `seed`.
    So a row has the same mask in whatever batch it comes, in one piece or several, on any process and after resuming,
    and another one at the next step.

    Shapes: layers `[B, C, H, W]` -> `[B]`. Values are averaged over pairs; the paper sums over the levels of a pyramid.

    When to use it: convolutional networks, on the last feature map for classification, on the levels of the pyramid for
    detection. It asks of the student a map from which the teacher's can be told, not one that equals it.

    Cost: `18·C_t²·H·W` multiplications a sample and pair forward, twice that backward.

    Source: Yang, Li, Shao, Shi, Yuan, Yuan, "Masked Generative Distillation", 2022.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        ratio: The share that is masked, from 0 to below 1.
        masked: Whether `places` or `channels` are masked.
        seed: Another one gives other masks.
        resize: What to do with maps of different size: `refuse` them, average-`pool` the larger one to the size of
            the smaller, or `interpolate` the student's to the size of the teacher's (bilinear).
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, `ratio` is out of its range, or an argument is none of its choices.
    """

    def __init__(
        self,
        pairs: Pairs,
        ratio: float = 0.65,
        *,
        masked: Literal["places", "channels"] = "places",
        seed: int = 0,
        resize: Resize = "refuse",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, resize=resize, projector="where_widths_differ", weight=weight)
        if not 0 <= ratio < 1:
            raise ValueError(f"ratio must be from 0 to below 1, found {ratio}")
        require_choice("masked", masked, ("places", "channels"))
        self.ratio = ratio
        self.masked = masked
        self.seed = seed
        self.generators = Networks()

    def prepare(self, student: Signals, teacher: Signals, batch: Batch) -> None:
        """Makes the generators."""
        for path, teacher_path in self.pairs.items():
            s, t = student.features[path], teacher.features[teacher_path]
            if s.dim() == t.dim() == 4:
                self.generators.ensure(path, lambda t=t: generator(t.shape[1]), s, t)  # type: ignore[misc]
        super().prepare(student, teacher, batch)

    def mask(self, path: str, maps: Tensor, batch: Batch) -> Tensor:
        """1 where the maps of a layer are seen and 0 where they are masked: `[B, 1, H, W]` or `[B, C, 1, 1]`."""
        size, channels, height, width = maps.shape
        shape = (size, 1, height, width) if self.masked == "places" else (size, channels, 1, 1)
        # 30 bits of the progress tell apart the steps of any training.
        key = torch.full_like(batch.rows, self.seed, dtype=torch.long)
        for part in (int(self.progress * 2**30), list(self.pairs).index(path), batch.rows, batch.views):
            key = _mixed(key) + part
        count = shape[1] * shape[2] * shape[3]
        return (scattered(key, count) >= self.ratio).to(maps.dtype).view(shape)

    def compare_maps(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The squared error of what is generated for one pair: `[B]`."""
        generated = self.generators.run(path, student * self.mask(path, student, batch))
        generated, teacher = widen(generated, teacher)
        return (teacher - generated).square().flatten(1).sum(1)
