from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contrastive_training import MEMORY, contrastive, trained
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of, with_trained
from safetensors.torch import load_file
from torch import Tensor

from tutelage.errors import SignalError
from tutelage.losses.contrastive_representation import ContrastiveRepresentation
from tutelage.signals import Signals

HERE = Path(__file__).parent


def unit(x: Array) -> Array:
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


def golden(temperature: float, official: bool = False):
    """Row by row; `trained` holds the memory and which rows are in it."""

    def values(n: Numbers) -> Array:
        u, v = (
            unit(x @ n.trained[f"projectors.{side}.weight"].T + n.trained[f"projectors.{side}.bias"])
            for side, x in (("student", n.student["a"]), ("teacher", n.teacher["b"]))
        )
        total, M = np.zeros(len(u)), len(u)
        for i in range(len(u)):
            others = n.trained["memory_rows"] != i
            c = others.sum() / M
            for anchor, now, side in ((u[i], v[i], "teacher"), (v[i], u[i], "student")):
                entries = n.trained[f"{side}_memory"]
                partner = entries[~others][0] if official and not others.all() else now
                positive, negatives = anchor @ partner / temperature, entries[others] @ anchor / temperature
                total[i] += softplus(np.log(c) - positive) + softplus(negatives - np.log(c)).sum()
        return total

    return values


def make(variant: str = "official", **more) -> ContrastiveRepresentation:
    settings = {"width": 3, "memory": 6, "temperature": 0.5, "variant": variant, **more}
    return ContrastiveRepresentation("a", "b", **settings)


def of_one_number() -> ContrastiveRepresentation:
    """Embeddings that are +1 or -1 (by this seed the same of student and teacher), and one of each in the memory."""
    torch.manual_seed(41)
    return make(width=1, memory=2)


FLOOR = 2 * float(softplus(np.log(0.5) - 2) + softplus(2 - np.log(0.5)) + softplus(-2 - np.log(0.5)))
CASES = {
    "official": Case(make, {"a": (4,)}, {"b": (5,)}, golden(0.5)),
    "paper": Case(lambda: make("paper"), {"a": (4,)}, {"b": (5,)}, golden(0.5)),
    "of one number": Case(of_one_number, {"a": (3,)}, {"b": (3,)}, golden(0.5), floor=FLOOR),
}


def plain(s: Tensor, t: Tensor, loss: ContrastiveRepresentation) -> Tensor:
    u = F.normalize(loss.projectors["student"](s))
    v = F.normalize(loss.projectors["teacher"](t))
    rows = torch.arange(len(s), device=s.device)
    own = rows[:, None] == loss.memory_rows
    c = np.log(loss.memory / loss.rows)  # no row is in the memory yet
    total = 0
    for anchor, partner, memory in ((u, v, loss.teacher_memory), (v, u, loss.student_memory)):
        negatives = F.softplus(anchor @ memory.T / loss.temperature - c).masked_fill(own, 0)
        total = total + (F.softplus(c - (anchor * partner).sum(1) / loss.temperature) + negatives.sum(1)).mean()
    return total


PLAIN = {
    "vectors": Plain(
        lambda: ContrastiveRepresentation("a", "b", memory=4096),
        {"a": (512,)},
        {"b": (2048,)},
        lambda s, t, labels, loss: plain(s["a"], t["b"], loss),
        samples=64,
    ),
}


def filled(variant: str) -> tuple[ContrastiveRepresentation, Numbers]:
    """A loss in whose memory are rows 2 and 0 of the batch, and others."""
    numbers = CASES[variant].draw()
    loss = prepared(CASES[variant], numbers)
    loss.memory_rows.copy_(torch.tensor([9, 2, -1, 0, 7, 8]))
    return loss, numbers


@pytest.mark.parametrize("variant", ["official", "paper"])
def test_a_row_is_never_its_own_negative_and_official_takes_its_positive_from_the_memory(variant: str) -> None:
    loss, numbers = filled(variant)
    student = signals_of(numbers.student, torch.float64, grad=True)
    values = loss(student, signals_of(numbers.teacher, torch.float64), batch_of(numbers))
    expected = golden(0.5, variant == "official")(with_trained(numbers, loss))
    np.testing.assert_allclose(values.detach().numpy(), expected, rtol=1e-12)


def test_what_stands_at_its_own_place_moves_neither_value_nor_gradient() -> None:
    loss, numbers = filled("paper")
    results = []
    for _ in range(2):
        student = signals_of(numbers.student, torch.float64, grad=True)
        value = loss(student, signals_of(numbers.teacher, torch.float64), batch_of(numbers))[2]
        results.append((value.detach(), *torch.autograd.grad(value, student.features["a"])))
        loss.teacher_memory[1] = loss.student_memory[1] = -loss.teacher_memory[1]  # row 2's
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)


def test_the_first_batch_leaves_no_constant_behind() -> None:
    """The authors' normaliser is set by whatever batch comes first, on each process another."""
    numbers = CASES["official"].draw()
    teacher, batch = signals_of(numbers.teacher, torch.float64), batch_of(numbers)
    loss, other = prepared(CASES["official"], numbers), prepared(CASES["official"], numbers)
    for scale in (1, 100):
        loss(signals_of({"a": scale * numbers.student["a"][::-1].copy()}, torch.float64), teacher, batch)
    student = signals_of(numbers.student, torch.float64)
    torch.testing.assert_close(loss(student, teacher, batch), other(student, teacher, batch), rtol=0, atol=0)


