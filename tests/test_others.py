"""The tables of benchmarks/others, where none of the libraries in them need be installed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "losses"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from others import with_sentence_transformers, with_textbrewer, with_torchdistill
from others.pair import Given, Pair, as_it_is, compare

from tutelage.losses import all_losses

PAGE = Path(__file__).parents[1] / "docs" / "comparison.md"
LIBRARIES = (with_torchdistill, with_textbrewer, with_sentence_transformers)
PAIRS = [pytest.param(pair, id=f"{pair.ours}-{pair.theirs}") for library in LIBRARIES for pair in library.PAIRS]


@pytest.mark.parametrize("pair", PAIRS)
def test_no_pair_names_a_loss_an_argument_or_a_case_that_is_no_more(pair: Pair) -> None:
    assert type(pair.plain().make()) is all_losses()[pair.ours]


@pytest.mark.parametrize("pair", PAIRS)
def test_no_difference_is_left_unexplained(pair: Pair) -> None:
    assert pair.formula.startswith("theirs")
    converted = pair.convert is not as_it_is
    assert converted == (pair.formula != "theirs = ours")
    if converted or not pair.same or pair.tolerance > 1e-9:
        assert len(pair.why) > 40


def test_no_loss_of_theirs_is_both_compared_and_called_absent() -> None:
    for library in LIBRARIES:
        assert not {pair.theirs.split("(")[0] for pair in library.PAIRS} & set(library.ABSENT)


@pytest.mark.parametrize("pair", PAIRS)
def test_page_is_that_of_the_tables(pair: Pair) -> None:
    page = PAGE.read_text()
    assert f"| `{pair.our_text}` | `{pair.theirs}` | {pair.formula.removeprefix('theirs = ')} |" in page
    assert pair.why in page
    assert pair.slower in page


def squares(given: Given):
    return lambda s, t: F.mse_loss(s["output"], t["output"]) * 3


def right_value_wrong_gradient(given: Given):
    def theirs(s: dict[str, Tensor], t: dict[str, Tensor]) -> Tensor:
        value = squares(given)(s, t)
        return value + 1e-6 * (s["output"] - s["output"].detach()).sum()

    return theirs


MINE = Pair("LogitMSE", "logits", "squares()", squares, convert=lambda ours: ours.mean * 3, size={"samples": 8})


def test_a_pair_that_is_as_explained_agrees() -> None:
    found = compare(MINE)
    assert found.agrees
    assert found.ours == pytest.approx(found.theirs, rel=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        {"convert": as_it_is},
        {"convert": lambda ours: ours.mean * 3.00001},
        {"build": lambda given: lambda s, t: squares(given)(s, t) + 1e-6},
        {"build": right_value_wrong_gradient},
        {"build": lambda given: lambda s, t: squares(given)(s, t) * float("nan")},
    ],
    ids=["no conversion", "another factor", "another constant", "another gradient", "NaN"],
)
def test_a_pair_that_is_not_as_explained_is_found(change) -> None:
    assert not compare(replace(MINE, **change)).agrees
