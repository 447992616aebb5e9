"""A question that memory does not suffice for: asked in smaller pieces, with the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tutelage as tt
from tutelage.doctor import describe_plan
from tutelage.errors import OutOfMemory, QueryFailed, RecipeError, SignalError
from tutelage.export.safetensors import load_student
from tutelage.forms import TopK
from tutelage.labelling import fill_caches
from tutelage.signals import Batch, Request, Signals
from tutelage.teachers import Cached, FunctionTeacher, ModuleTeacher
from tutelage.teachers.chunks import Chunks, out_of_memory

WEIGHT = np.random.default_rng(1).normal(size=(5, 3))
INPUTS = np.random.default_rng(2).normal(size=(220, 5)).astype(np.float32)
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."
ERRORS = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": lambda: RuntimeError(ALLOCATOR),
    "numpy": lambda: MemoryError("Unable to allocate 728. TiB for an array"),
}


class Narrow(nn.Module):
    """A linear teacher that memory suffices for up to `most` rows; it notes how many each question had."""

    def __init__(self, most: int = 10**9, error: str = "cpu") -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3, bias=False)
        self.linear.weight.data = torch.tensor(WEIGHT.T, dtype=torch.float32)
        self.most, self.error, self.asked = most, error, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(len(x))
        if len(x) > self.most:
            raise ERRORS[self.error]()
        return self.linear(x)


def batch(rows: int, **more: Any) -> Batch:
    at = torch.arange(rows)
    return Batch(inputs=torch.from_numpy(INPUTS[:rows]), rows=at, views=at * 0, **more)


def recipe(teacher: Any, **changes: Any) -> tt.Recipe:
    settings: dict[str, Any] = {
        "name": "narrow",
        "task": "classification",
        "data": tt.Data(source=tt.Arrays(INPUTS, (INPUTS @ WEIGHT).argmax(1))),
        "teacher": teacher,
        "student": tt.ModuleStudent(lambda: nn.Linear(5, 3)),
        "losses": [tt.losses.KLDivergence()],
        "training": tt.Training(steps=4, batch_size=64),
        "measure": tt.Measure(seconds=0.2, rounds=2, batch_sizes=[1]),
        "export": tt.Export(onnx=False),
        "baseline": False,
    }
    return tt.Recipe(**(settings | changes))


@pytest.mark.parametrize("error", ERRORS)
def test_memory_that_runs_out_halves_the_question_for_good_and_changes_no_answer(error: str) -> None:
    """Catches a run that dies where half as many rows would do, and one that tries the large question each time."""
    module = Narrow(most=6, error=error)
    chunks = Chunks()
    for _ in range(2):
        said = chunks.ask(lambda some: Signals(output=module(some.inputs).detach()), batch(50))
        np.testing.assert_allclose(said.dense().numpy(), INPUTS[:50].astype(float) @ WEIGHT, atol=1e-5)
    assert module.asked == [50, 25, 12, *[6] * 8, 2, *[6] * 8, 2]


def test_pieces_have_their_own_rows_masks_columns_and_forms() -> None:
    """Catches answers joined out of order, and pieces that see the columns or tokens of other rows."""
    mask = torch.arange(4)[None] < torch.arange(1, 8)[:, None]
    columns = {"number": np.arange(7)}

    def ask(some: Batch) -> Signals:
        assert some.mask is not None and some.raw is not None and len(some) <= 3
        number = torch.from_numpy(some.raw()["number"]).float()
        assert torch.equal(number, some.rows.float())
        logits = torch.stack([number, -number, number * 0], 1)
        counts = some.mask.sum(1).float()
        top = TopK.of(logits, 1 + int(some.rows[0] == 0))  # the first piece names more classes than the others
        return Signals(top=top, features={"a.b": counts[:, None]}, members={"m": Signals(output=logits + 1)})

    said = Chunks(3).ask(ask, batch(7, mask=mask, raw=lambda: columns))
    rows = torch.arange(7.0)
    assert torch.equal(said.features["a.b"][:, 0], torch.tensor([1.0, 2, 3, 4, 4, 4, 4]))
    assert torch.equal(said.members["m"].dense(), torch.stack([rows, -rows, rows * 0], 1) + 1)
    assert said.top is not None and said.top.indices[1:, 0].eq(0).all() and said.top.logits[:, 0].equal(rows)


def test_what_is_no_lack_of_memory_here_is_raised_as_it_is_and_a_single_row_ends_it() -> None:
    asked: list[int] = []

    def fails(error: BaseException, cause: BaseException | None = None) -> Any:
        def ask(some: Batch) -> Signals:
            asked.append(len(some))
            raise error from cause

        return ask

    for error in (ValueError("out of memory"), QueryFailed("the server: CUDA out of memory"), RuntimeError("a shape")):
        with pytest.raises(type(error)):
            Chunks().ask(fails(error), batch(8))
    assert asked == [8, 8, 8]
    with pytest.raises(OutOfMemory, match=r"single row.*can't allocate memory"):
        Chunks().ask(fails(RuntimeError(ALLOCATOR)), batch(8))
    assert asked[3:] == [8, 4, 2, 1]
    wrapped = SignalError("the function", found="MemoryError")
    wrapped.__cause__ = MemoryError()
    assert out_of_memory(wrapped)


def test_no_question_of_a_run_has_more_rows_than_the_recipe_says(tmp_path: Path) -> None:
    """Catches a setting that holds in evaluation and not in labelling, training, the plan or the forecast."""
    for cached in (False, True):
        module = Narrow()
        teacher: Any = ModuleTeacher(module)
        teacher = Cached(teacher, str(tmp_path / "cache")) if cached else teacher
        made = recipe(teacher, chunk=5)
        plan = tt.make_plan(made)
        describe_plan(plan)  # with a forecast
        tt.distill(made, tmp_path / f"run-{cached}", progress=False)
        timed = [size for size in module.asked if size == 1]  # the measuring of latency
        assert max(module.asked) == 5 and len(module.asked) - len(timed) > 40
    with pytest.raises(RecipeError, match="at least 1 row"):
        recipe(ModuleTeacher(Narrow()), chunk=0).check()


def test_a_run_with_too_little_memory_for_its_usual_questions_ends_as_one_with_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches labelling, training and evaluation that end in a traceback where halves would do."""
    students = []
    for most in (10**9, 8):
        for cached in (False, True):
            teacher: Any = ModuleTeacher(Narrow(most=most))
            teacher = Cached(teacher, str(tmp_path / f"cache-{most}")) if cached else teacher
            bundle = tt.distill(recipe(teacher), tmp_path / f"run-{most}-{cached}", progress=False).bundle
            students.append(load_student(bundle).state_dict())
    for student in students[1:]:
        torch.testing.assert_close(student, students[0], atol=1e-6, rtol=0)
    assert "about 128 rows at once" in (shown := capsys.readouterr().err) and "`chunk: 8`" in shown


def forgetful(columns: dict[str, np.ndarray]) -> np.ndarray:
    matrix = np.concatenate([cells.reshape(len(cells), -1) for cells in columns.values()], axis=1)
    if len(matrix) > 9:
        raise MemoryError
    return matrix @ WEIGHT


def test_a_function_that_lacks_memory_is_asked_in_halves_too(tmp_path: Path) -> None:
    """Catches a lack of memory that another error wraps."""
    cached = Cached(FunctionTeacher("test_chunks:forgetful", "logits", reads="raw"), str(tmp_path / "cache"))
    plan = tt.make_plan(recipe(cached))
    (filled,) = fill_caches(plan, progress=False)
    assert filled.asked == filled.stored > 128
    said = cached.ask(plan.data.batch(np.arange(9)), Request(output=True)).dense().numpy()
    np.testing.assert_allclose(said, INPUTS[:9].astype(float) @ WEIGHT, atol=1e-5)
