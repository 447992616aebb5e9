from __future__ import annotations

import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain

from tutelage.losses.embedding_mse import EmbeddingMSE


def golden(n: Numbers) -> Array:
    s, t = n.student["output"], n.teacher["output"]
    if n.trained:
        s = s @ n.trained["projectors.output.weight"].T
    return ((s - t) ** 2).sum(1) / t.shape[1]


CASES = {
    "same width": Case(EmbeddingMSE, {"output": (6,)}, {"output": (6,)}, golden, floor=0.0),
    "projected": Case(lambda: EmbeddingMSE(projector=True), {"output": (3,)}, {"output": (6,)}, golden),
}

PLAIN = {
    "same width": Plain(
        EmbeddingMSE,
        {"output": (768,)},
        {"output": (768,)},
        lambda s, t, labels, loss: F.mse_loss(s["output"], t["output"]),
        samples=2048,
    ),
    "projected": Plain(
        lambda: EmbeddingMSE(projector=True),
        {"output": (384,)},
        {"output": (768,)},
        lambda s, t, labels, loss: F.mse_loss(loss.projectors["output"](s["output"]), t["output"]),
        samples=256,
    ),
}
