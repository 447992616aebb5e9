from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tutelage.errors import ModelError
from tutelage.signals import Batch, Request
from tutelage.teachers import FunctionTeacher, TransferFacts

CPU = torch.device("cpu")
OUTPUT = Request(output=True)
LOGITS = np.random.default_rng(0).normal(size=(6, 4)) * 2
EXACT = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
NAMES = ["a", "b", "c", "d"]
CALLS = {"count": 0}


def answer(inputs: Any, *, value: Any = None, error: str = "") -> Any:
    CALLS["count"] += 1
    if error:
        raise SystemExit(3) if error == "exit" else KeyError(error)
    return value


def read(columns: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([columns["x"], -columns["x"]], axis=1)


def weighed(inputs: dict[str, torch.Tensor], *, weight: float) -> torch.Tensor:
    return weight * (inputs["a"] + inputs["b"])


RANDOM = np.random.default_rng(1)


def drawn(inputs: torch.Tensor) -> list[int]:
    return [int(RANDOM.choice(4, p=EXACT[int(row)])) for row in inputs[:, 0]]


def batch(rows: int = 6) -> Batch:
    numbers = torch.arange(rows)
    return Batch(inputs=numbers[:, None], rows=numbers, views=torch.zeros_like(numbers))


def teacher(gives: Any, value: Any, **more: Any) -> FunctionTeacher:
    more.setdefault("classes", NAMES)
    made = FunctionTeacher(f"{__name__}:answer", gives, arguments={"value": value}, **more)
    made.load(CPU)
    return made


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy, np.ndarray.tolist])
def test_logits_values_and_exact_probabilities_are_dense(form: Any) -> None:
    said = teacher("logits", form(LOGITS)).ask(batch(), OUTPUT)
    assert said.output is not None and said.top is None and said.output.dtype == torch.float32
    np.testing.assert_allclose(said.output, LOGITS, rtol=1e-6)
    values = teacher("values", form(LOGITS[:, 0])).ask(batch(), OUTPUT).output
    np.testing.assert_allclose(values, LOGITS[:, 0], rtol=1e-6)
    soft = teacher("probabilities", form(EXACT)).ask(batch(), OUTPUT).output
    assert soft is not None
    np.testing.assert_allclose(soft.exp(), EXACT, rtol=1e-5)


def test_rounded_probabilities_keep_what_they_do_not_tell_for_the_classes_of_which_they_tell_nothing() -> None:
    """Catches minus infinity for a class that was rounded to 0, and mass that no class can have."""
    rounded = np.vstack([np.round(EXACT, 1), [0.2, 0.2, 0.2, 0.3]])
    assert (rounded == 0).any() and (np.abs(rounded.sum(1) - 1) > 0.05).any()
    top = teacher("probabilities", rounded, decimals=1).ask(batch(7), OUTPUT).top
    assert top is not None
    found = top.dense().exp().numpy()
    for row, told in enumerate(rounded):
        zero, total = told == 0, told.sum()
        expected = told / max(total, 1) if zero.any() else told / total
        if zero.any() and total < 1:
            expected = np.where(zero, (1 - total) / zero.sum(), told)
        np.testing.assert_allclose(found[row], expected, atol=1e-6)
    assert bool(torch.isfinite(top.log_probabilities(1.0)[..., 0]).all())


def test_truncated_probabilities_leave_the_rest_to_the_others() -> None:
    cut = np.where(np.argsort(np.argsort(-EXACT)) < 2, EXACT, 0.0)
    top = teacher("probabilities", cut, truncated=True).ask(batch(), OUTPUT).top
    assert top is not None
    expected = np.where(cut > 0, cut, (1 - cut.sum(1, keepdims=True)) / 2)
    np.testing.assert_allclose(top.dense().exp(), expected, atol=1e-6)


@pytest.mark.parametrize("value", [["b", "a", "d", "d", "c", "a"], [1, 0, 3, 3, 2, 0]])
def test_labels_are_a_class_and_nothing_else(value: list[Any]) -> None:
    for given in (value, np.array(value)):
        top = teacher("labels", given).ask(batch(), OUTPUT).top
        assert top is not None and top.classes == 4
        np.testing.assert_array_equal(top.dense().exp(), np.eye(4)[[1, 0, 3, 3, 2, 0]])


