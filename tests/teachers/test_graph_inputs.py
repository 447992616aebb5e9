"""Inputs of a graph that are no column, outputs that are maps, and the one column that has lost its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from graphs import BIAS, WEIGHT, to_openvino, write_linear, write_recurrent, write_zipmap

import tutelage as tt
from tutelage.errors import DataError, ModelError
from tutelage.plan import make_plan
from tutelage.recipe_file import load_recipe
from tutelage.signals import Batch, Inputs, Request
from tutelage.teachers import GraphTeacher, OnnxTeacher, OpenVinoTeacher

CPU = torch.device("cpu")
OUTPUT = Request(output=True)
X = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
KINDS: dict[str, Any] = {"onnx": OnnxTeacher, "openvino": OpenVinoTeacher, "openvino xml": OpenVinoTeacher}


def batch(inputs: Inputs | None = None, raw: dict[str, np.ndarray] | None = None) -> Batch:
    tensors = torch.from_numpy(X) if inputs is None else inputs
    rows = torch.arange(len(X))
    return Batch(inputs=tensors, rows=rows, views=torch.zeros_like(rows), raw=None if raw is None else lambda: raw)


def opened(kind: str, file: Path, **more: Any) -> GraphTeacher:
    path = to_openvino(file, file.with_suffix(".xml")) if kind == "openvino xml" else file
    teacher: GraphTeacher = KINDS[kind](str(path), threads=1, **more)
    teacher.load(CPU)
    return teacher


def by_hand(file: Path, rate: int, state: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Row by row, in ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feed = {"rate": np.array(rate, np.int64)}
    return np.concatenate([session.run(["output"], feed | {"x": X[i : i + 1], "h0": state})[0] for i in range(len(X))])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inputs", [None, {"x": torch.from_numpy(X)}, {"features": torch.from_numpy(X)}])
def test_constants_and_states_are_given_to_every_row_alike(kind: str, inputs: Any, tmp_path: Path) -> None:
    """Catches a state whose second axis is the batch, and a lone column that must find its input among three."""
    file = write_recurrent(tmp_path / "m.onnx")
    teacher = opened(kind, file, constants={"rate": 16000, "h0": 0})
    said = teacher.ask(batch(inputs), OUTPUT).output
    np.testing.assert_allclose(said, by_hand(file, 16000, np.zeros((2, 1, 3), np.float32)), atol=1e-5)
    np.testing.assert_allclose(said, X @ WEIGHT.astype(np.float64) + 2.0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 10])
def test_a_batch_that_the_graph_fixes_is_met_with_its_state(size: int, tmp_path: Path) -> None:
    teacher = opened("onnx", write_recurrent(tmp_path / "m.onnx", batch=size), constants={"rate": 8000, "h0": 0.5})
    said = teacher.ask(batch(), OUTPUT).output
    np.testing.assert_allclose(said, X @ WEIGHT.astype(np.float64) + 2.0, atol=1e-5)
    calls = teacher.feeds(batch())
    assert [call["h0"].shape for call in calls] == [(2, size, 3)] * -(-len(X) // size)


def test_the_whole_content_or_that_of_each_row_may_be_given(tmp_path: Path) -> None:
    file = write_recurrent(tmp_path / "m.onnx")
    state = np.arange(6, dtype=np.float32).reshape(2, 3) / 8
    said = opened("onnx", file, constants={"rate": 8000, "h0": state.tolist()}).ask(batch(), OUTPUT).output
    np.testing.assert_allclose(said, by_hand(file, 8000, state[:, None]), atol=1e-5)


def test_constants_that_do_not_fit_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    file = write_recurrent(tmp_path / "m.onnx")
    for constants, said in (
        ({"rat": 1, "h0": 0}, r"teacher\.constants\.rat(.|\n)*did you mean `rate`"),
        ({"rate": 0.5, "h0": 0}, r"teacher\.constants\.rate(.|\n)*int64 can hold(.|\n)*0\.5"),
        ({"rate": 1, "h0": [1, 2]}, r"teacher\.constants\.h0(.|\n)*a list of shape \[2\]"),
        ({"rate": 1, "h0": [[1], [1, 2]]}, r"teacher\.constants\.h0(.|\n)*lists of one length"),
        ({"rate": 1, "h0": 1e39}, r"teacher\.constants\.h0(.|\n)*float32 can hold"),
        ({"rate": "fast", "h0": 0}, r"teacher\.constants\.rate(.|\n)*expected: numbers"),
    ):
        with pytest.raises(ModelError, match=said):
            opened("onnx", file, constants=constants)
    with pytest.raises(ModelError, match=r"which teacher\.inputs names too"):
        opened("onnx", file, constants={"rate": 1, "h0": 0}, inputs={"hertz": "rate"})
    with pytest.raises(ModelError, match=r"`h0` float32(.|\n)*constants: \{h0: 0\}"):
        teacher = opened("onnx", file, constants={"rate": 1})
        teacher.ask(batch({"x": torch.from_numpy(X)}), OUTPUT)


def test_constants_are_in_the_fingerprint_and_their_absence_is_not(tmp_path: Path) -> None:
    file = write_recurrent(tmp_path / "m.onnx")
    prints = [opened("onnx", file, constants={"rate": r, "h0": 0}).fingerprint() for r in (8000, 16000)]
    assert prints[0] != prints[1]
    plain = opened("onnx", write_linear(tmp_path / "l.onnx"), output="logits")
    assert plain.fingerprint() == opened("onnx", tmp_path / "l.onnx", output="logits", constants=None).fingerprint()


@pytest.mark.parametrize("reads", ["inputs", "raw"])
def test_a_lone_column_keeps_its_name_where_the_recipe_renames_it(reads: Any, tmp_path: Path) -> None:
    """Catches `inputs: {pixels: x}` refused because the only tensor has no name any more."""
    file = write_linear(tmp_path / "m.onnx")
    asked = batch(raw={"pixels": X})
    for name in ("pixels", "input") if reads == "inputs" else ("pixels",):
        teacher = opened("onnx", file, output="logits", inputs={name: "x"}, reads=reads)
        np.testing.assert_allclose(teacher.ask(asked, OUTPUT).output, X @ WEIGHT + BIAS, atol=1e-5)
    with pytest.raises(ModelError, match=r"teacher\.inputs(.|\n)*pixels(.|\n)*did you mean `pixels`"):
        opened("onnx", file, output="logits", inputs={"pixel": "x"}, reads=reads).ask(asked, OUTPUT)


@pytest.mark.parametrize("keys", [["cat", "dog", "eel"], ["dog", "cat", "eel"], [0, 1, 2], [1, 2, 3], [2, 0, 1]])
def test_maps_of_probabilities_are_read_in_the_order_of_the_models_scores(keys: Any, tmp_path: Path) -> None:
    """Catches the order in which a map happens to list its keys: ONNX Runtime sorts them."""
    file = write_zipmap(tmp_path / "m.onnx", keys)
    with pytest.raises(ModelError, match="gives: probabilities"):
        opened("onnx", file, output="output_probability")
    teacher = opened("onnx", file, output="output_probability", gives="probabilities")
    said = teacher.ask(batch(), OUTPUT).output
    expected = torch.from_numpy(X @ WEIGHT.astype(np.float64) + BIAS).log_softmax(-1)
    np.testing.assert_allclose(said, expected, atol=1e-5)
    assert teacher.classes == (() if keys == [0, 1, 2] else tuple(map(str, keys)))


def recipe(file: Path, classes: list[str], **more: Any) -> tt.Recipe:
    labels = np.arange(60) % 3
    data = tt.Arrays({"x": np.random.default_rng(2).normal(size=(60, 5)).astype(np.float32)}, labels, classes=classes)
    return tt.Recipe(
        name="t",
        task="classification",
        data=tt.Data(source=data),
        teacher=OnnxTeacher(str(file), threads=1, **more),
        student=tt.ModuleStudent(lambda: torch.nn.Linear(5, 3)),
        losses=[tt.losses.KLDivergence()],
        training=tt.Training(steps=2, batch_size=8),
        licences={"teacher": tt.Licence(use="allowed", basis="own", date="2026-01-01")},
    )


def test_the_keys_of_the_maps_are_the_classes_whose_order_is_checked(tmp_path: Path) -> None:
    file = write_zipmap(tmp_path / "m.onnx", ["cat", "dog", "eel"])
    about = {"output": "output_probability", "gives": "probabilities"}
    make_plan(recipe(file, ["cat", "dog", "eel"], **about))
    with pytest.raises(DataError, match=r"the teacher's order: cat, dog, eel(.|\n)*dog, cat, eel"):
        make_plan(recipe(file, ["dog", "cat", "eel"], **about))


def test_a_graph_with_a_state_is_labelled_and_timed_as_any_other(tmp_path: Path) -> None:
    teacher = opened("onnx", write_recurrent(tmp_path / "m.onnx"), constants={"rate": 8000, "h0": 0})
    served = teacher.served()
    assert served is not None and served.graph is not None
    said = served.open(1)(batch()).output
    np.testing.assert_allclose(said, teacher.ask(batch(), OUTPUT).output)
    session = onnxruntime.InferenceSession(str(served.graph.path), providers=["CPUExecutionProvider"])
    (feed,) = served.graph.feeds(batch())
    np.testing.assert_allclose(session.run([served.graph.output], feed)[0], said)


def test_constants_of_a_recipe_keep_their_digits_and_their_kinds(tmp_path: Path) -> None:
    """Catches whole numbers that a recipe's reader makes floating ones: 2**53 + 1 is no float."""
    (tmp_path / "r.yaml").write_text(
        "name: c\ntask: classification\n"
        "data: {source: {class_path: Table, init_args: {path: x.csv, text: t}}}\n"
        "teacher: {class_path: OnnxTeacher, init_args: {path: m.onnx, constants: {a: 9007199254740993, b: true, "
        "c: 0.5, d: word, e: [[1, 2.5]]}}}\n"
        "student: {class_path: CutStudent}\nlosses: [{class_path: KLDivergence}]\ntraining: {steps: 1}\n"
        'licences: {teacher: {use: allowed, basis: own, date: "2026-01-01"}}\n'
    )
    teacher = load_recipe(tmp_path / "r.yaml").teacher
    assert isinstance(teacher, OnnxTeacher)
    expected = {"a": 2**53 + 1, "b": True, "c": 0.5, "d": "word", "e": [[1, 2.5]]}
    assert teacher.constants == expected
    assert [type(value) for value in teacher.constants.values()] == [type(value) for value in expected.values()]
