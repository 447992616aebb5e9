from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from resizing import interpolate, pool

from tutelage.errors import SignalError
from tutelage.losses.hint import Hint


def regressed(n: Numbers, path: str) -> Array:
    x, key = n.student[path], path.replace(".", "/")
    weight = n.trained.get(f"projectors.{key}.weight")
    if weight is None:
        return x
    bias = n.trained[f"projectors.{key}.bias"]
    if x.ndim == 4:
        return (x.transpose(0, 2, 3, 1) @ weight[:, :, 0, 0].T + bias).transpose(0, 3, 1, 2)
    return x @ weight.T + bias


def squares(n: Numbers, pair: tuple[str, str] = ("a.0", "b.1")) -> Array:
    return 0.5 * (n.teacher[pair[1]] - regressed(n, pair[0])) ** 2


def pooled(n: Numbers) -> Array:
    s, t = regressed(n, "a.0"), pool(n.teacher["b.1"], (2, 2))
    return (0.5 * (t - s) ** 2).sum(1).mean((1, 2))


def interpolated(n: Numbers) -> Array:
    s, t = interpolate(regressed(n, "a.0"), (3, 4)), n.teacher["b.1"]
    return (0.5 * (t - s) ** 2).sum(1).mean((1, 2))


PAIRS = {"a.0": "b.1"}
TWO = {"a.0": "b.1", "a.2": "b.1"}
CASES = {
    "maps": Case(lambda: Hint(PAIRS), {"a.0": (2, 2, 3)}, {"b.1": (3, 2, 3)}, lambda n: squares(n).sum(1).mean((1, 2))),
    "paper": Case(
        lambda: Hint(PAIRS, variant="paper"),
        {"a.0": (2, 2, 3)},
        {"b.1": (3, 2, 3)},
        lambda n: squares(n).sum((1, 2, 3)),
    ),
    "same width": Case(
        lambda: Hint(PAIRS),
        {"a.0": (3, 2, 2)},
        {"b.1": (3, 2, 2)},
        lambda n: squares(n).sum(1).mean((1, 2)),
        floor=0.0,
    ),
    "always": Case(lambda: Hint(PAIRS, projector="always"), {"a.0": (4,)}, {"b.1": (4,)}, lambda n: squares(n).sum(1)),
    "tokens": Case(lambda: Hint(PAIRS), {"a.0": (3, 2)}, {"b.1": (3, 4)}, lambda n: squares(n).sum(2), tokens=3),
    "tokens, paper": Case(
        lambda: Hint(PAIRS, variant="paper"),
        {"a.0": (3, 4)},
        {"b.1": (3, 4)},
        lambda n: squares(n).sum(2),
        tokens=3,
        floor=0.0,
    ),
    "positions": Case(lambda: Hint(PAIRS), {"a.0": (3, 2)}, {"b.1": (3, 4)}, lambda n: squares(n).sum(2).mean(1)),
    "pooled": Case(lambda: Hint(PAIRS, resize="pool"), {"a.0": (2, 2, 2)}, {"b.1": (3, 5, 3)}, pooled),
    "interpolated": Case(
        lambda: Hint(PAIRS, resize="interpolate"), {"a.0": (2, 2, 2)}, {"b.1": (3, 3, 4)}, interpolated
    ),
    "two pairs": Case(
        lambda: Hint(TWO),
        {"a.0": (3,), "a.2": (4,)},
        {"b.1": (4,)},
        lambda n: (squares(n).sum(1) + squares(n, ("a.2", "b.1")).sum(1)) / 2,
    ),
}

PLAIN = {
    "maps": Plain(
        lambda: Hint(PAIRS),
        {"a.0": (64, 16, 16)},
        {"b.1": (128, 16, 16)},
        lambda s, t, labels, loss: (
            F.mse_loss(loss.projectors["a/0"](s["a.0"]), t["b.1"]) * 64  # the sum over 128 channels, halved
        ),
        samples=32,
    ),
    "same width": Plain(
        lambda: Hint(PAIRS),
        {"a.0": (128, 16, 16)},
        {"b.1": (128, 16, 16)},
        lambda s, t, labels, loss: F.mse_loss(s["a.0"], t["b.1"]) * 64,
    ),
    "tokens": Plain(
        lambda: Hint(PAIRS),
        {"a.0": (128, 312)},
        {"b.1": (128, 768)},
        lambda s, t, labels, loss: F.mse_loss(loss.projectors["a/0"](s["a.0"]), t["b.1"]) * 384,
        tokens=128,
        samples=8,
    ),
}


def test_maps_of_different_size_are_refused_unless_the_recipe_says_how() -> None:
    case = Case(lambda: Hint(PAIRS), {"a.0": (2, 2, 2)}, {"b.1": (2, 4, 4)}, pooled)
    with pytest.raises(SignalError, match="set `resize`"):
        prepared(case, case.draw())


@pytest.mark.parametrize("widths", [(3, 4), (4, 4), (2, 5)])
def test_models_of_other_widths_are_refused_once_the_regressor_is_made(widths: tuple[int, int]) -> None:
    case = Case(lambda: Hint(PAIRS), {"a.0": (2,)}, {"b.1": (4,)}, pooled)
    loss = prepared(case, case.draw())
    numbers = Case(lambda: Hint(PAIRS), {"a.0": widths[:1]}, {"b.1": widths[1:]}, pooled).draw()
    with pytest.raises(SignalError, match="forget"):
        loss.prepare(
            signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
        )


def test_maps_against_vectors_are_refused_by_name() -> None:
    case = Case(lambda: Hint(PAIRS), {"a.0": (2, 2, 2)}, {"b.1": (2,)}, pooled)
    with pytest.raises(SignalError, match=r"layer `a\.0`"):
        prepared(case, case.draw())


def test_sequences_of_different_length_are_refused() -> None:
    case = Case(lambda: Hint(PAIRS), {"a.0": (3, 4)}, {"b.1": (5, 4)}, pooled, tokens=3)
    with pytest.raises(SignalError, match="one tokenizer"):
        prepared(case, case.draw())


def test_pairs_of_tokens_and_of_vectors_are_not_averaged_into_each_other() -> None:
    case = Case(lambda: Hint(TWO), {"a.0": (3, 4), "a.2": (3, 4)}, {"b.1": (3, 4)}, pooled, tokens=3)
    prepared(case, case.draw())
    mixed = Case(
        lambda: Hint({"a.0": "b.1", "a.2": "b.3"}),
        {"a.0": (3, 4), "a.2": (4,)},
        {"b.1": (3, 4), "b.3": (4,)},
        pooled,
        tokens=3,
    )
    with pytest.raises(SignalError, match="term of their own"):
        prepared(mixed, mixed.draw())


@pytest.mark.parametrize("arguments", [{"variant": "offical"}, {"resize": "crop"}, {"projector": "never"}])
def test_impossible_arguments_are_refused_with_the_choices(arguments) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        Hint(PAIRS, **arguments)


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="found none"):
        Hint({})