def test_repeated_labels_of_a_random_black_box_become_their_shares() -> None:
    made = FunctionTeacher(f"{__name__}:drawn", "labels", classes=NAMES, samples=400)
    made.load(CPU)
    top = made.ask(batch(), OUTPUT).top
    assert top is not None
    shares = top.dense().exp().numpy()
    np.testing.assert_allclose(shares * 400, np.round(shares * 400), atol=1e-3)
    deviation = np.sqrt(EXACT * (1 - EXACT) / 400)
    assert (np.abs(shares - EXACT) < 4 * deviation + 1e-6).all()
    few = FunctionTeacher(f"{__name__}:drawn", "labels", classes=NAMES, samples=2)
    few.load(CPU)
    top = few.ask(batch(), OUTPUT).top
    assert top is not None and top.indices.shape == (6, 2)
    assert set(np.unique(top.dense().exp().numpy())) <= {0.0, 0.5, 1.0}


def test_repeated_probabilities_and_logits_are_averaged_as_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    for gives in ("probabilities", "logits"):
        made = teacher(gives, None, samples=2)
        values = iter([EXACT, EXACT[::-1].copy()] if gives == "probabilities" else [LOGITS, LOGITS[::-1].copy()])
        monkeypatch.setattr(made, "_call", lambda *_, values=values, **__: next(values))
        said = made.ask(batch(), OUTPUT).output
        assert said is not None
        np.testing.assert_allclose(said.softmax(-1), (EXACT + EXACT[::-1]) / 2, rtol=1e-5)


def test_raw_columns_and_dicts_of_inputs_are_one_argument() -> None:
    raw = {"x": np.arange(3.0)}
    made = FunctionTeacher(f"{__name__}:read", "logits", reads="raw")
    made.load(CPU)
    given = Batch(inputs=torch.zeros(3, 1), rows=torch.arange(3), views=torch.zeros(3), raw=lambda: raw)
    np.testing.assert_array_equal(made.ask(given, OUTPUT).output, [[0, 0], [1, -1], [2, -2]])
    with pytest.raises(ModelError, match="raw columns"):
        made.ask(batch(), OUTPUT)
    two = FunctionTeacher(f"{__name__}:weighed", "values", arguments={"weight": 2.0})
    two.load(CPU)
    pair = Batch(inputs={"a": torch.ones(3), "b": torch.arange(3.0)}, rows=torch.arange(3), views=torch.zeros(3))
    np.testing.assert_array_equal(two.ask(pair, OUTPUT).output, [2, 4, 6])


