from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from resizing import pool

from tutelage.errors import SignalError
from tutelage.losses.review_kd import Fusion, ReviewKD, hierarchical_context


def conv(x: Array, weight: Array, bias: Array) -> Array:
    """A convolution of 1x1, or of 3x3 with a border of zeros, place by place of the window."""
    size, (H, W) = weight.shape[-1], x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2))
    total = np.zeros((len(x), len(weight), H, W)) + bias[:, None, None]
    for i in range(size):
        for j in range(size):
            total += np.einsum("bchw,oc->bohw", padded[:, :, i : i + H, j : j + W], weight[:, :, i, j])
    return total


def nearest(x: Array, size: tuple[int, int]) -> Array:
    rows, columns = (np.arange(out) * have // out for out, have in zip(size, x.shape[2:], strict=True))
    return x[:, :, rows][:, :, :, columns]


def context(s: Array, t: Array) -> Array:
    """The levels and weights of the authors' code, level by level."""

    def mse(a: Array, b: Array) -> Array:
        return ((a - b) ** 2).reshape(len(a), -1).mean(1)

    levels = [(1.0, mse(s, t))]
    for grid in (4, 2, 1):
        if grid < min(s.shape[2:]):
            levels.append((levels[-1][0] / 2, mse(pool(s, (grid, grid)), pool(t, (grid, grid)))))
    return sum(w * value for w, value in levels) / sum(w for w, _ in levels)


def golden(pairs: dict[str, str]):
    def values(n: Numbers) -> Array:
        parts, passed = [], None
        for path, teacher_path in reversed(pairs.items()):
            s, t = n.student[path], n.teacher[teacher_path]
            s, t = (x.reshape(*x.shape, 1, 1) if x.ndim == 2 else x for x in (s, t))

            def by(name: str, x: Array, path: str = path) -> Array:
                key = f"fusions.{path.replace('.', '/')}.{name}"
                return conv(x, n.trained[f"{key}.weight"], n.trained[f"{key}.bias"])

            x = by("reduce", s)
            if passed is not None:
                y = nearest(passed, s.shape[2:])
                z = np.exp(-np.logaddexp(0, -by("attention", np.concatenate([x, y], 1))))
                x = x * z[:, [0]] + y * z[:, [1]]
            passed = nearest(x, t.shape[2:])
            parts.append(context(by("expand", passed), t))
        return sum(parts) / len(parts)

    return values


ONE, TWO = {"a": "b"}, {"a.0": "b.0", "a.1": "b.1"}


def repeats() -> ReviewKD:
    """Convolutions that put out what they read."""
    loss = ReviewKD(ONE)
    fusion = Fusion(2, 2, 2, fuses=False)
    with torch.no_grad():
        for layer, middle in ((fusion.reduce, 0), (fusion.expand, 1)):
            layer.weight.zero_()
            layer.weight[:, :, middle, middle] = torch.eye(2)
    loss.fusions["a"] = fusion
    return loss


CASES = {
    "two maps": Case(
        lambda: ReviewKD(TWO, width=2),
        {"a.0": (2, 4, 4), "a.1": (3, 2, 2)},
        {"b.0": (2, 4, 4), "b.1": (1, 3, 3)},
        golden(TWO),
    ),
    "maps and pooled": Case(
        lambda: ReviewKD(TWO), {"a.0": (1, 6, 5), "a.1": (2,)}, {"b.0": (2, 5, 6), "b.1": (3,)}, golden(TWO)
    ),
    "repeats": Case(repeats, {"a": (2, 3, 3)}, {"b": (2, 3, 3)}, golden(ONE), floor=0.0),
}


def plain(s: dict[str, torch.Tensor], t: dict[str, torch.Tensor], pairs: dict[str, str], loss: ReviewKD):
    total, passed = torch.zeros(()), None
    for path, teacher_path in reversed(pairs.items()):
        fusion, target = loss.fusions[path.replace(".", "/")], t[teacher_path]
        x = fusion.reduce(s[path])
        if passed is not None:
            y = F.interpolate(passed, x.shape[2:], mode="nearest")
            z = torch.sigmoid(fusion.attention(torch.cat([x, y], 1)))
            x = x * z[:, :1] + y * z[:, 1:]
        passed = x
        out = fusion.expand(x)
        value, weight, weights = F.mse_loss(out, target), 1.0, 1.0
        for grid in (4, 2, 1):
            if grid < out.shape[2]:
                weight /= 2
                weights += weight
                pooled = F.adaptive_avg_pool2d(out, grid), F.adaptive_avg_pool2d(target, grid)
                value = value + weight * F.mse_loss(*pooled)
        total = total + value / weights
    return total / len(pairs)


PLAIN = {
    "two maps": Plain(
        lambda: ReviewKD(TWO),
        {"a.0": (32, 16, 16), "a.1": (64, 8, 8)},
        {"b.0": (64, 16, 16), "b.1": (128, 8, 8)},
        lambda s, t, labels, loss: plain(s, t, TWO, loss),
        samples=16,
    ),
}


def test_levels_that_are_no_smaller_than_the_map_are_not_counted_twice() -> None:
    """A map of 2x2 has the levels 2x2 and 1: (1 · 1 + ½ · 0) / 1.5 where the differences cancel in the mean."""
    s = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
    torch.testing.assert_close(hierarchical_context(s, torch.zeros_like(s)), torch.tensor([2 / 3]))


def test_a_shallow_layer_reviews_the_deep_ones_and_not_the_other_way_round() -> None:
    """The pairs taken from shallow to deep would teach the deep layer with the shallow one."""
    case = CASES["two maps"]
    numbers = case.draw()
    loss = prepared(case, numbers)
    assert loss.fusions["a/1"].attention is None and loss.fusions["a/0"].attention is not None
    teacher, batch = signals_of(numbers.teacher, torch.float64), batch_of(numbers)
    student = signals_of(numbers.student, torch.float64, grad=True)
    s, t = student.features, teacher.features
    deep, passed = loss.fusions["a/1"](s["a.1"], None, (3, 3))
    shallow, _ = loss.fusions["a/0"](s["a.0"], passed, (4, 4))
    gradients = torch.autograd.grad(hierarchical_context(shallow, t["b.0"]).sum(), list(s.values()), retain_graph=True)
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    (none,) = torch.autograd.grad(hierarchical_context(deep, t["b.1"]).sum(), s["a.0"], allow_unused=True)
    assert none is None
    assert loss(student, teacher, batch).shape == (4,)


def test_width_is_capped_by_the_deepest_layer_of_the_student() -> None:
    loss = prepared(CASES["maps and pooled"], CASES["maps and pooled"].draw())
    assert [loss.fusions[key].reduce.out_channels for key in ("a/0", "a/1")] == [2, 2]


def test_a_layer_whose_first_axis_is_not_the_batch_is_refused() -> None:
    numbers = CASES["repeats"].draw()
    student = signals_of({"a": numbers.student["a"][:2]}, torch.float64)
    with pytest.raises(SignalError, match="batch of 4"):
        repeats().prepare(student, signals_of(numbers.teacher, torch.float64), batch_of(numbers))


@pytest.mark.parametrize(("s", "t"), [((3, 4), (3, 4)), ((2, 2, 2), (2,))])
def test_tokens_and_mixed_kinds_are_refused_by_the_names_of_both_layers(s, t) -> None:
    case = Case(lambda: ReviewKD(ONE), {"a": s}, {"b": t}, golden(ONE))
    with pytest.raises(SignalError, match=r"`a`[\s\S]*`b`[\s\S]*one kind"):
        prepared(case, case.draw())


def test_models_of_other_channels_are_refused_once_the_convolutions_are_made() -> None:
    loss = prepared(CASES["repeats"], CASES["repeats"].draw())
    other = Case(repeats, {"a": (3, 3, 3)}, {"b": (2, 3, 3)}, golden(ONE)).draw()
    with pytest.raises(SignalError, match="forget"):
        loss.prepare(
            signals_of(other.student, torch.float64), signals_of(other.teacher, torch.float64), batch_of(other)
        )


@pytest.mark.parametrize("arguments", [{"pairs": {}}, {"pairs": ONE, "width": 0}])
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must"):
        ReviewKD(**arguments)
