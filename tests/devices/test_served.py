"""Teachers that are no torch modules, timed beside the student. Sleeps are lower bounds: the machine is shared.

Longer than 400 lines because all kinds of teachers share the small models at its top.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
sys.path.insert(0, str(Path(__file__).parents[1] / "ledger"))

from graphs import BIAS, WEIGHT, write_embedding, write_linear
from teacher_case import CASES, batch_of, ledger, model_file, numbers, server, table

from tutelage.devices import Cost, ModelForms, Target, measure_cost, served, size_of
from tutelage.devices.measure import InProcess
from tutelage.devices.onnx_process import OnnxProcess
from tutelage.devices.served import Timed, served_beside, timed_forms
from tutelage.devices.target import usable_cores
from tutelage.devices.worker import Task, perform
from tutelage.errors import ModelError
from tutelage.signals import Batch, Inputs, Request, Signals
from tutelage.teachers import (
    Cached,
    Ensemble,
    FunctionTeacher,
    LightGBMTeacher,
    ModuleTeacher,
    OnnxTeacher,
    OpenInference,
    OpenVinoTeacher,
    SeveralTeachers,
    SklearnTeacher,
    Teacher,
)
from tutelage.teachers.served import Served

CPU = torch.device("cpu")
CPU_1 = Target(kind="cpu")
OUTPUT = Request(output=True)
TEACHER_MS, ENCODE_MS, STUDENT_MS = 8.0, 4.0, 2.0
ENCODED: list[int] = []
"""How many rows each call of `encode` was about."""


class Sleeping(nn.Module):
    """A student that takes its time."""

    def forward(self, inputs: Tensor) -> Tensor:
        time.sleep(STUDENT_MS / 1000)
        return inputs[:, :3]


class Slow(Teacher):
    """A teacher of another library that takes its time."""

    def __init__(self, reads: frozenset[Any]) -> None:
        self.reads = reads
        self.threads: list[int] = []

    def load(self, device: torch.device) -> None: ...

    def check(self, request: Request) -> None: ...

    def fingerprint(self) -> str:
        return "0" * 64

    def ask(self, batch: Batch, request: Request) -> Signals:
        raise AssertionError("the teacher of the run was asked, not the one that is timed")

    def served(self) -> Served:
        def opened(threads: int) -> Callable[[Batch], Signals]:
            self.threads.append(threads)
            return self.slowly

        return Served(open=opened, reads=self.reads, files=None)

    def slowly(self, batch: Batch) -> Signals:
        time.sleep(TEACHER_MS / 1000)
        if "raw" in self.reads:
            assert batch.raw is not None and len(batch.raw()["size"]) == len(batch)
        return Signals(output=torch.zeros(len(batch), 3))


def encode(raw: Mapping[str, np.ndarray[Any, Any]]) -> Inputs:
    ENCODED.append(len(raw["size"]))
    time.sleep(ENCODE_MS / 1000)
    return torch.zeros(len(raw["size"]), 5)


def timed(teacher: Teacher, *, raw: bool = True, student: nn.Module | None = None, onnx: Path | None = None) -> Timed:
    forms = ModelForms(module=student or Sleeping(), onnx=onnx)
    batch = batch_of(numbers(), table() if raw else None)
    return served_beside(teacher, forms, batch=batch, encode=encode, target=CPU_1)


def measured(found: Timed, sizes: tuple[int, ...] = (1, 6), inputs: Inputs | None = None) -> Cost:
    given = numbers() if inputs is None else inputs
    return measure_cost(found.models, given, batch_sizes=sizes, rounds=5, seconds=0.1)


@pytest.mark.parametrize(
    ("reads", "form", "teacher_ms", "student_ms"),
    [
        ({"inputs"}, "from tensors", TEACHER_MS, STUDENT_MS),
        ({"raw"}, "from raw columns", TEACHER_MS, STUDENT_MS + ENCODE_MS),
        ({"raw", "inputs"}, "from raw columns", TEACHER_MS + ENCODE_MS, STUDENT_MS + ENCODE_MS),
    ],
)
def test_a_known_sleep_is_found_and_what_a_server_has_to_encode_is_in_both_times(
    reads: set[str], form: str, teacher_ms: float, student_ms: float
) -> None:
    """Catches a student that is given its encoding, a teacher that is not timed, or charged for what it does not do."""
    teacher = Slow(frozenset(reads))
    paired = timed(teacher)
    for name, encoded in (("teacher", teacher_ms > TEACHER_MS), ("student", student_ms > STUDENT_MS)):
        model, before = paired.models[name].in_process, len(ENCODED)
        assert model is not None
        model.call(3)()
        assert ENCODED[before:] == [3] * encoded
    cost = measured(paired)
    for name, wanted in (("teacher", teacher_ms), ("student", student_ms)):
        own = [lat for lat in cost.models[name].latencies if lat.form == form]
        found = {lat.batch: min(map(min, lat.samples_ms)) for lat in own}
        assert found.keys() == {1, 6}
        assert all(wanted <= quickest < 20 * wanted for quickest in found.values())
    assert set(cost.ratios) == {f"{form}/1", f"{form}/6"}
    assert list(cost.forms) == [form] and "Slow" in cost.forms[form]
    assert teacher.threads == [1]
    assert (cost.models["teacher"].size_bytes, cost.models["teacher"].parameters) == (None, None)
    assert Cost.from_dict(cost.to_dict()) == cost


def loaded(teacher: Teacher) -> Teacher:
    teacher.load(CPU)
    return teacher


def mixed() -> Ensemble:
    return Ensemble(
        [
            OpenVinoTeacher(model_file("m.onnx"), output="logits"),
            ModuleTeacher(lambda: nn.Linear(5, 3)),
            FunctionTeacher("test_served:of_table", "logits", reads="raw"),
        ]
    )


def of_table(columns: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    return np.nan_to_num(np.stack([columns["size"]] * 3, axis=1))


KINDS: dict[str, tuple[Callable[[], Teacher], str, str | None]] = {
    "OnnxTeacher, not exported": (lambda: OnnxTeacher(model_file("m.onnx"), output="logits"), "from tensors", "m.onnx"),
    "OpenVinoTeacher": (CASES["OpenVinoTeacher"].make, "from tensors", "m.onnx"),
    "LightGBMTeacher": (CASES["LightGBMTeacher"].make, "from raw columns", "m.txt"),
    "XGBoostTeacher": (CASES["XGBoostTeacher"].make, "from raw columns", "m.ubj"),
    "CatBoostTeacher": (CASES["CatBoostTeacher"].make, "from raw columns", "m.cbm"),
    "FunctionTeacher": (CASES["FunctionTeacher"].make, "from tensors", None),
    "Ensemble": (
        lambda: Ensemble([LightGBMTeacher(model_file("m.txt"))] * 2, "logits"),
        "from raw columns",
        "m.txt m.txt",
    ),
    "Ensemble, mixed": (mixed, "from raw columns", None),
    "Several": (lambda: SeveralTeachers({"a": LightGBMTeacher(model_file("m.txt"))}, "a"), "from raw columns", "m.txt"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_teacher_is_timed_in_its_library_and_as_large_as_its_files(kind: str) -> None:
    make, form, files = KINDS[kind]
    cost = measured(timed(loaded(make()), student=nn.Linear(5, 3)))
    teacher = cost.models["teacher"]
    assert {(lat.form, lat.batch) for lat in teacher.latencies} == {(form, 1), (form, 6)}
    assert set(cost.ratios) == {f"{form}/1", f"{form}/6"}
    sizes = None if files is None else sum(Path(model_file(name)).stat().st_size for name in files.split())
    assert teacher.size_bytes == sizes


def test_scikit_learn_is_timed_and_a_twin_of_the_model_gets_the_threads(tmp_path: Path) -> None:
    from sklearn.ensemble import RandomForestClassifier, VotingClassifier
    from skops import io

    x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1])
    forest = RandomForestClassifier(3, n_jobs=2, random_state=0)
    io.dump(VotingClassifier([("forest", forest)], voting="soft").fit(x, y), tmp_path / "m.skops")
    teacher = SklearnTeacher(
        str(tmp_path / "m.skops"), trusted=["sklearn.tree._tree.Tree", "sklearn.utils._bunch.Bunch"]
    )
    teacher.load(CPU)
    seen: list[tuple[int, int]] = []
    answer = SklearnTeacher.answer

    def spy(self: SklearnTeacher, model: Any, cells: Any) -> Any:
        seen.append((model.n_jobs, model.estimators_[0].n_jobs))
        return answer(self, model, cells)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SklearnTeacher, "answer", spy)
        raw = {"size": np.array([0.5, 0.0, 1.0, 2.0])}
        found = served_beside(
            teacher,
            ModelForms(module=Sleeping()),
            batch=batch_of(numbers(), raw),
            encode=encode,
            target=CPU_1,
        )
        cost = measured(found, (2,))
    assert "from raw columns/2" in cost.ratios
    assert set(seen) == {(1, 1)}  # the fitted forest too
    assert teacher._model.n_jobs is None and teacher._model.estimators_[0].n_jobs == 2


def test_each_library_is_told_the_number_of_threads_and_the_runs_own_model_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import json

    import catboost
    import lightgbm

    told: dict[str, list[Any]] = {"lightgbm": [], "catboost": [], "pool": []}

    def recording(name: str, inner: Any, key: str) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            told[name].append(more[key])
            return inner(*args, **more)

        return call

    batch, pool = batch_of(numbers(), table()), catboost.Pool
    names = ("LightGBMTeacher", "XGBoostTeacher", "CatBoostTeacher", "OpenVinoTeacher")
    teachers = {name: loaded(CASES[name].make()) for name in names}
    opened = {name: served.open(2) for name, each in teachers.items() if (served := each.served()) is not None}
    monkeypatch.setattr(lightgbm.Booster, "predict", recording("lightgbm", lightgbm.Booster.predict, "num_threads"))
    monkeypatch.setattr(catboost.CatBoost, "predict", recording("catboost", catboost.CatBoost.predict, "thread_count"))
    monkeypatch.setattr(catboost.Pool, "__init__", recording("pool", pool.__init__, "thread_count"))
    for ask in opened.values():
        ask(batch)
    assert {name: set(threads) for name, threads in told.items()} == {"lightgbm": {2}, "catboost": {2}, "pool": {2}}
    twins = {name: ask.__closure__[0].cell_contents for name, ask in opened.items() if ask.__closure__}

    def xgboost_threads(teacher: Any) -> str:
        return str(json.loads(teacher._model.save_config())["learner"]["generic_param"]["nthread"])

    assert xgboost_threads(twins["XGBoostTeacher"]) == "2" and xgboost_threads(teachers["XGBoostTeacher"]) == "0"
    vino = twins["OpenVinoTeacher"]._graph.get_property("INFERENCE_NUM_THREADS")
    assert vino == min(2, usable_cores())
    graph = loaded(OnnxTeacher(model_file("m.onnx"), output="logits"))
    twin = graph.served().open(2).__closure__[0].cell_contents  # type: ignore[union-attr,index]
    assert twin._graph.get_session_options().intra_op_num_threads == 2
    assert graph._graph.get_session_options().intra_op_num_threads == 0  # type: ignore[attr-defined]


@pytest.mark.skipif(usable_cores() < 2, reason="one core")
def test_the_pools_of_blas_and_openmp_have_the_devices_threads_while_timed_and_the_old_ones_after() -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def most() -> int:
        return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")

    seen: set[int] = set()
    model = InProcess(form="from tensors", about="", call=lambda rows: lambda: seen.add(most()))
    with threadpool_limits(1):
        forms = {"student": ModelForms(in_process=model, size=size_of(nn.Linear(1, 1)))}
        measure_cost(forms, numbers(), device="cpu:2", batch_sizes=[1], rounds=2, seconds=0.1)
        assert (seen, most()) == ({2}, 1)


def test_no_remote_and_no_lazy_teacher_is_ever_called_and_the_user_is_told(tmp_path: Path) -> None:
    local, _ = server()
    remote = OpenInference(local.url, "small", ledger=ledger(), output="logits")
    remote.load(CPU)
    function = loaded(FunctionTeacher("teacher_case:double", "logits"))
    lazy = Cached(function, str(tmp_path / "a"), lazy=True)
    asked = len(local.seen)
    for teacher in (remote, lazy, Cached(remote, str(tmp_path / "b")), Ensemble([function, remote])):
        found = timed(teacher, raw=False)
        cost = measured(found, (1,))
        assert list(cost.models) == ["student"] and cost.ratios == {}
        assert "not this machine's" in found.notes[0]
        assert timed_forms(teacher, CPU_1, onnx=True) == ()
    assert len(local.seen) == asked


def test_a_cached_teacher_is_asked_and_not_looked_up(tmp_path: Path) -> None:
    teacher = Cached(Slow(frozenset({"inputs"})), str(tmp_path / "answers"))
    cost = measured(timed(teacher, raw=False), (1,))
    assert cost.models["teacher"].latencies[0].p50_ms >= TEACHER_MS
    assert "stored answers" not in cost.forms["from tensors"]


def test_a_teacher_that_does_not_run_as_it_is_timed_is_left_out_with_a_note() -> None:
    class Failing(Slow):
        def slowly(self, batch: Batch) -> Signals:
            raise ModelError("the teacher", expected="a GPU", found="none")

    found = timed(Failing(frozenset({"inputs"})))
    assert list(measured(found, (1,)).models) == ["student"]
    assert "a GPU" in found.notes[0]


def test_libraries_that_run_on_the_cpu_are_not_compared_with_a_student_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(served, "onnx_providers", lambda target: ["one that runs there"])
    cuda = Target(kind="cuda")
    assert timed_forms(Slow(frozenset({"raw"})), cuda, onnx=True) == ()
    assert timed_forms(loaded(ModuleTeacher(lambda: nn.Linear(2, 2))), cuda, onnx=False) == ("torch",)
    graph = loaded(OnnxTeacher(model_file("m.onnx"), output="logits"))
    assert timed_forms(graph, cuda, onnx=True) == ("onnxruntime",)
    assert timed_forms(graph, cuda, onnx=False) == ()
    monkeypatch.setattr(served, "onnx_providers", lambda target: [])
    assert timed_forms(graph, cuda, onnx=True) == ()  # ONNX Runtime without CUDA: its form is not measured
    assert timed_forms(loaded(ModuleTeacher(lambda: nn.Linear(2, 2))), cuda, onnx=True) == ("torch",)


# Files of their own, in the measuring process.


def student_file(folder: Path) -> Path:
    return write_linear(folder / "student.onnx")


def files_cost(teacher: OnnxTeacher, inputs: Inputs, student: Path) -> Cost:
    loaded(teacher)
    batch = batch_of(inputs)
    forms = ModelForms(onnx=student, module=nn.Linear(5, 3))
    found = served_beside(teacher, forms, batch=batch, encode=encode, target=CPU_1)
    alone = {"teacher": found.models["teacher"]}  # the student's graph has inputs of another name
    return measure_cost(alone, inputs, batch_sizes=(1, 6), rounds=2, seconds=0.1)


@pytest.mark.parametrize("batch", ["rows", 1, 4])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_a_graph_with_other_names_types_and_batch_axes_is_timed_with_what_it_takes(
    batch: int | str, dtype: str, tmp_path: Path
) -> None:
    path = write_linear(tmp_path / "teacher.onnx", batch=batch, dtype=dtype)
    cost = files_cost(OnnxTeacher(str(path), output="logits"), numbers(), student_file(tmp_path))
    teacher = cost.models["teacher"]
    assert {(lat.form, lat.batch) for lat in teacher.latencies} == {("onnxruntime", 1), ("onnxruntime", 6)}
    assert teacher.peak_memory_bytes["onnxruntime"] >= 0
    assert (teacher.size_bytes, teacher.parameters) == (path.stat().st_size, 18)


def test_named_inputs_are_renamed_and_cast(tmp_path: Path) -> None:
    path = write_embedding(tmp_path / "teacher.onnx", index=TensorProto.INT32)
    inputs = {"tokens": torch.tensor([0, 3, 1]), "scale": torch.ones(3, 2, dtype=torch.float64)}
    cost = files_cost(OnnxTeacher(str(path), inputs={"tokens": "ids"}), inputs, student_file(tmp_path))
    assert {lat.batch for lat in cost.models["teacher"].latencies} == {1, 6}


def test_weights_beside_the_file_count_and_are_read(tmp_path: Path) -> None:
    path = write_linear(tmp_path / "teacher.onnx", external=True)
    cost = files_cost(OnnxTeacher(str(path), output="logits"), numbers(), student_file(tmp_path))
    sizes = [path.stat().st_size, (tmp_path / "weights.data").stat().st_size]
    assert cost.models["teacher"].size_bytes == sum(sizes) > sizes[0]
    assert cost.models["teacher"].parameters == 18
    assert cost.ratios == {}


def test_teacher_and_student_files_are_compared_in_the_same_rounds_and_the_other_forms_are_left_out(
    tmp_path: Path,
) -> None:
    teacher = loaded(OnnxTeacher(str(write_linear(tmp_path / "t.onnx", batch=4)), output="logits"))
    student = student_file(tmp_path)
    graph = onnx.load(str(student))
    graph.graph.input[0].name = graph.graph.node[0].input[0] = "input"
    onnx.save(graph, str(student))
    cost = measured(timed(teacher, raw=False, student=nn.Linear(5, 3), onnx=student))
    assert set(cost.ratios) == {"onnxruntime/1", "onnxruntime/6"}
    assert {lat.form for lat in cost.models["teacher"].latencies} == {"onnxruntime"}
    assert {lat.form for lat in cost.models["student"].latencies} == {"onnxruntime", "torch"}
    assert cost.forms == {}


def test_the_worker_runs_every_piece_of_a_batch_and_asks_for_the_output_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches rows that are dropped, a batch that is run once for all sizes, and outputs that nobody asked for."""
    from tutelage.devices import worker

    teacher = loaded(OnnxTeacher(str(write_linear(tmp_path / "t.onnx", batch=4, dtype="float16")), output="logits"))
    served = teacher.served()
    assert served is not None and served.graph is not None
    tasks: list[Task] = []
    monkeypatch.setattr(OnnxProcess, "_perform", lambda self, task: tasks.append(task) or perform(task))
    said: dict[int, Any] = {}

    def once(candidates: Mapping[str, Callable[[], Any]], **_: Any) -> Any:
        said[len(said)] = candidates["teacher"]()
        return worker_measure(candidates, rounds=1, seconds=0.01)

    worker_measure = worker.measure
    monkeypatch.setattr(worker, "measure", once)
    x = numbers()
    with OnnxProcess(x, CPU_1) as process:
        feeds = {rows: served.graph.feeds(batch_of(x[torch.arange(rows) % 4])) for rows in (1, 6)}
        process.call_with("teacher", feeds, ["logits"])
        list(process.latency({"teacher": served.graph.path}, [1, 6], rounds=1, seconds=0.01))
    wanted = x[torch.arange(6) % 4].numpy() @ WEIGHT + BIAS
    (single,), (first, second) = said[0], said[1]
    np.testing.assert_allclose(single[:1], wanted[:1], atol=0.02)
    assert len(first) == len(second) == 1
    np.testing.assert_allclose(np.concatenate([first[0], second[0]])[:6], wanted, atol=0.02)
    assert tasks[0].outputs == {"teacher": ["logits"]}