def test_the_memory_changes_after_the_step_alone_and_not_by_evaluation() -> None:
    loss, numbers = filled("official")
    args = signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    with torch.no_grad():
        loss(*args)
    loss.after_step()
    loss(*args)
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())
    loss.after_step()
    assert loss.memory_rows.tolist() == [1, 3, -1, 0, 7, 8]


def expected_memory(steps: list[tuple[list[int], Array]], size: int, start: Array, momentum: float | None):
    """One row after another: `momentum` of None replaces."""
    rows, entries, place = [-1] * size, start.copy(), 0
    for seen, said in steps:
        held = list(rows)
        new = [(row, x) for row, x in zip(seen, said, strict=True) if row not in held]
        for row, x in zip(seen, said, strict=True):
            if row in held:
                at = held.index(row)
                entries[at] = x if momentum is None else unit(momentum * entries[at] + (1 - momentum) * x)
        for row, x in new:
            rows[place], entries[place] = row, x
            place = (place + 1) % size
    return rows, entries


@pytest.mark.parametrize("variant", ["official", "paper"])
def test_what_is_remembered_is_what_was_said_of_the_last_rows(variant: str) -> None:
    """The queue by one row at a time; rows come again in the third step, and the oldest give way."""
    rng = np.random.default_rng(0)
    loss = prepared(CASES[variant], CASES[variant].draw())
    start = loss.student_memory.numpy().copy()
    steps = [(rows, unit(rng.normal(size=(len(rows), 3)))) for rows in ([4, 1], [7, 3, 2], [1, 9, 3], [8, 7])]
    for rows, said in steps:
        loss._seen = [(torch.tensor(rows), torch.tensor(said), torch.tensor(said[::-1].copy()))]
        loss.after_step()
    rows, entries = expected_memory(steps, 6, start, 0.5 if variant == "official" else None)
    assert loss.memory_rows.tolist() == rows and int(loss.memory_next) == 1
    np.testing.assert_allclose(loss.student_memory.numpy(), entries, rtol=1e-12)


def test_of_two_views_of_a_row_the_later_one_is_kept_once() -> None:
    loss = prepared(CASES["paper"], CASES["paper"].draw())
    said = torch.eye(3, dtype=torch.float64)
    loss._seen = [(torch.tensor([5, 5, 6]), said, said)]
    loss.after_step()
    assert loss.memory_rows.tolist() == [5, 6, -1, -1, -1, -1]
    torch.testing.assert_close(loss.student_memory[:2], said[1:])


def test_a_step_that_saw_more_rows_than_there_is_room_keeps_the_last() -> None:
    loss = prepared(CASES["paper"], CASES["paper"].draw())
    said = torch.nn.functional.normalize(torch.randn(9, 3, dtype=torch.float64))
    loss._seen = [(torch.arange(9), said, said)]
    loss.after_step()
    assert loss.memory_rows.tolist() == [3, 4, 5, 6, 7, 8]
    torch.testing.assert_close(loss.teacher_memory, said[3:])


def test_the_memory_is_stored_and_resumed() -> None:
    loss, numbers = filled("official")
    args = signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
    loss(*args)
    loss.after_step()
    other = prepared(CASES["official"], numbers)
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(other(*args), loss(*args), rtol=0, atol=0)
    assert int(other.memory_next) == 2


def test_the_teachers_embedding_is_trained_and_the_teacher_is_not() -> None:
    numbers = CASES["official"].draw()
    loss = prepared(CASES["official"], numbers)
    teacher = signals_of(numbers.teacher, torch.float64, grad=True)
    loss(signals_of(numbers.student, torch.float64), teacher, batch_of(numbers)).sum().backward()
    assert loss.projectors["teacher"].weight.grad.abs().max() > 0 and teacher.features["b"].grad is None


@pytest.mark.parametrize("pieces", [2, 3])
def test_a_batch_in_pieces_leaves_the_same_memory_and_weights(tmp_path: Path, pieces: int) -> None:
    assert_same(trained(tmp_path / "pieces", pieces), trained(tmp_path / "whole", 1))


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_a_memory_for_each_process_is_caught(tmp_path: Path) -> None:
    """Memory, gradient and so the weights of two processes, with 6 and 5 rows each, are those of one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {
        "ACCELERATE_USE_CPU": "true",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, str(HERE / "contrastive_training.py"), str(tmp_path)],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    output = [rank.communicate(timeout=180)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], output
    alone = trained(tmp_path / "alone", 1)
    assert len(set(alone["loss.memory_rows"].tolist()) - {-1}) == MEMORY
    assert not torch.equal(alone["loss.student_memory"], contrastive().student_memory)
    for rank in (0, 1):
        assert_same(load_file(tmp_path / f"rank{rank}.safetensors"), alone)


@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 4)])
def test_maps_and_tokens_are_refused_by_the_name_of_the_layer(shape: tuple[int, ...]) -> None:
    case = Case(make, {"a": shape}, {"b": (5,)}, golden(0.5))
    with pytest.raises(SignalError, match=r"`a` of the student[\s\S]*after the pooling"):
        prepared(case, case.draw())


def test_models_of_other_widths_are_refused_once_the_embeddings_are_made() -> None:
    numbers = CASES["official"].draw()
    loss = prepared(CASES["official"], numbers)
    other = Signals(features={"a": torch.zeros(4, 7, dtype=torch.float64)})
    with pytest.raises(SignalError, match="forget"):
        loss.prepare(other, signals_of(numbers.teacher, torch.float64), replace(batch_of(numbers)))


@pytest.mark.parametrize(
    "arguments",
    [{"width": 0}, {"memory": 1}, {"temperature": 0.0}, {"variant": "offical"}, {"momentum": 1.0}],
)
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        make(**arguments)
