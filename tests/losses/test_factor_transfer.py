from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from convolving import convolve
from loss_case import Array, Case, Numbers, Plain, batch_of, objective, prepared, signals_of
from resizing import interpolate, pool

from tutelage.errors import SignalError
from tutelage.losses.factor_transfer import FactorTransfer, factor_distance

PAIRS = {"a": "b"}


def leaky(x: Array) -> Array:
    return np.where(x > 0, x, 0.1 * x)


def stack(n: Numbers, x: Array, names: list[str]) -> Array:
    for name in names:
        x = leaky(convolve(x, n.trained[name], n.trained[name.replace("weight", "bias")]))
    return x


def factors(n: Numbers, s: Array, t: Array, path: str = "a") -> tuple[Array, Array]:
    of_student = stack(n, s, [f"translators.{path}.{i}.weight" for i in (0, 2, 4)])
    return of_student, stack(n, t, [f"paraphrasers.{path}.weight{i}" for i in range(3)])


def distance(s: Array, t: Array, p: int = 1, variant: str = "official") -> Array:
    s, t = (x.reshape(len(x), -1) / np.sqrt((x**2).sum((1, 2, 3)))[:, None] for x in (s, t))
    powers = np.abs(s - t) ** p
    return powers.mean(1) if variant == "official" else powers.sum(1) ** (1 / p)


def energy(x: Array) -> Array:
    return (x**2).mean(1, keepdims=True)


def golden(p: int = 1, variant: str = "official"):
    return lambda n: distance(*factors(n, n.student["a"], n.teacher["b"]), p, variant)


def reconstruction(variant: str):
    def values(n: Numbers) -> Array:
        names = [f"paraphrasers.a.{part}.{i}.weight" for part in ("encoder", "decoder") for i in (0, 2, 4)]
        error = stack(n, n.teacher["b"], names) - n.teacher["b"]
        return (error**2).sum((1, 2, 3)) if variant == "paper" else np.abs(error).mean((1, 2, 3))

    return values


def later(pairs: dict[str, str] = PAIRS, **arguments):
    """The loss after the paraphraser's share of the training."""

    def make() -> FactorTransfer:
        loss = FactorTransfer(pairs, **arguments)
        loss.progress = 0.5
        return loss

    return make


def two(n: Numbers) -> Array:
    first = distance(*factors(n, n.student["a"], n.teacher["b"], "a"))
    return (first + distance(*factors(n, n.student["c"], n.teacher["d"], "c"))) / 2


CASES = {
    "second stage": Case(later(), {"a": (1, 2, 2)}, {"b": (2, 2, 2)}, golden()),
    "second stage, paper": Case(later(variant="paper"), {"a": (1, 2, 2)}, {"b": (2, 2, 2)}, golden(1, "paper")),
    "second stage, p = 2": Case(later(p=2), {"a": (2, 1, 2)}, {"b": (2, 1, 2)}, golden(2)),
    "second stage, paper, p = 2": Case(
        later(p=2, variant="paper", rate=1.0), {"a": (2, 1, 2)}, {"b": (2, 1, 2)}, golden(2, "paper")
    ),
    "first stage": Case(lambda: FactorTransfer(PAIRS), {"a": (1, 2, 2)}, {"b": (2, 2, 2)}, reconstruction("official")),
    "first stage, paper": Case(
        lambda: FactorTransfer(PAIRS, variant="paper"), {"a": (1, 2, 2)}, {"b": (2, 2, 2)}, reconstruction("paper")
    ),
    "energy": Case(
        lambda: FactorTransfer(PAIRS, factors="energy"),
        {"a": (2, 2, 3)},
        {"b": (3, 2, 3)},
        lambda n: distance(energy(n.student["a"]), energy(n.teacher["b"])),
    ),
    "energy, same": Case(
        lambda: FactorTransfer(PAIRS, factors="energy"),
        {"a": (2, 2, 3)},
        {"b": (2, 2, 3)},
        lambda n: distance(energy(n.student["a"]), energy(n.teacher["b"])),
        floor=0.0,
    ),
    "pooled": Case(
        later(resize="pool"),
        {"a": (1, 3, 4)},
        {"b": (2, 2, 2)},
        lambda n: distance(*factors(n, pool(n.student["a"], (2, 2)), n.teacher["b"])),
    ),
    "interpolated": Case(
        later(resize="interpolate"),
        {"a": (1, 1, 2)},
        {"b": (2, 2, 3)},
        lambda n: distance(*factors(n, interpolate(n.student["a"], (2, 3)), n.teacher["b"])),
    ),
    "pyramid": Case(
        later(pairs={"a": "b", "c": "d"}),
        {"a": (1, 2, 2), "c": (2, 1, 2)},
        {"b": (2, 2, 2), "d": (1, 1, 2)},
        two,
    ),
}


