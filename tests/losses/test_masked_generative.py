from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from convolving import convolve, projected
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from resizing import interpolate, pool
from torch import nn

from tutelage.errors import SignalError
from tutelage.losses.masked_generative import MaskedGenerative, scattered
from tutelage.losses.networks import Networks
from tutelage.signals import Batch

PAIRS = {"a": "b"}


def mixed(number: int) -> int:
    number %= 2**32
    for _ in range(2):
        number = (number ^ number // 2**16) * 0x45D9F3B % 2**32
    return number ^ number // 2**16


def mask_of(row: int, count: int, ratio: float, seed: int, *, index: int = 0, progress: float = 0.0) -> Array:
    """By the integers: seed, then share of the training, number of the pair, row and view 0 are mixed in turn."""
    key = seed
    for part in (int(progress * 2**30), index, row, 0):
        key = mixed(key) + part
    return np.array([mixed(mixed(key) + place) / 2**32 >= ratio for place in range(count)], float)


def generated(
    n: Numbers, x: Array, path: str, ratio: float, seed: int, *, masked: str = "places", index: int = 0
) -> Array:
    B, C, H, W = x.shape
    shape = (1, H, W) if masked == "places" else (C, 1, 1)
    masks = [mask_of(row, int(np.prod(shape)), ratio, seed, index=index).reshape(shape) for row in range(B)]
    key = f"generators.{path.replace('.', '/')}"
    if f"{key}.0.weight" not in n.trained:
        return x * np.stack(masks)
    inner = convolve(x * np.stack(masks), n.trained[f"{key}.0.weight"], n.trained[f"{key}.0.bias"])
    return convolve(np.maximum(inner, 0), n.trained[f"{key}.2.weight"], n.trained[f"{key}.2.bias"])


def error(t: Array, x: Array) -> Array:
    return ((t - x) ** 2).sum((1, 2, 3))


def golden(ratio: float, seed: int, **how: str):
    return lambda n: error(n.teacher["b"], generated(n, projected(n, "a"), "a", ratio, seed, **how))


def pyramid(n: Numbers) -> Array:
    errors = [
        error(n.teacher[f"b.{i}"], generated(n, projected(n, f"a.{i}"), f"a.{i}", 0.5, 17215, index=i)) for i in (0, 1)
    ]
    return sum(errors) / 2


class Copying(Networks):
    """Generators that put out what goes in."""

    def ensure(self, name: str, make, student, teacher) -> None:
        pass

    def run(self, name: str, features: torch.Tensor) -> torch.Tensor:
        return features


def copying(loss: MaskedGenerative) -> MaskedGenerative:
    loss.generators = Copying()
    return loss


# The suite numbers the rows of a part anew, from 0. With these seeds the rows 0 to 3 happen to have one mask, which
# hides some and shows some; that each row has its own, in any batch, is tested below.
CASES = {
    "places": Case(lambda: MaskedGenerative(PAIRS, 0.5, seed=80), {"a": (2, 2, 2)}, {"b": (2, 2, 2)}, golden(0.5, 80)),
    "channels": Case(
        lambda: MaskedGenerative(PAIRS, 0.4, masked="channels", seed=142),
        {"a": (2, 2, 2)},
        {"b": (3, 2, 2)},
        golden(0.4, 142, masked="channels"),
    ),
    "other width": Case(
        lambda: MaskedGenerative(PAIRS, 0.5, seed=80), {"a": (3, 1, 3)}, {"b": (2, 1, 3)}, golden(0.5, 80)
    ),
    "nothing masked, nothing generated": Case(
        lambda: copying(MaskedGenerative(PAIRS, 0.0)), {"a": (2, 2, 2)}, {"b": (2, 2, 2)}, golden(0.0, 0), floor=0.0
    ),
    "pooled": Case(
        lambda: MaskedGenerative(PAIRS, 0.5, seed=80, resize="pool"),
        {"a": (2, 2, 2)},
        {"b": (2, 3, 4)},
        lambda n: error(pool(n.teacher["b"], (2, 2)), generated(n, n.student["a"], "a", 0.5, 80)),
    ),
    "interpolated": Case(
        lambda: MaskedGenerative(PAIRS, 0.5, seed=80, resize="interpolate"),
        {"a": (2, 1, 2)},
        {"b": (2, 2, 2)},
        lambda n: error(n.teacher["b"], generated(n, interpolate(n.student["a"], (2, 2)), "a", 0.5, 80)),
    ),
    "pyramid": Case(
        lambda: MaskedGenerative({"a.0": "b.0", "a.1": "b.1"}, 0.5, seed=17215),
        {"a.0": (2, 1, 2), "a.1": (2, 2, 1)},
        {"b.0": (2, 1, 2), "b.1": (3, 2, 1)},
        pyramid,
    ),
}


def plain(student, teacher, labels, loss):
    s = student["a"]
    # No number drawn is below 0, so the mask is known and yet drawn.
    mask = (torch.rand(s.shape[0], 1, *s.shape[2:]) >= 0.0).float()
    return F.mse_loss(loss.generators["a"](s * mask), teacher["b"], reduction="sum") / s.shape[0]


PLAIN = {
    "maps": Plain(lambda: MaskedGenerative(PAIRS, 0.0), {"a": (64, 14, 14)}, {"b": (64, 14, 14)}, plain, samples=16),
}


def batch(rows: list[int], views: list[int] | None = None) -> Batch:
    numbers = torch.tensor(rows)
    return Batch(
        inputs=torch.empty(len(rows), 0),
        rows=numbers,
        views=torch.zeros_like(numbers) if views is None else torch.tensor(views),
    )


def mask(loss: MaskedGenerative, of: Batch, size: int = 8, path: str = "a") -> torch.Tensor:
    return loss.mask(path, torch.zeros(len(of), 2, size, size), of).flatten(1)


def test_a_row_has_the_same_mask_in_any_batch_and_another_than_its_neighbours() -> None:
    """A mask from the batch's generator is another one when the batch is split, or when a run resumes."""
    loss = MaskedGenerative(PAIRS, 0.5)
    whole = mask(loss, batch([5, 0, 3, 70_000]))
    torch.testing.assert_close(mask(loss, batch([70_000, 5])), whole[[3, 0]])
    torch.testing.assert_close(mask(MaskedGenerative(PAIRS, 0.5), batch([5, 0, 3, 70_000])), whole)
    for i in range(4):
        for j in range(i):
            assert 0.2 < (whole[i] != whole[j]).float().mean() < 0.8


def test_value_of_a_row_is_the_same_in_any_batch() -> None:
    case = Case(lambda: MaskedGenerative(PAIRS, 0.5), {"a": (2, 3, 3)}, {"b": (2, 3, 3)}, golden(0.5, 0), samples=5)
    numbers = case.draw()
    loss = prepared(case, numbers)
    student, teacher = signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64)
    whole = loss(student, teacher, batch_of(numbers))
    for rows in ([3], [4, 1], [2, 0, 3]):
        values = loss(student.map(lambda x, r=rows: x[r]), teacher.map(lambda x, r=rows: x[r]), batch(rows))
        torch.testing.assert_close(values, whole[rows])


