"""What every loss must pass. Losses are found by walking the package, their cases by the name of their module.

A loss without a case fails here: `tests/losses/test_<module>.py` has to give `CASES` (see `tests/losses/loss_case.py`).

Longer than 400 lines because the contract is to be read as one list.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

sys.path.insert(0, str(Path(__file__).parents[1] / "losses"))

from loss_case import (
    Array,
    Case,
    Numbers,
    Plain,
    batch_of,
    gradient_of,
    objective,
    prepared,
    signals_of,
    tensors_of,
    with_trained,
)

from tutelage.errors import SignalError
from tutelage.losses import Loss, all_losses
from tutelage.signals import Batch, Signals
from tutelage.typed import describe

LOSSES = all_losses()


def cases_of(kind: type[Loss]) -> dict[str, Case]:
    """The cases that the test file of a loss's module gives for it."""
    try:
        module = importlib.import_module(f"test_{kind.__module__.rpartition('.')[2]}")
    except ModuleNotFoundError:
        return {}
    return {name: case for name, case in getattr(module, "CASES", {}).items() if type(case.make()) is kind}


def plain_of(kind: type[Loss]) -> dict[str, Plain]:
    """The plain expressions that the test file of a loss's module gives for it."""
    module = importlib.import_module(f"test_{kind.__module__.rpartition('.')[2]}")
    return {name: plain for name, plain in getattr(module, "PLAIN", {}).items() if type(plain.make()) is kind}


CASES = {f"{kind.__name__}-{name}": case for kind in LOSSES.values() for name, case in cases_of(kind).items()}
FIRST = {kind.__name__: case for kind in LOSSES.values() for case in list(cases_of(kind).values())[:1]}


def cases(chosen: Callable[[Case], bool] = lambda _: True) -> pytest.MarkDecorator:
    """Runs a test on the chosen cases."""
    picked = {name: case for name, case in CASES.items() if chosen(case)}
    return pytest.mark.parametrize("case", picked.values(), ids=picked.keys())


def per_sample(case: Case) -> bool:
    return case.make().per_sample