def plain_second(student, teacher, labels, loss):
    with torch.no_grad():
        t = F.normalize(loss.paraphrasers["a"].encoder(teacher["b"]).flatten(1))
    s = F.normalize(loss.translators["a"](student["a"]).flatten(1))
    return F.l1_loss(s, t)


def plain_first(student, teacher, labels, loss):
    return F.l1_loss(loss.paraphrasers["a"](teacher["b"]), teacher["b"])


SIZES = {"student": {"a": (32, 14, 14)}, "teacher": {"b": (64, 14, 14)}, "samples": 16}
PLAIN = {
    "second stage": Plain(later(), expression=plain_second, **SIZES),
    "first stage": Plain(lambda: FactorTransfer(PAIRS), expression=plain_first, **SIZES),
}


def ready(case: Case, numbers: Numbers):
    """A prepared loss, and what runs it."""
    loss = prepared(case, numbers)
    student, teacher = signals_of(numbers.student, torch.float64, grad=True), signals_of(numbers.teacher, torch.float64)

    def run() -> torch.Tensor:
        return objective(loss, student, teacher, batch_of(numbers))

    return loss, student, run


def test_student_and_translator_do_not_learn_from_a_paraphraser_that_has_not_learnt() -> None:
    loss, student, run = ready(CASES["first stage"], CASES["first stage"].draw())
    run().backward()
    assert (student.features["a"].grad == 0).all()
    assert all((parameter.grad == 0).all() for parameter in loss.translators.parameters())
    assert all((parameter.grad != 0).any() for parameter in loss.paraphrasers.parameters())


def test_teacher_s_factors_do_not_come_to_meet_the_student() -> None:
    """A paraphraser that is trained by the distance can make it 0 by saying nothing."""
    loss, student, run = ready(CASES["second stage"], CASES["second stage"].draw())
    value = run()
    value.backward()
    assert all((parameter.grad == 0).all() for parameter in loss.paraphrasers.parameters())
    assert (student.features["a"].grad != 0).any()
    with torch.no_grad():
        for parameter in loss.paraphrasers.parameters():
            parameter.add_(1.0)  # weight decay or momentum, say
    torch.testing.assert_close(run(), value, rtol=0, atol=0)


def test_factors_are_those_of_the_paraphraser_as_it_was_when_its_share_ended() -> None:
    loss, _, run = ready(CASES["first stage"], CASES["first stage"].draw())
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1, weight_decay=0.1)
    encoders = []
    for step in range(20):
        loss.progress = step / 20
        optimizer.zero_grad()
        run().backward()
        optimizer.step()
        loss.after_step()
        encoders.append(copy.deepcopy(loss.paraphrasers.of("a").encoder))
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64)
    kept = loss.paraphrasers.of("a").factors(x)
    torch.testing.assert_close(kept, encoders[1](x))
    assert not torch.allclose(kept, encoders[0](x))


def test_kept_paraphraser_is_stored_with_a_checkpoint() -> None:
    case = CASES["second stage"]
    numbers = case.draw()
    loss, _, run = ready(case, numbers)
    other, _, run_other = ready(case, numbers)
    with torch.no_grad():
        loss.paraphrasers.of("a").encoder[0].weight.add_(0.5)
    loss.paraphrasers.of("a").keep()
    assert run() != run_other()
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(run_other(), run(), rtol=0, atol=0)


