"""What every teacher must pass. Teachers are found by walking the package: one without a case fails here.

The cases are in `tests/teachers/teacher_case.py`, by the name of the class, with `-` before further cases of a class.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))

from teacher_case import CASES, TeacherCase, batch_of

import tutelage.teachers
from tutelage.errors import ModelError
from tutelage.signals import Batch, Inputs, Request, Signals
from tutelage.teachers import ColumnTeacher, OpenAICompatible, OpenInference, Teacher
from tutelage.teachers.stand_in import Sampled, _StandIn

CPU = torch.device("cpu")
SUPPLYING = {name: case for name, case in CASES.items() if case.features}
MODULES = {name: case for name, case in CASES.items() if case.module}
OTHERS = {name: case for name, case in CASES.items() if case.other is not None}
PADDED = {name: case for name, case in CASES.items() if case.padded}
_loaded: dict[str, Teacher] = {}


def every_case(cases: dict[str, TeacherCase] = CASES) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", cases)


def loaded(name: str) -> Teacher:
    """The teacher of a case, loaded once; tests that change it load their own."""
    if name not in _loaded:
        _loaded[name] = fresh(name)
    return _loaded[name]


def fresh(name: str) -> Teacher:
    teacher = CASES[name].make()
    teacher.load(CPU)
    return teacher


def everything(name: str) -> Request:
    return Request(output=True, features=frozenset(CASES[name].features))


def batch(name: str, rows: slice = slice(None)) -> Batch:
    """Some of a case's rows."""
    case = CASES[name]
    raw = None if case.raw is None else {column: cells[rows] for column, cells in case.raw().items()}
    return replace(batch_of(case.inputs()).map(lambda tensor: tensor[rows]), raw=None if raw is None else raw.copy)


def ask(teacher: Teacher, asked: Inputs | Batch, request: Request) -> Signals:
    return teacher.ask(asked if isinstance(asked, Batch) else batch_of(asked), request)


def module_of(teacher: Teacher) -> nn.Module:
    module = teacher.as_module()
    assert module is not None
    return module


def answers(signals: Signals) -> dict[str, Tensor]:
    assert (signals.output is None) != (signals.top is None)
    return {"output": signals.dense(), **signals.features}


def require_equal(found: Signals, expected: Signals, tolerance: float = 0.0) -> None:
    assert answers(found).keys() == answers(expected).keys()
    for path, tensor in answers(expected).items():
        torch.testing.assert_close(answers(found)[path], tensor, atol=tolerance, rtol=0)


def teachers_of_the_package(base: type[Teacher] = Teacher) -> set[type[Teacher]]:
    for info in pkgutil.iter_modules(tutelage.teachers.__path__):
        importlib.import_module(f"tutelage.teachers.{info.name}")
    found: set[type[Teacher]] = set()
    for child in base.__subclasses__():
        found |= teachers_of_the_package(child)
        if not inspect.isabstract(child) and child.__module__.startswith("tutelage."):
            found.add(child)
    return found


def test_every_teacher_of_the_package_has_a_case() -> None:
    covered = {type(case.make()) for case in CASES.values()}
    # Stand-ins repeat answers while a run is only looked at, and are no teachers: tests/test_doctor_asks_little.py.
    assert teachers_of_the_package() == covered | {_StandIn, Sampled}


@every_case()
def test_the_constructor_stores_its_arguments_under_their_names_and_loads_nothing(name: str) -> None:
    teacher = CASES[name].make()
    assert set(inspect.signature(type(teacher)).parameters) <= set(vars(teacher))
    assert teacher.module is None
    assert teacher.describe()


@every_case()
def test_it_supplies_exactly_what_is_requested(name: str) -> None:
    inputs, features = batch(name), CASES[name].features
    assert ask(loaded(name), inputs, Request()) == Signals()
    output_only = ask(loaded(name), inputs, Request(output=True))
    assert set(answers(output_only)) == {"output"}
    for path in features:
        alone = ask(loaded(name), inputs, Request(features=frozenset({path})))
        assert alone.output is None and alone.top is None and set(alone.features) == {path}
    assert set(answers(ask(loaded(name), inputs, everything(name)))) == {"output", *features}


