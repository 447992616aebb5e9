"""Channel-wise distillation: each channel's map is a distribution over places."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from tutelage.losses.base import Weight, require_choice
from tutelage.losses.kl_divergence import softmax_kl
from tutelage.losses.layer_pairs import Pairs
from tutelage.losses.logits import require_positive
from tutelage.losses.map_pairs import MapPairs, Projection
from tutelage.losses.maps import Resize
from tutelage.signals import Batch

__all__ = ["ChannelWise"]


class ChannelWise(MapPairs):
    """`(T²/C) · Σ_c KL(softmax(t_c/T) ‖ softmax(s_c/T))`, each softmax over the H·W places of channel `c`.

    With `axis: "channels"` each softmax is over the channels of a place instead, and the mean is over the H·W places:
    the pixel-wise distillation that the paper compares with.

    Paper and official code agree in value. The code takes the logarithm of a softmax, which is infinite where a place
    is improbable to 1e-38; here both are one operation.

    Shapes: layers `[B, C, H, W]` -> `[B]`. Values are averaged over pairs.

    When to use it: segmentation and detection, where it matters at which places a channel is active. Pair the layers
    that put out the logits of the classes, or the last feature maps.

    Cost: negligible, no parameters but the projector.

    Source: Shu, Liu, Gao, Yan, Shen, "Channel-wise Knowledge Distillation for Dense Prediction", 2021.

    Args:
        pairs: Student's layer -> teacher's layer, each a dotted module path; or `auto`.
        temperature: `T > 0`.
        axis: What each distribution is over: the `places` of a channel, or the `channels` of a place.
        resize: What to do with maps of different size: `refuse` them, average-`pool` the larger one to the size of
            the smaller, or `interpolate` the student's to the size of the teacher's (bilinear).
        projector: When a trained 1x1 convolution brings the student's map to the teacher's width.
        weight: Factor of this term in the total.

    Raises:
        ValueError: There are no pairs, `temperature` is not positive, or an argument is none of its choices.
    """

    def __init__(
        self,
        pairs: Pairs,
        temperature: float = 4.0,
        *,
        axis: Literal["places", "channels"] = "places",
        resize: Resize = "refuse",
        projector: Projection = "where_widths_differ",
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(pairs, resize=resize, projector=projector, weight=weight)
        require_positive("temperature", temperature)
        require_choice("axis", axis, ("places", "channels"))
        self.temperature = temperature
        self.axis = axis

    def compare_maps(self, path: str, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The mean divergence of one pair of maps: `[B]`."""
        s, t = student.flatten(2), teacher.flatten(2)
        if self.axis == "channels":
            s, t = s.mT, t.mT
        return softmax_kl(s, t, self.temperature).mean(1)
