from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, prepared

from tutelage.errors import SignalError
from tutelage.losses.embedding_cosine import EmbeddingCosine, cosine_distance


def golden(n: Numbers) -> Array:
    s, t = n.student["output"], n.teacher["output"]
    if n.trained:
        s = s @ n.trained["projectors.output.weight"].T
    return 1 - (s * t).sum(1) / np.sqrt((s**2).sum(1) * (t**2).sum(1))


CASES = {
    "same width": Case(EmbeddingCosine, {"output": (6,)}, {"output": (6,)}, golden, floor=0.0),
    "projected": Case(lambda: EmbeddingCosine(projector=True), {"output": (3,)}, {"output": (6,)}, golden),
}

PLAIN = {
    "same width": Plain(
        EmbeddingCosine,
        {"output": (768,)},
        {"output": (768,)},
        lambda s, t, labels, loss: 1 - F.cosine_similarity(s["output"], t["output"]).mean(),
        samples=1024,
    ),
    "projected": Plain(
        lambda: EmbeddingCosine(projector=True),
        {"output": (384,)},
        {"output": (768,)},
        lambda s, t, labels, loss: 1 - F.cosine_similarity(loss.projectors["output"](s["output"]), t["output"]).mean(),
        samples=256,
    ),
}


def test_small_angles_are_not_lost_to_cancellation() -> None:
    """1 - cos as written has an error of 1e-7 in float32: as large as the distance of embeddings 5e-4 apart."""
    t = torch.nn.functional.normalize(torch.randn(64, 384, dtype=torch.float64), dim=1)
    s = t + 2e-6 * torch.randn_like(t)
    exact = cosine_distance(s, t)
    ratio = cosine_distance(s.float(), t.float()).double() / exact
    assert (ratio - 1).abs().max() < 0.05


def test_widths_that_differ_are_refused_without_a_projector() -> None:
    case = Case(EmbeddingCosine, {"output": (3,)}, {"output": (6,)}, golden)
    with pytest.raises(SignalError, match="projector: true"):
        prepared(case, case.draw())


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_an_embedding_of_length_zero_is_refused(side: str) -> None:
    numbers = CASES["same width"].draw()
    getattr(numbers, side)["output"][2] = 0
    with pytest.raises(SignalError, match=f"output of the {side}[\\s\\S]*direction"):
        prepared(CASES["same width"], numbers)


def test_token_outputs_are_refused() -> None:
    case = Case(EmbeddingCosine, {"output": (3, 6)}, {"output": (3, 6)}, golden, tokens=3)
    with pytest.raises(SignalError, match="pool the tokens"):
        prepared(case, case.draw())