def test_paraphraser_learns_to_reconstruct() -> None:
    case = Case(lambda: FactorTransfer(PAIRS, rate=1.0), {"a": (1, 4, 4)}, {"b": (2, 4, 4)}, reconstruction("official"))
    numbers = case.draw()
    np.abs(numbers.teacher["b"], out=numbers.teacher["b"])
    loss, _, run = ready(case, numbers)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    first = run().item()
    for _ in range(200):
        optimizer.zero_grad()
        value = run()
        value.backward()
        optimizer.step()
    assert 0 < run().item() < first / 3


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("p", [1, 2])
def test_scale_of_the_factors_is_free(p: int, variant) -> None:
    s, t = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    torch.testing.assert_close(factor_distance(s * 100, t / 100, p, variant), factor_distance(s, t, p, variant))


def test_official_does_not_grow_with_the_number_of_factors_as_paper_does() -> None:
    s, t = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    s[..., 0], t[..., 1] = 3, 5
    assert factor_distance(s, t, 1, "paper").item() == 2
    assert factor_distance(s, t, 2, "paper").item() == pytest.approx(2**0.5)
    assert factor_distance(s, t, 1, "official").item() == 1
    assert factor_distance(s, t, 2, "official").item() == 1


@pytest.mark.parametrize(("rate", "channels"), [(0.5, 2), (0.75, 3), (2.0, 8), (0.01, 1)])
def test_rate_is_a_share_of_the_teacher_s_channels(rate: float, channels: int) -> None:
    case = Case(later(rate=rate), {"a": (6, 2, 2)}, {"b": (4, 2, 2)}, golden())
    loss = prepared(case, case.draw())
    assert loss.paraphrasers.of("a").factors(torch.zeros(1, 4, 2, 2)).shape[1] == channels
    assert loss.translators.run("a", torch.zeros(1, 6, 2, 2)).shape[1] == channels


def test_dead_map_gives_no_nan() -> None:
    """Factors of length 0 divided by their length."""
    s, t = torch.zeros(2, 3, 2, 2, requires_grad=True), torch.zeros(2, 3, 2, 2)
    for p in (1, 2):
        factor_distance(s, t, p, "official").sum().backward()
    assert torch.isfinite(s.grad).all()


def test_models_of_other_widths_are_refused_once_the_networks_are_made() -> None:
    case = CASES["second stage"]
    loss = prepared(case, case.draw())
    for student, teacher in (((2, 2, 2), (2, 2, 2)), ((1, 2, 2), (3, 2, 2))):
        numbers = Case(lambda: loss, {"a": student}, {"b": teacher}, golden()).draw()
        with pytest.raises(SignalError, match=r"network of `a`[\s\S]*forget"):
            loss.prepare(
                signals_of(numbers.student, torch.float64),
                signals_of(numbers.teacher, torch.float64),
                batch_of(numbers),
            )


def test_maps_of_different_size_are_refused_unless_the_recipe_says_how() -> None:
    case = Case(later(), {"a": (2, 2, 2)}, {"b": (2, 4, 4)}, golden())
    with pytest.raises(SignalError, match="set `resize`"):
        prepared(case, case.draw())


def test_tokens_are_refused_by_the_names_of_both_layers() -> None:
    case = Case(later(), {"a": (3, 2)}, {"b": (3, 2)}, golden())
    with pytest.raises(SignalError, match=r"`a`[\s\S]*`b`[\s\S]*HiddenState"):
        prepared(case, case.draw())


@pytest.mark.parametrize(
    "arguments",
    [
        {"factors": "mean"},
        {"rate": 0.0},
        {"paraphraser_share": 0.0},
        {"paraphraser_share": 1.0},
        {"p": 3},
        {"variant": "offical"},
        {"resize": "crop"},
    ],
)
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        FactorTransfer(PAIRS, **arguments)