def numerical_gradient(case: Case, numbers: Numbers, array: Array, step: float = 1e-5) -> Array:
    """Central differences of the golden objective by each element of `array`, which is one of `numbers`."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(*array.shape):
        kept = array[index]
        array[index] = kept + step
        above = case.total(numbers)
        array[index] = kept - step
        gradient[index] = (above - case.total(numbers)) / (2 * step)
        array[index] = kept
    return gradient


def grown(numbers: Numbers, tokens: int, extra: int) -> Numbers:
    """Sequences with `extra` more tokens of padding, in which garbage stands."""

    def pad(array: Array) -> Array:
        return np.concatenate([array, np.full((len(array), extra, *array.shape[2:]), 1e4)], 1)

    assert numbers.mask is not None
    labels = numbers.labels
    if labels is not None:
        labels = np.concatenate([labels, np.full((len(labels), extra), 10**6)], 1)
    return replace(
        numbers,
        student={name: pad(array) for name, array in numbers.student.items() if array.shape[1] == tokens},
        teacher={name: pad(array) for name, array in numbers.teacher.items() if array.shape[1] == tokens},
        mask=np.concatenate([numbers.mask, np.zeros((len(numbers.mask), extra), bool)], 1),
        labels=labels,
    )


def part(numbers: Numbers, rows: slice) -> Numbers:
    """Some rows of the numbers."""

    def of(value: object) -> object:
        if isinstance(value, dict):
            return {name: array[rows] for name, array in value.items()}
        return value[rows] if isinstance(value, np.ndarray) else value

    changed = {f.name: of(getattr(numbers, f.name)) for f in dataclasses.fields(numbers) if f.name != "trained"}
    return replace(numbers, **changed)


@pytest.mark.parametrize("kind", LOSSES.values(), ids=LOSSES.keys())
class TestClass:
    """What can be said of a loss without running it."""

    def test_has_a_case(self, kind: type[Loss]) -> None:
        assert cases_of(kind), f"tests/losses/test_{kind.__module__.rpartition('.')[2]}.py gives no case for it"

    def test_documents_formula_shapes_use_cost_source_and_every_argument(self, kind: type[Loss]) -> None:
        text = kind.__doc__ or ""
        for heading in ("Shapes:", "When to use it:", "Cost:", "Source:", "Args:"):
            assert heading in text, f"its docstring has no {heading}"
        for name in inspect.signature(kind).parameters:
            assert f"\n        {name}: " in text, f"its docstring does not say what `{name}` is"

    def test_comes_to_zero_or_its_floor_where_the_teacher_agrees(self, kind: type[Loss]) -> None:
        """A loss that reads the teacher has a case with a known floor, which `test_floor` checks."""
        known = [case for case in cases_of(kind).values() if case.floor is not None]
        assert known or not FIRST[kind.__name__].make().needs.teacher

    def test_says_what_its_plain_expression_says(self, kind: type[Loss]) -> None:
        """At the size of a real layer; `benchmarks/losses.py` compares what both cost."""
        assert plain_of(kind), f"tests/losses/test_{kind.__module__.rpartition('.')[2]}.py gives no PLAIN for it"
        for plain in plain_of(kind).values():
            loss, student, teacher, batch = plain.set_up()
            whole = objective(loss, student, teacher, batch)
            written = plain.expression(tensors_of(student), tensors_of(teacher), batch.labels, loss)
            torch.testing.assert_close(whole, written, rtol=1e-4, atol=1e-5)

    def test_a_negative_weight_is_refused(self, kind: type[Loss]) -> None:
        loss = FIRST[kind.__name__].make()
        arguments = {name: getattr(loss, name) for name in inspect.signature(kind).parameters}
        with pytest.raises(ValueError, match="weight"):
            kind(**{**arguments, "weight": -1.0})


@cases()
class TestCase:
    """What is checked on every case."""

    def test_a_recipe_can_name_it_and_be_dumped_from_it(self, case: Case) -> None:
        """Arguments are stored under their own names, in types that the recipe's parser reads."""
        loss = case.make()
        described = describe(loss)
        assert set(described["init_args"]) == set(inspect.signature(type(loss)).parameters)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--loss", type=Loss)
        path = f"tutelage.losses.{type(loss).__name__}"
        parsed = parser.parse_object({"loss": {"class_path": path, "init_args": described["init_args"]}})
        again = parser.instantiate_classes(parsed).loss
        assert type(again) is type(loss)
        assert describe(again) == described

    def test_values_counts_and_gradients_are_those_of_the_formula(self, case: Case) -> None:
        numbers = case.draw()
        loss = prepared(case, numbers)
        student, teacher = (
            signals_of(numbers.student, torch.float64, grad=True),
            signals_of(numbers.teacher, torch.float64),
        )
        batch = batch_of(numbers)
        numbers = with_trained(numbers, loss)
        values, expected = loss(student, teacher, batch), case.golden(numbers)
        counted = case.counts_of(numbers, expected.ndim)
        np.testing.assert_allclose(loss.counts(batch).numpy(), counted, rtol=1e-7)
        shown = counted > 0
        assert values.shape == expected.shape
        np.testing.assert_allclose(values.detach().numpy()[shown], expected[shown], rtol=1e-9, atol=1e-12)

        total = objective(loss, student, teacher, batch)
        total.backward()
        assert float(total.detach()) == pytest.approx(case.total(numbers), rel=1e-9)
        for name, tensor in tensors_of(student).items():
            array = numbers.student[name]
            by_golden = 0.0 * array if name in case.detached else numerical_gradient(case, numbers, array)
            np.testing.assert_allclose(gradient_of(tensor).numpy(), by_golden, rtol=1e-5, atol=1e-8)
        for name, parameter in loss.named_parameters():
            by_golden = case.adversary * numerical_gradient(case, numbers, numbers.trained[name])
            np.testing.assert_allclose(parameter.grad.numpy(), by_golden, rtol=1e-5, atol=1e-8)

    def test_is_the_same_in_float32(self, case: Case) -> None:
        numbers = case.draw()
        loss = prepared(case, numbers, torch.float32)
        values = loss(
            signals_of(numbers.student, torch.float32), signals_of(numbers.teacher, torch.float32), batch_of(numbers)
        )
        expected = case.golden(with_trained(numbers, loss))
        shown = case.counts_of(numbers, expected.ndim) > 0
        assert values.dtype == torch.float32
        np.testing.assert_allclose(values.detach().numpy()[shown], expected[shown], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("size", [1.0, 1e4])
    def test_bf16_signals_are_computed_in_float32(self, case: Case, size: float) -> None:
        """Value exact for the rounded numbers, gradients finite, for numbers up to ±1e4."""
        numbers = case.draw()

        def rounded(arrays: dict[str, Array]) -> dict[str, Array]:
            largest = {name: size / max(np.abs(array).max(), 1) for name, array in arrays.items()}
            tensors = {name: torch.tensor(array * largest[name]).bfloat16() for name, array in arrays.items()}
            return {name: tensor.double().numpy() for name, tensor in tensors.items()}

        numbers = replace(numbers, student=rounded(numbers.student), teacher=rounded(numbers.teacher))
        loss = prepared(case, numbers, torch.bfloat16)
        assert all(parameter.dtype == torch.float32 for parameter in loss.parameters())
        batch = batch_of(numbers, torch.float32)
        student = signals_of(numbers.student, torch.bfloat16, grad=True)
        teacher = signals_of(numbers.teacher, torch.bfloat16)
        values = loss(student, teacher, batch)
        expected = case.golden(with_trained(numbers, loss))
        shown = case.counts_of(numbers, expected.ndim) > 0
        assert values.dtype == torch.float32
        assert np.isfinite(expected[shown]).all(), "the golden formula overflows: write it in log space"
        scale = np.abs(expected[shown]).max()
        np.testing.assert_allclose(values.detach().numpy()[shown], expected[shown], rtol=1e-3, atol=1e-6 * scale)
        objective(loss, student, teacher, batch).backward()
        assert all(torch.isfinite(gradient_of(tensor)).all() for tensor in tensors_of(student).values())
        assert all(torch.isfinite(parameter.grad).all() for parameter in loss.parameters())

    def test_autocast_narrows_no_more_than_the_projectors(self, case: Case) -> None:
        """Under bf16 autocast a matrix product of the loss itself would lose all but 8 bits."""
        numbers = case.draw()
        loss = prepared(case, numbers, torch.float32)
        student, batch = signals_of(numbers.student, torch.float32, grad=True), batch_of(numbers, torch.float32)
        teacher = signals_of(numbers.teacher, torch.float32)
        plain = loss(student, teacher, batch)
        with torch.autocast("cpu", torch.bfloat16):
            values = loss(student, teacher, batch)
            total = objective(loss, student, teacher, batch)
        total.backward()
        assert values.dtype == torch.float32
        close = 0.1 if list(loss.parameters()) else 1e-5
        torch.testing.assert_close(values, plain, rtol=close, atol=close)
        assert all(torch.isfinite(gradient_of(tensor)).all() for tensor in tensors_of(student).values())

    def test_needs_are_all_that_it_reads(self, case: Case) -> None:
        """The case's shapes are the loss's needs, no more and no less; it is run on these alone everywhere here."""
        loss = case.make()
        for shapes, request in ((case.student, loss.needs.student), (case.teacher, loss.needs.teacher)):
            assert set(shapes) == set(request.features) | ({"output"} if request.output else set())
        assert loss.needs.labels == (case.labels is not None)

    def test_no_gradient_reaches_the_teacher(self, case: Case) -> None:
        numbers = case.draw()
        loss = prepared(case, numbers)
        teacher = signals_of(numbers.teacher, torch.float64, grad=True)
        objective(loss, signals_of(numbers.student, torch.float64, grad=True), teacher, batch_of(numbers)).backward()
        assert all(tensor.grad is None for tensor in tensors_of(teacher).values())

    def test_weights_scale_the_share_of_a_row(self, case: Case) -> None:
        numbers = case.draw()
        loss = prepared(case, numbers)
        plain = loss.counts(batch_of(replace(numbers, weights=np.ones_like(numbers.weights))))
        rows = torch.tensor(numbers.weights).float().view(-1, *[1] * (plain.dim() - 1))
        torch.testing.assert_close(loss.counts(batch_of(numbers)), plain * rows)
        without = replace(batch_of(numbers), weights=None)
        torch.testing.assert_close(loss.counts(without), plain)

    def test_counts_are_known_from_the_batch_alone(self, case: Case) -> None:
        numbers = case.draw()
        loss = prepared(case, numbers)
        batch = batch_of(numbers)
        values = loss(signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch)
        assert loss.counts(batch).shape == values.shape
        assert loss.per_token == (values.dim() == 2)

    def test_a_copy_is_the_same_loss_with_parts_of_its_own(self, case: Case) -> None:
        numbers = case.draw()
        loss = prepared(case, numbers)
        twin = copy.deepcopy(loss)
        student, teacher = signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64)
        batch = batch_of(numbers)
        before = loss(student, teacher, batch)
        torch.testing.assert_close(twin(student, teacher, batch), before, rtol=0, atol=0)
        for parameter in twin.parameters():
            parameter.data.zero_()
        torch.testing.assert_close(loss(student, teacher, batch), before, rtol=0, atol=0)

    def test_preparing_twice_keeps_what_was_trained_or_loaded(self, case: Case) -> None:
        numbers = case.draw()
        loss, other = prepared(case, numbers), prepared(case, numbers)
        state = {name: torch.full_like(tensor, 0.25) for name, tensor in other.state_dict().items()}
        loss.load_state_dict(state)
        held = [id(parameter) for parameter in loss.parameters()]
        random = torch.random.get_rng_state()
        loss.prepare(
            signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
        )
        assert [id(parameter) for parameter in loss.parameters()] == held
        assert all(torch.equal(loss.state_dict()[name], state[name]) for name in state)
        assert torch.equal(torch.random.get_rng_state(), random)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_nan_in_a_signal_is_refused_by_name_before_training(self, case: Case, bad: float) -> None:
        for side in ("student", "teacher"):
            for name in getattr(case, side):
                numbers = case.draw()
                array = getattr(numbers, side)[name]
                array.reshape(len(array), -1)[0, 0] = bad
                where = f"output of the {side}" if name == "output" else f"layer `{name}` of the {side}"
                with pytest.raises(SignalError, match=where.replace(".", r"\.")):
                    prepared(case, numbers)

    def test_runs_whole_under_torch_compile(self, case: Case) -> None:
        numbers = case.draw()
        loss = prepared(case, numbers)
        student, teacher = (
            signals_of(numbers.student, torch.float64, grad=True),
            signals_of(numbers.teacher, torch.float64),
        )
        batch = batch_of(numbers)
        torch.compiler.reset()

        def run(student: Signals, teacher: Signals, batch: Batch) -> torch.Tensor:
            return objective(loss, student, teacher, batch)

        # aot_eager traces the backward pass too; once for each loss is enough.
        backend = "aot_eager" if case in FIRST.values() else "eager"
        compiled = torch.compile(run, fullgraph=True, backend=backend)
        inputs = [tensor for name, tensor in tensors_of(student).items() if name not in case.detached]
        plain, traced = run(student, teacher, batch), compiled(student, teacher, batch)
        torch.testing.assert_close(traced, plain, rtol=1e-12, atol=1e-12)
        for expected, found in zip(
            torch.autograd.grad(plain, inputs), torch.autograd.grad(traced, inputs), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@cases(lambda case: case.floor is not None)
def test_floor(case: Case) -> None:
    """Where the teacher says what the student says, the value is the floor and nothing pulls."""
    numbers = case.draw()
    same = dict(zip(case.teacher, numbers.student.values(), strict=True))
    numbers = replace(numbers, teacher={name: array.copy() for name, array in same.items()})
    loss = prepared(case, numbers)
    student, teacher = signals_of(numbers.student, torch.float64, grad=True), signals_of(numbers.teacher, torch.float64)
    values = loss(student, teacher, batch_of(numbers))
    np.testing.assert_allclose(values.detach().numpy(), case.floor, atol=1e-12)
    values.sum().backward()
    for tensor in tensors_of(student).values():
        np.testing.assert_allclose(gradient_of(tensor).numpy(), 0, atol=1e-7)


@cases(lambda case: case.tokens is not None)
@pytest.mark.parametrize("garbage", [1e4, float("nan")])
def test_masked_garbage_changes_nothing(case: Case, garbage: float) -> None:
    numbers = case.draw()
    loss = prepared(case, numbers)
    batch, results = batch_of(numbers), []
    assert numbers.mask is not None
    assert not numbers.mask.all()
    for fill in (None, garbage):
        student, teacher = signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64)
        for tensor in (*tensors_of(student).values(), *tensors_of(teacher).values()):
            if fill is not None:
                tensor[~torch.tensor(numbers.mask)] = fill
        for tensor in tensors_of(student).values():
            tensor.requires_grad_()
        total = objective(loss, student, teacher, batch)
        total.backward()
        gradients = [gradient_of(tensor) for tensor in tensors_of(student).values()]
        assert all((gradient[~torch.tensor(numbers.mask)] == 0).all() for gradient in gradients)
        results.append([total.detach(), *gradients, *(p.grad.clone() for p in loss.parameters())])
        loss.zero_grad()
    for clean, dirty in zip(*results, strict=True):
        torch.testing.assert_close(dirty, clean, rtol=0, atol=0)