@every_case(MODULES)
def test_answers_carry_no_gradient_and_leave_the_users_flags_alone(name: str) -> None:
    teacher = fresh(name)
    parameters = dict(module_of(teacher).named_parameters())
    frozen = next(iter(parameters))
    parameters[frozen].requires_grad_(False)
    recording: set[bool] = set()
    for inner in module_of(teacher).modules():
        inner.register_forward_hook(lambda *_: recording.add(torch.is_grad_enabled()))
    with torch.enable_grad():
        signals = ask(teacher, batch(name), everything(name))
    assert not any(tensor.requires_grad for tensor in answers(signals).values())
    assert recording == {False}  # a graph that is built and thrown away costs the memory of a training step
    assert {n for n, p in module_of(teacher).named_parameters() if not p.requires_grad} == {frozen}


@every_case(MODULES)
def test_it_answers_in_eval_mode_although_a_parent_was_set_to_train(name: str) -> None:
    teacher = fresh(name)
    before, digest = ask(teacher, batch(name), everything(name)), teacher.fingerprint()
    nn.Sequential(module_of(teacher)).train()
    require_equal(ask(teacher, batch(name), everything(name)), before)
    assert teacher.fingerprint() == digest  # no batch statistics moved


@every_case()
def test_asking_changes_no_weight_and_the_answer_is_the_same_twice(name: str) -> None:
    teacher = fresh(name)
    digest = teacher.fingerprint()
    torch.manual_seed(0)
    first = ask(teacher, batch(name), everything(name))
    torch.manual_seed(1)
    require_equal(ask(teacher, batch(name), everything(name)), first)
    assert teacher.fingerprint() == digest


@every_case()
def test_a_row_is_answered_alone_as_in_a_batch(name: str) -> None:
    together = ask(loaded(name), batch(name), everything(name))
    for row in range(len(batch(name))):
        alone = ask(loaded(name), batch(name, slice(row, row + 1)), everything(name))
        require_equal(alone, together.map(lambda tensor, row=row: tensor[row : row + 1]), 1e-5)


@every_case(PADDED)
def test_padding_changes_no_answer(name: str) -> None:
    case = CASES[name]
    assert case.padded is not None
    short, long = case.inputs(), case.padded()
    assert isinstance(short, dict)
    tight, loose = ask(loaded(name), short, everything(name)), ask(loaded(name), long, everything(name))
    assert tight.output is not None and loose.output is not None
    torch.testing.assert_close(loose.output, tight.output, atol=1e-5, rtol=0)
    real = short["attention_mask"].bool()
    for path, states in tight.features.items():
        torch.testing.assert_close(loose.features[path][:, : real.shape[1]][real], states[real], atol=1e-5, rtol=0)


@every_case()
def test_the_fingerprint_is_the_same_for_two_loads(name: str) -> None:
    one, two = fresh(name), fresh(name)
    assert one.fingerprint() == two.fingerprint() == loaded(name).fingerprint()
    assert len(one.fingerprint()) == 64


@every_case(MODULES)
def test_the_fingerprint_is_another_after_one_weight_changed(name: str) -> None:
    two = fresh(name)
    for parameter in (list(module_of(two).parameters())[i] for i in (0, -1)):
        before = two.fingerprint()
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-3
        assert two.fingerprint() != before


@every_case(SUPPLYING)
def test_an_unknown_layer_is_refused_with_the_nearest_name_before_anything_is_computed(name: str) -> None:
    teacher, missing = loaded(name), CASES[name].missing
    assert missing is not None
    calls: list[nn.Module] = []
    module = teacher.as_module() or nn.Identity()
    handle = module.register_forward_pre_hook(lambda module, _: calls.append(module))
    request = Request(output=True, features=frozenset({missing[0]}))
    try:
        for refuse in (lambda: teacher.check(request), lambda: ask(teacher, batch(name), request)):
            with pytest.raises(ModelError, match=f"did you mean `{missing[1]}`"):
                refuse()
    finally:
        handle.remove()
    assert not calls
    teacher.check(everything(name))