def test_the_mask_changes_with_every_step_view_layer_and_seed() -> None:
    """One mask for the whole training would hide some places for ever."""
    loss = MaskedGenerative({"a": "b", "c": "d"}, 0.5)
    first = mask(loss, batch([7]))
    others = [mask(loss, batch([7], [1])), mask(loss, batch([7]), path="c")]
    others.append(mask(MaskedGenerative(PAIRS, 0.5, seed=1), batch([7])))
    for step in (1, 2, 3):
        loss.progress = step / 1_000_000
        others.append(mask(loss, batch([7])))
    for index, other in enumerate(others):
        for before in (first, *others[:index]):
            assert 0.2 < (other != before).float().mean() < 0.8


@pytest.mark.parametrize("ratio", [0.0, 0.15, 0.65, 0.99])
def test_ratio_is_the_share_that_is_hidden_not_the_share_that_is_seen(ratio: float) -> None:
    seen = mask(MaskedGenerative(PAIRS, ratio), batch(list(range(100))), size=32).double()
    assert seen.mean().item() == pytest.approx(1 - ratio, abs=0.005)
    assert seen.mean(0).std().item() == pytest.approx((ratio * (1 - ratio) / 100) ** 0.5, rel=0.15)


def test_numbers_are_uniform_and_independent_from_place_to_place_and_row_to_row() -> None:
    """A poor hash of consecutive numbers shows as a pattern."""
    numbers = scattered(torch.arange(300), 300)
    assert np.histogram(numbers, bins=10, range=(0, 1))[0] == pytest.approx(9000, rel=0.05)
    centred = (numbers - 0.5) * 12**0.5
    for first, second in (
        (centred[:, 1:], centred[:, :-1]),
        (centred[1:], centred[:-1]),
        (centred[1:, 1:], centred[:-1, :-1]),
    ):
        assert abs((first * second).mean().item()) < 4 / 300