@cases(lambda case: case.tokens is not None)
def test_longer_padding_changes_nothing(case: Case) -> None:
    numbers = case.draw()
    assert case.tokens is not None
    loss = prepared(case, numbers)
    longer = grown(numbers, case.tokens, 3)
    totals = [
        objective(loss, signals_of(n.student, torch.float64), signals_of(n.teacher, torch.float64), batch_of(n))
        for n in (numbers, longer)
    ]
    torch.testing.assert_close(totals[1], totals[0], rtol=1e-12, atol=1e-12)


@cases(per_sample)
def test_the_value_of_a_sample_is_the_same_in_any_batch(case: Case) -> None:
    numbers = case.draw()
    loss = prepared(case, numbers)

    def run(n: Numbers) -> torch.Tensor:
        return loss(signals_of(n.student, torch.float64), signals_of(n.teacher, torch.float64), batch_of(n))

    whole = run(numbers)
    parts = torch.cat([run(part(numbers, slice(start, stop))) for start, stop in ((0, 1), (1, 2), (2, 4))])
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    counts = [loss.counts(batch_of(part(numbers, slice(i, i + 1)))) for i in range(case.samples)]
    torch.testing.assert_close(torch.cat(counts), loss.counts(batch_of(numbers)))


@cases(lambda case: not per_sample(case))
def test_a_loss_that_says_it_compares_samples_does(case: Case) -> None:
    numbers = case.draw()
    loss = prepared(case, numbers)

    def run(n: Numbers) -> torch.Tensor:
        return loss(signals_of(n.student, torch.float64), signals_of(n.teacher, torch.float64), batch_of(n))

    halves = torch.cat([run(part(numbers, slice(0, 2))), run(part(numbers, slice(2, 4)))])
    assert not torch.allclose(halves, run(numbers))


@cases(lambda case: case.make().fewest_rows > 1)
def test_as_many_rows_as_a_loss_asks_for_say_something(case: Case) -> None:
    fewest = case.make().fewest_rows
    numbers = part(case.draw(), slice(0, fewest))
    values = prepared(case, numbers)(
        signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
    )
    assert float(values.detach().abs().sum()) > 0


@cases(lambda case: bool(list(prepared(case, case.draw()).parameters())))
def test_a_projector_is_not_silently_made_anew_for_other_widths(case: Case) -> None:
    """What was trained is refused for models it does not fit, or kept beside a new one for these."""
    numbers = case.draw()
    loss = prepared(case, numbers)
    before = {name: parameter.clone() for name, parameter in loss.named_parameters()}

    def wider(array: Array) -> Array:
        return np.concatenate([array, array], axis=1 if array.ndim == 4 else -1)

    other = replace(numbers, student={name: wider(array) for name, array in numbers.student.items()})
    with contextlib.suppress(SignalError):
        loss.prepare(
            signals_of(other.student, torch.float64), signals_of(other.teacher, torch.float64), batch_of(other)
        )
    after = dict(loss.named_parameters())
    assert all(torch.equal(after[name], parameter) for name, parameter in before.items())
