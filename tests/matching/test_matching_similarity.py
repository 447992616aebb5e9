"""CKA and the pairing, against formulas written from the papers and against trying everything."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tutelage.errors import SignalError
from tutelage.matching.similarity import best_pairing, centred_gram, cka, grams_of
from tutelage.signals import Batch

Array = np.ndarray


def hsic(k: Array, l: Array) -> float:  # noqa: E741  (the paper's letters)
    """The unbiased estimate, equation 3 of Nguyen et al. 2021 (Song et al. 2012), term by term."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    one = np.ones(n)
    trace = np.trace(k @ l)
    sums = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return float((trace + sums - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3)))


def cka_of_the_paper(x: Array, y: Array) -> float:
    """Equation 2 of Kornblith et al. 2019 with linear kernels."""
    k, l = x @ x.T, y @ y.T  # noqa: E741
    return hsic(k, l) / math.sqrt(hsic(k, k) * hsic(l, l))


def of(x: Array, y: Array) -> float:
    return cka(centred_gram(torch.from_numpy(x)), centred_gram(torch.from_numpy(y)))


@pytest.mark.parametrize(("n", "p", "q"), [(4, 3, 2), (30, 5, 7), (30, 200, 9), (64, 1, 300)])
def test_cka_is_that_of_the_papers(n: int, p: int, q: int) -> None:
    random = np.random.default_rng(n + p)
    x = random.normal(3.0, 2.0, size=(n, p))
    y = x @ random.normal(size=(p, q)) + random.normal(size=(n, q))
    assert of(x, y) == pytest.approx(cka_of_the_paper(x, y), rel=1e-9)


def test_cka_does_not_see_rotations_and_factors_but_sees_other_linear_maps() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 6)), random.normal(size=(40, 8))
    rotation = np.linalg.qr(random.normal(size=(6, 6)))[0]
    assert of(7.0 * x @ rotation + 5.0, y) == pytest.approx(of(x, y), abs=1e-12)
    assert of(x, 0.1 * x @ rotation) == pytest.approx(1.0, abs=1e-12)
    assert of(x @ np.diag([1, 1, 1, 1, 1, 30.0]), y) != pytest.approx(of(x, y), abs=1e-3)


def test_wide_layers_that_have_nothing_in_common_are_not_alike() -> None:
    """The biased estimate says 0.9 and more here, whatever the layers are."""
    random = np.random.default_rng(0)
    assert abs(of(random.normal(size=(40, 2000)), random.normal(size=(40, 2000)))) < 0.05


def test_a_layer_that_says_the_same_of_all_is_like_none() -> None:
    assert of(np.ones((9, 3)), np.random.default_rng(0).normal(size=(9, 3))) == 0.0


def test_a_large_mean_costs_no_digits() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 6)), random.normal(size=(40, 8))
    assert of(x + 1e6, y) == pytest.approx(of(x, y), abs=1e-6)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_pairing_is_the_best_of_all_that_keep_the_order(data: st.DataObject) -> None:
    n, m = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    value = st.one_of(st.integers(-3, 9).map(float), st.just(-math.inf))
    scores = data.draw(st.lists(st.lists(value, min_size=m, max_size=m), min_size=n, max_size=n))
    count = data.draw(st.integers(1, min(n, m)))
    every = [
        list(zip(rows, columns, strict=True))
        for rows in itertools.combinations(range(n), count)
        for columns in itertools.combinations(range(m), count)
    ]
    best = max(sum(scores[i][j] for i, j in pairs) for pairs in every)
    found = best_pairing(scores, count)
    if best == -math.inf:
        assert found == []
    else:
        assert found in every
        assert sum(scores[i][j] for i, j in found) == best


def test_of_pairings_that_are_equally_good_the_deepest_is_taken() -> None:
    assert best_pairing([[0.0, -math.inf], [-math.inf, 0.0]], 1) == [(1, 1)]


class Tokens(nn.Module):
    """Says of each token its embedding, and of padding what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 6)
        self.last = nn.Identity()
        self.noise = 0.0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        said = self.table(ids) + self.noise * (ids == 0)[..., None]
        return self.last(said).sum(1)


def token_batch(padding: int) -> Batch:
    ids = torch.randint(1, 50, (70, 5), generator=torch.Generator().manual_seed(0))
    ids[::3, 3:] = 0
    ids = torch.nn.functional.pad(ids, (0, padding))
    rows = torch.arange(70)
    return Batch(inputs=ids, rows=rows, views=torch.zeros_like(rows), mask=ids != 0)


def test_padding_is_no_likeness() -> None:
    torch.manual_seed(0)
    module = Tokens()
    before = grams_of(module, token_batch(0), ["last"], model="student")["last"]
    module.noise = 1e4
    after = grams_of(module, token_batch(9), ["last"], model="student")["last"]
    torch.testing.assert_close(after, before)


def test_the_pieces_in_which_rows_are_asked_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = Tokens()
    before = grams_of(module, token_batch(0), ["last"], model="student")["last"]
    monkeypatch.setattr("tutelage.matching.similarity.PIECE", 7)
    torch.testing.assert_close(grams_of(module, token_batch(0), ["last"], model="student")["last"], before)


def test_a_layer_that_says_nan_is_named() -> None:
    module = Tokens()
    with torch.no_grad():
        module.table.weight[7] = float("nan")
    with pytest.raises(SignalError, match="layer `last` of the teacher"):
        grams_of(module, token_batch(0), ["last"], model="teacher")