def test_all_channels_of_a_place_are_hidden_together_or_all_places_of_a_channel() -> None:
    maps = torch.zeros(2, 3, 4, 5)
    assert MaskedGenerative(PAIRS).mask("a", maps, batch([0, 1])).shape == (2, 1, 4, 5)
    assert MaskedGenerative(PAIRS, masked="channels").mask("a", maps, batch([0, 1])).shape == (2, 3, 1, 1)


def test_what_is_hidden_is_of_no_account() -> None:
    """The mask on the teacher, or on the result, in the place of the student's map."""
    case = Case(lambda: MaskedGenerative(PAIRS, 0.5), {"a": (2, 4, 4)}, {"b": (2, 4, 4)}, golden(0.5, 0))
    numbers = case.draw()
    loss = prepared(case, numbers)
    student, teacher = signals_of(numbers.student, torch.float64, grad=True), signals_of(numbers.teacher, torch.float64)
    loss(student, teacher, batch_of(numbers)).sum().backward()
    seen = loss.mask("a", student.features["a"], batch_of(numbers)).expand(4, 2, 4, 4)
    gradient = student.features["a"].grad
    assert (gradient[seen == 0] == 0).all()
    assert (gradient[seen == 1] != 0).all()


def test_generator_is_two_convolutions_of_the_teacher_s_width() -> None:
    case = CASES["other width"]
    loss = prepared(case, case.draw())
    layers = list(loss.generators.of("a"))
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert [tuple(layer.weight.shape) for layer in layers[::2]] == [(2, 2, 3, 3)] * 2


def test_a_teacher_of_another_width_is_refused_once_the_generator_is_made() -> None:
    case = CASES["places"]
    loss = prepared(case, case.draw())
    numbers = Case(lambda: loss, {"a": (3, 2, 2)}, {"b": (3, 2, 2)}, golden(0.5, 80)).draw()
    with pytest.raises(SignalError, match=r"network of `a`[\s\S]*forget"):
        loss.prepare(
            signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
        )


def test_maps_of_different_size_are_refused_unless_the_recipe_says_how() -> None:
    case = Case(lambda: MaskedGenerative(PAIRS), {"a": (2, 2, 2)}, {"b": (2, 4, 4)}, golden(0.65, 0))
    with pytest.raises(SignalError, match="set `resize`"):
        prepared(case, case.draw())


def test_tokens_are_refused_by_the_names_of_both_layers() -> None:
    case = Case(lambda: MaskedGenerative(PAIRS), {"a": (3, 2)}, {"b": (3, 2)}, golden(0.65, 0))
    with pytest.raises(SignalError, match=r"`a`[\s\S]*`b`[\s\S]*maps"):
        prepared(case, case.draw())


@pytest.mark.parametrize("arguments", [{"ratio": 1.0}, {"ratio": -0.1}, {"masked": "rows"}, {"resize": "crop"}])
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        MaskedGenerative(PAIRS, **arguments)
