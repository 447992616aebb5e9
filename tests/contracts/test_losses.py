"""What every loss must pass, whatever its batch: its class, and its values and gradients on each of its cases.

`test_loss_rows.py` is on which rows count, `test_loss_slopes.py` on what becomes of gradients where a formula has none.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from loss_case import (
    Array,
    Case,
    batch_of,
    gradient_of,
    objective,
    prepared,
    signals_of,
    tensors_of,
    with_trained,
)
from loss_contract import FIRST, LOSSES, cases, cases_of, numerical_gradient, plain_of

from tutelage.described import describe
from tutelage.errors import SignalError
from tutelage.losses import Loss
from tutelage.signals import Batch, Signals


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