@every_case({name: case for name, case in CASES.items() if not case.features})
def test_a_teacher_without_features_names_both_sides_when_asked_for_some(name: str) -> None:
    request = Request(features=frozenset({"encoder.layer.2"}))
    for refuse in (lambda: loaded(name).check(request), lambda: ask(loaded(name), batch(name), request)):
        with pytest.raises(ModelError, match=r"encoder\.layer\.2") as caught:
            refuse()
        assert type(loaded(name)).__name__ in str(caught.value)


@every_case({name: case for name, case in SUPPLYING.items() if name in MODULES})
def test_features_are_what_a_hand_set_hook_sees(name: str) -> None:
    teacher, inputs = loaded(name), CASES[name].inputs()
    module = module_of(teacher)
    seen: dict[str, Tensor] = {}

    def note(path: str) -> object:
        def hook(_module: nn.Module, _args: object, result: object) -> None:
            tensor = result[0] if isinstance(result, tuple) else result
            assert isinstance(tensor, Tensor)
            seen[path] = tensor.clone()  # the next layer may work in place

        return hook

    handles = [module.get_submodule(path).register_forward_hook(note(path)) for path in CASES[name].features]
    with torch.no_grad():
        output = module(**inputs) if isinstance(inputs, dict) else module(inputs)
    for handle in handles:
        handle.remove()
    require_equal(ask(teacher, inputs, everything(name)), Signals(output=output, features=seen))


@every_case(MODULES)
def test_its_module_for_timing_gives_the_answers_it_gives(name: str) -> None:
    inputs = CASES[name].inputs()
    with torch.no_grad():
        output = module_of(loaded(name))(**inputs) if isinstance(inputs, dict) else module_of(loaded(name))(inputs)
    torch.testing.assert_close(output, answers(ask(loaded(name), inputs, everything(name)))["output"], atol=0, rtol=0)


@every_case()
def test_what_is_timed_of_a_teacher_that_is_no_module_gives_the_answers_it_gives(name: str) -> None:
    served = loaded(name).served()
    untimed = isinstance(loaded(name), OpenInference | OpenAICompatible | ColumnTeacher)
    assert (served is None) == untimed  # nobody pays for timing, and to read a column is no model's time
    if served is not None:
        require_equal(served.open(1)(batch(name)), ask(loaded(name), batch(name), Request(output=True)))


@every_case(MODULES)
def test_loading_twice_is_harmless(name: str) -> None:
    teacher = fresh(name)
    with torch.no_grad():
        next(module_of(teacher).parameters()).add_(1.0)
    before, digest = ask(teacher, batch(name), everything(name)), teacher.fingerprint()
    weights = [id(parameter) for parameter in module_of(teacher).parameters()]
    teacher.load(CPU)
    assert [id(parameter) for parameter in module_of(teacher).parameters()] == weights
    assert teacher.fingerprint() == digest
    require_equal(ask(teacher, batch(name), everything(name)), before)


@every_case(OTHERS)
def test_a_teacher_that_is_no_module_has_a_fingerprint_of_its_answers_and_can_be_loaded_twice(name: str) -> None:
    one, two, other = fresh(name), fresh(name), CASES[name].other
    assert other is not None
    different = other()
    different.load(CPU)
    assert one.fingerprint() == two.fingerprint() != different.fingerprint() and len(one.fingerprint()) == 64
    expected = ask(one, batch(name), Request(output=True))
    with pytest.raises(AssertionError):
        require_equal(ask(different, batch(name), Request(output=True)), expected)
    digest = two.fingerprint()
    two.load(CPU)
    assert two.fingerprint() == digest
    require_equal(ask(two, batch(name), Request(output=True)), expected)
    assert two.module is None and two.as_module() is None and two.modules == {}
    assert not any(tensor.requires_grad for tensor in answers(ask(two, batch(name), everything(name))).values())


@every_case(OTHERS)
def test_a_teacher_that_is_not_loaded_says_so(name: str) -> None:
    with pytest.raises(ModelError, match="loaded"):
        CASES[name].make().ask(batch(name), Request(output=True))
