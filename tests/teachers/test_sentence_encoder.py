from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tutelage.teachers import SentenceEncoder

RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(3, 5, 4))
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]])  # the last is padded on the left


class States(nn.Module):
    """Gives fixed hidden states."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.dtype = dtype
        self.called_with: dict[str, Tensor] = {}

    def forward(self, **inputs: Tensor) -> Any:
        self.called_with = inputs
        return SimpleNamespace(last_hidden_state=torch.tensor(HIDDEN, dtype=self.dtype))


POOLED: dict[str, Any] = {
    "mean": lambda states: states.mean(0),
    "cls": lambda states: states[0],
    "max": lambda states: states.max(0),
    "lasttoken": lambda states: states[-1],
    "mean_sqrt_len_tokens": lambda states: states.sum(0) / np.sqrt(len(states)),
    "weightedmean": lambda states: np.average(states, axis=0, weights=np.arange(1, len(states) + 1)),
}


def expected(pooling: str, mask: np.ndarray[Any, Any], normalize: bool) -> np.ndarray[Any, Any]:
    rows = []
    for states, counts in zip(HIDDEN, mask.astype(bool), strict=True):
        row = np.concatenate([POOLED[mode](states[counts]) for mode in pooling.split(" + ")])
        rows.append(row / np.sqrt((row**2).sum()) if normalize else row)
    return np.stack(rows)


@pytest.mark.parametrize("pooling", [*POOLED, "max + mean", "mean + max + lasttoken"])
@pytest.mark.parametrize("normalize", [True, False])
def test_padding_is_neither_averaged_nor_taken_for_a_token_and_modes_keep_their_order(
    pooling: Any, normalize: bool
) -> None:
    encoder = SentenceEncoder(States(), pooling.split(" + "), normalize=normalize)
    found = encoder(torch.zeros(3, 5, dtype=torch.long), torch.tensor(MASK))
    np.testing.assert_allclose(found.numpy(), expected(pooling, MASK, normalize), atol=1e-12)


def test_without_a_mask_every_token_counts_and_further_inputs_reach_the_model() -> None:
    encoder = SentenceEncoder(States(), normalize=False)
    kinds = torch.ones(3, 5, dtype=torch.long)
    found = encoder(torch.zeros(3, 5, dtype=torch.long), token_type_ids=kinds)
    np.testing.assert_allclose(found.numpy(), HIDDEN.mean(1), atol=1e-12)
    assert isinstance(encoder.model, States) and encoder.model.called_with["token_type_ids"] is kinds


def test_half_precision_states_are_pooled_in_float32() -> None:
    found = SentenceEncoder(States(torch.bfloat16))(torch.zeros(3, 5, dtype=torch.long), torch.tensor(MASK))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.norm(dim=1).numpy(), 1, atol=1e-6)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="median"):
        SentenceEncoder(States(), "median")  # type: ignore[arg-type]