@pytest.mark.parametrize(
    ("gives", "value", "said"),
    [
        ("logits", LOGITS[:5], r"B = 6(.|\n)*shape \[5, 4\]"),
        ("logits", LOGITS[:, 0], r"shape \[6\]"),
        ("logits", LOGITS[:, :3], "4 classes(.|\n)*3 columns"),
        ("values", np.full(6, np.nan), "NaN"),
        ("logits", "words", "numbers"),
        ("probabilities", LOGITS, "probabilities(.|\n)*-"),
        ("probabilities", EXACT * 0.9, "come to 1(.|\n)*0.9(.|\n)*truncated"),
        ("probabilities", np.round(EXACT, 1), "come to 1(.|\n)*decimals"),
        ("labels", [0, 1, 2, 3, 4, 0], "from 0 to 3(.|\n)*4"),
        ("labels", ["a", "b", "c", "d", "e", "a"], "'e'"),
        ("labels", [0.5] * 6, "0.5"),
        ("labels", [True] * 6, "True"),
    ],
)
def test_answers_that_are_not_what_was_said_are_refused(gives: Any, value: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        teacher(gives, value).ask(batch(), OUTPUT)


def test_a_row_that_is_no_number_is_named() -> None:
    broken = LOGITS.copy()
    broken[[4, 3], [1, 2]] = np.nan, np.inf
    for value in (broken, broken.max(1)):
        with pytest.raises(ModelError, match="in row 3 of the 6"):
            teacher("logits" if value.ndim > 1 else "values", value).ask(batch(), OUTPUT)


def test_rounding_excuses_no_more_than_it_can_have_done() -> None:
    with pytest.raises(ModelError, match="come to 1"):
        teacher("probabilities", np.round(EXACT, 1), decimals=3).ask(batch(), OUTPUT)
    with pytest.raises(ModelError, match="come to 1"):
        teacher("probabilities", EXACT * 1.5, truncated=True).ask(batch(), OUTPUT)


def test_settings_that_contradict_are_refused_before_anything_is_asked() -> None:
    for more, said in (({"samples": 0}, "samples"), ({"decimals": 2, "gives": "logits"}, "gives: probabilities")):
        arguments = {"gives": "probabilities"} | more
        with pytest.raises(ModelError, match=said):
            FunctionTeacher(f"{__name__}:answer", **arguments).load(CPU)
    with pytest.raises(ModelError, match=r"teacher\.function(.|\n)*did you mean `answer`"):
        FunctionTeacher(f"{__name__}:anwser", "logits").load(CPU)
    with pytest.raises(ModelError, match=r"raises KeyError: 'boom' \(test_function_teacher\.py, line \d+\)"):
        made = FunctionTeacher(f"{__name__}:answer", "logits", arguments={"error": "boom"})
        made.load(CPU)
        made.ask(batch(), OUTPUT)


def test_settings_that_say_nothing_are_refused_also_where_no_recipe_has_typed_them() -> None:
    for more, said in (
        ({"gives": "prob"}, r"teacher\.gives(.|\n)*values(.|\n)*'prob'"),
        ({"reads": "rows"}, r"teacher\.reads(.|\n)*'rows'"),
        ({"decimals": -1}, r"teacher\.decimals(.|\n)*-1"),
    ):
        with pytest.raises(ModelError, match=said):
            FunctionTeacher(f"{__name__}:answer", **({"gives": "probabilities"} | more)).load(CPU)


def test_a_function_that_exits_does_not_end_the_run_in_silence() -> None:
    made = FunctionTeacher(f"{__name__}:answer", "logits", arguments={"error": "exit"})
    made.load(CPU)
    with pytest.raises(ModelError, match=r"raises SystemExit: 3 \(test_function_teacher\.py, line \d+\)"):
        made.ask(batch(), OUTPUT)


def test_labels_need_to_know_how_many_classes_there_are() -> None:
    made = teacher("labels", [0, 1, 0, 1, 0, 1], classes=None)
    with pytest.raises(ModelError, match=r"teacher\.classes"):
        made.ask(batch(), OUTPUT)
    made.meet(TransferFacts(inputs="", rows=6, classes=("no", "yes"), labelled=batch))
    top = made.ask(batch(), OUTPUT).top
    assert top is not None and top.classes == 2 and made.classes == ()


def test_each_sample_is_a_call_and_no_request_is_none() -> None:
    CALLS["count"] = 0
    made = teacher("logits", LOGITS, samples=3)
    made.ask(batch(), Request())
    assert CALLS["count"] == 0
    made.ask(batch(), OUTPUT)
    assert CALLS["count"] == 3


def test_the_fingerprint_is_that_of_the_code_and_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def print_(code: str, **more: Any) -> str:
        (tmp_path / "a_black_box.py").write_text(code)
        sys.modules.pop("a_black_box", None)
        made = FunctionTeacher("a_black_box:ask", "logits", **more)
        made.load(CPU)
        return made.fingerprint()

    first = print_("def ask(x):\n    return x\n")
    assert first == print_("def ask(x):\n    return x\n")
    others = [print_("def ask(x):\n    return x+1\n"), print_("def ask(x):\n    return x\n", samples=2)]
    assert len({first, *others}) == 3


def test_the_function_itself_in_the_place_of_its_name_is_refused_without_a_traceback() -> None:
    teacher = FunctionTeacher(abs, gives="logits")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"teacher\.function\n.*module:function"):
        teacher.load(torch.device("cpu"))
