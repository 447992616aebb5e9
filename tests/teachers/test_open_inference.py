"""A teacher behind the Open Inference Protocol, asked at a real server.

Longer than 400 lines because all of its tests ask the same small model about the same rows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "ledger"))

from local_server import NAMES, LocalServer, serving, tensor_model

from tutelage.errors import CapReached, ModelError, QueryFailed, RecipeError, TeacherChanged
from tutelage.ledger import Asking, Caps, Ledger
from tutelage.signals import Batch, Request
from tutelage.teachers import OpenInference, TransferFacts
from tutelage.teachers.canary import Canary, stacked
from tutelage.teachers.tensor_values import written

CPU = torch.device("cpu")
OUTPUT = Request(output=True)
QUICK = Asking(concurrent=3, first_wait=0.01, longest_wait=1.5, timeout=10)


def rows(count: int, start: int = 0) -> Batch:
    x = torch.randn(start + count, 4, generator=torch.Generator().manual_seed(3))[start:]
    numbers = torch.arange(start, start + count)
    raw = {"column": x.numpy().astype(np.float64), "word": np.array([f"w{i}" for i in range(count)], dtype=object)}
    return Batch(inputs=x, rows=numbers, views=torch.zeros_like(numbers), raw=lambda: raw)


def teacher(url: str, folder: Path, **settings: Any) -> OpenInference:
    arguments = {"output": "logits", "asking": QUICK, "max_batch": 4, "canary": 0} | settings
    made = OpenInference(url, "small", ledger=str(folder / "l.sqlite"), **arguments)
    made.load(CPU)
    return made


def facts(classes: tuple[str, ...] = NAMES) -> TransferFacts:
    return TransferFacts(inputs="", rows=99, classes=classes, labelled=lambda: rows(1))


def test_logits_are_those_of_the_served_model_whatever_the_faults(tmp_path: Path) -> None:
    faults = [(429, {"Retry-After": "0.2"}), 500, "hang", "cut", "garbage", "short", (503, {})]
    with serving(faults=faults) as server:
        asking = Asking(concurrent=3, first_wait=0.01, timeout=1.0)
        said = teacher(server.url, tmp_path, asking=asking).ask(rows(20), OUTPUT)
        torch.testing.assert_close(said.output, tensor_model()(rows(20).inputs))
        assert not server.faults
        assert server.rows() == 20 + 4 * 7  # each fault cost one call of four rows, and nothing else was repeated
    statuses = Ledger(tmp_path / "l.sqlite")
    with statuses._open() as connection:
        counted = dict(connection.execute("SELECT status, count(*) FROM attempts GROUP BY status"))
    assert counted == {"answered": 6, "refused": 3, "timeout": 1, "cut": 1, "unusable": 2}  # metadata among the first


def test_retry_after_is_waited_for_by_every_call(tmp_path: Path) -> None:
    with serving(faults=[(429, {"Retry-After": "2"})], hold=0.05) as server:
        asked = teacher(server.url, tmp_path, asking=Asking(concurrent=2, first_wait=0.01, longest_wait=5), max_batch=1)
        asked.ask(rows(40), OUTPUT)
        told, rest = server.times[0], server.times[1:]
        assert not [at - told for at in rest if 0.7 < at - told < 1.95]  # but for those that were under way
        assert len(rest) == 40 and rest[-1] - told > 2


@pytest.mark.parametrize("fault", ["drip", "drip headers"])
def test_a_server_that_sends_a_few_bytes_now_and_then_is_not_waited_for_longer_than_the_timeout(
    tmp_path: Path, fault: str
) -> None:
    with serving(faults=[fault]) as server:
        asked = teacher(server.url, tmp_path, asking=Asking(first_wait=0.01, timeout=0.5))
        began = time.monotonic()
        said = asked.ask(rows(4), OUTPUT)
        assert 0.5 < time.monotonic() - began < 1.5
        torch.testing.assert_close(said.output, tensor_model()(rows(4).inputs))
        with Ledger(tmp_path / "l.sqlite")._open() as connection:
            ends = connection.execute("SELECT status, latency FROM attempts ORDER BY id").fetchall()
    assert [status for status, _ in ends] == ["answered", "timeout", "answered"] and ends[1][1] < 0.7


def test_a_second_run_asks_what_is_missing_and_a_third_asks_nothing_though_the_server_is_gone(tmp_path: Path) -> None:
    with serving() as server:
        with pytest.raises(CapReached, match=r"24 of the 40"):
            teacher(server.url, tmp_path, caps=Caps(calls=5)).ask(rows(40), OUTPUT)
        assert server.rows() == 16  # one call read the metadata
        first = teacher(server.url, tmp_path, caps=Caps(calls=11)).ask(rows(40), OUTPUT)
        assert server.rows() == 40
        requests = len(server.seen)
        again = teacher(server.url, tmp_path).ask(rows(40), OUTPUT)
        assert len(server.seen) == requests
        url = server.url
    gone = teacher(url, tmp_path)
    assert torch.equal(gone.ask(rows(40), OUTPUT).output, first.output)
    assert torch.equal(again.output, first.output)
    assert gone.fingerprint() == teacher(url, tmp_path).fingerprint()


CHILD = """
import sys
sys.path.insert(0, sys.argv[3])
from test_open_inference import *
teacher(sys.argv[1], Path(sys.argv[2]), max_batch=1, asking=Asking(concurrent=2)).ask(rows(40), OUTPUT)
"""


def test_a_kill_in_the_middle_costs_what_was_under_way_and_nothing_else(tmp_path: Path) -> None:
    with serving(hold=0.05) as server:
        command = [sys.executable, "-c", CHILD, server.url, str(tmp_path), str(Path(__file__).parent)]
        process = subprocess.Popen(command, env=os.environ)
        while server.rows() < 15:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        stored = Ledger(tmp_path / "l.sqlite").count() - 1  # the metadata
        sent = server.rows()
        assert sent - 2 <= stored < 40
        server.hold = 0.0
        said = teacher(server.url, tmp_path).ask(rows(40), OUTPUT)
        assert server.rows() == sent + 40 - stored
        torch.testing.assert_close(said.output, tensor_model()(rows(40).inputs))


def test_no_more_calls_are_under_way_than_allowed_and_as_many_are(tmp_path: Path) -> None:
    with serving(hold=0.15) as server:
        teacher(server.url, tmp_path, max_batch=1).ask(rows(9), OUTPUT)
        assert server.most_under_way == 3


def test_rounded_probabilities_keep_what_rounding_left_out_and_labels_are_a_class_alone(tmp_path: Path) -> None:
    with serving() as server:
        p = tensor_model()(rows(30).inputs).softmax(1)
        top = teacher(server.url, tmp_path, output="rounded", gives="probabilities").ask(rows(30), OUTPUT).top
        rounded = (p * 10).round() / 10
        missing = (1 - rounded.sum(1)).clamp(min=0)
        zero = rounded == 0
        expected = torch.where(zero, (missing / zero.sum(1).clamp(min=1))[:, None], rounded)
        torch.testing.assert_close(top.dense().exp(), expected / expected.sum(1, keepdim=True))
        for output in ("label", "name"):
            asked = teacher(server.url, tmp_path, output=output, gives="label")
            asked.meet(facts())
            labels = asked.ask(rows(30), OUTPUT).top
            assert labels.indices.shape == (30, 1)
            assert torch.equal(labels.dense().exp(), torch.nn.functional.one_hot(p.argmax(1), 3).float())


def test_a_label_that_is_no_class_of_the_data_is_refused(tmp_path: Path) -> None:
    with serving() as server:
        for output, names in (("label", ("cat", "dog")), ("name", ("dog", "bird", "horse"))):
            asked = teacher(server.url, tmp_path, output=output, gives="label")
            asked.meet(facts(names))
            with pytest.raises(ModelError, match="classes_in_order"):
                asked.ask(rows(30), OUTPUT)
        with pytest.raises(ModelError, match="names of the classes"):
            teacher(server.url, tmp_path, output="label", gives="label").ask(rows(2), OUTPUT)


def test_columns_of_the_source_are_mapped_to_inputs_and_cast_and_misfits_are_refused_by_name(tmp_path: Path) -> None:
    with serving() as server:
        said = teacher(server.url, tmp_path, inputs={"x": "column"}).ask(rows(5), OUTPUT)
        torch.testing.assert_close(said.output, tensor_model()(rows(5).inputs))
        with pytest.raises(ModelError, match="did you mean `column`"):
            teacher(server.url, tmp_path, inputs={"x": "colunm"}).ask(rows(5), OUTPUT)
        with pytest.raises(ModelError, match=r"input `x`[\s\S]*FP32[\s\S]*object"):
            teacher(server.url, tmp_path, inputs={"x": "word"}).ask(rows(5), OUTPUT)
        with pytest.raises(ModelError, match=r"input `y`[\s\S]*one of the inputs"):
            teacher(server.url, tmp_path, inputs={"y": "column"})
        with pytest.raises(ModelError, match="did you mean `logits`"):
            teacher(server.url, tmp_path, output="logit")
        with pytest.raises(ModelError, match="choose one of: logits, rounded, label, name"):
            teacher(server.url, tmp_path, output=None)
        wide = Batch(inputs=torch.zeros(2, 5), rows=torch.arange(2), views=torch.zeros(2, dtype=torch.long))
        with pytest.raises(ModelError, match=r"rows of shape \[4\][\s\S]*\[5\]"):
            teacher(server.url, tmp_path).ask(wide, OUTPUT)
        square = Batch(inputs=torch.ones(2, 1, 2, 2), rows=torch.arange(2), views=torch.zeros(2, dtype=torch.long))
        assert teacher(server.url, tmp_path).ask(square, OUTPUT).output.shape == (2, 3)


def test_tensors_may_go_and_come_as_bytes(tmp_path: Path) -> None:
    with serving() as server:
        said = teacher(server.url, tmp_path, binary=True).ask(rows(9), OUTPUT)
        assert torch.equal(said.output, tensor_model()(rows(9).inputs))
        _, _, headers, _ = server.seen[-1]
        assert headers["Content-Type"] == "application/octet-stream"
        assert server.posts()[-1][1]["outputs"][0]["parameters"]["binary_data"] is True


def test_another_view_of_a_row_is_another_question(tmp_path: Path) -> None:
    with serving() as server:
        asked = teacher(server.url, tmp_path)
        asked.ask(rows(3), OUTPUT)
        batch = rows(3)
        batch.inputs[0] += 0.5
        changed = asked.ask(batch, OUTPUT)
        torch.testing.assert_close(changed.output, tensor_model()(batch.inputs))
        assert server.rows() == 4


def test_a_served_model_that_changed_is_noticed_before_its_answers_join_the_others(tmp_path: Path) -> None:
    with serving() as server:
        teacher(server.url, tmp_path, canary=2).ask(rows(8), OUTPUT)
        same = teacher(server.url, tmp_path, canary=2)
        same.ask(rows(8), OUTPUT)
        before = server.rows()
        same.ask(rows(4, start=8), OUTPUT)
        assert server.rows() == before + 2 + 4
        server.model = tensor_model(seed=1)
        other = teacher(server.url, tmp_path, canary=2)
        other.ask(rows(8), OUTPUT)  # stored answers need no server
        with pytest.raises(TeacherChanged, match="answers to known rows changed"):
            other.ask(rows(4, start=20), OUTPUT)


@pytest.mark.parametrize("max_batch", [1, 4])
def test_a_served_model_that_changed_is_noticed_where_a_later_run_asks_nothing_but_new_rows(
    tmp_path: Path, max_batch: int
) -> None:
    with serving() as server:
        teacher(server.url, tmp_path, canary=2, max_batch=max_batch).ask(rows(8), OUTPUT)
        same = teacher(server.url, tmp_path, canary=2, max_batch=max_batch)
        before = server.rows()
        same.ask(rows(4, start=8), OUTPUT)
        assert server.rows() == before + 2 + 4
        server.model = tensor_model(seed=1)
        other = teacher(server.url, tmp_path, canary=2)
        stored = Ledger(tmp_path / "l.sqlite").count()
        for _ in range(2):  # a second attempt in the same process is no way around it
            before = server.rows()
            with pytest.raises(TeacherChanged, match="answers to known rows changed"):
                other.ask(rows(4, start=20), OUTPUT)
            assert server.rows() == before + 2
        assert Ledger(tmp_path / "l.sqlite").count() == stored + 2 * 3  # two rows and the metadata, looked at again
        server.model = tensor_model()
        other.ask(rows(4, start=20), OUTPUT)


def test_a_run_that_a_cap_stopped_in_its_first_batch_has_left_the_rows_for_the_next_one_to_look_at(
    tmp_path: Path,
) -> None:
    with serving() as server:
        with pytest.raises(CapReached):
            teacher(server.url, tmp_path, canary=2, caps=Caps(calls=2)).ask(rows(8), OUTPUT)
        server.model = tensor_model(seed=1)
        with pytest.raises(TeacherChanged):
            teacher(server.url, tmp_path, canary=2).ask(rows(4, start=8), OUTPUT)


def test_no_row_is_kept_without_a_canary_and_those_that_are_kept_are_few(tmp_path: Path) -> None:
    with serving() as server:
        for canary, kept in ((0, 0), (2, 2), (3, 3)):
            teacher(server.url, tmp_path, canary=canary).ask(rows(8), OUTPUT)
            with Ledger(tmp_path / "l.sqlite")._open() as connection:
                assert connection.execute("SELECT count(*) FROM canary").fetchone()[0] == kept


def test_in_a_ledger_made_before_rows_were_kept_the_known_rows_of_a_batch_are_looked_at(tmp_path: Path) -> None:
    with serving() as server:
        teacher(server.url, tmp_path, canary=0).ask(rows(8), OUTPUT)
        with Ledger(tmp_path / "l.sqlite")._open() as connection:
            connection.execute("DROP TABLE canary")
        server.model = tensor_model(seed=1)
        with pytest.raises(TeacherChanged):
            teacher(server.url, tmp_path, canary=2).ask(rows(12), OUTPUT)


def test_rows_of_texts_and_of_several_shapes_are_kept_as_they_were_sent(tmp_path: Path) -> None:
    canary = Canary(Ledger(tmp_path / "l.sqlite"), "one", 3)
    texts = np.array([["ä", b"\xff\x00"], ["", "b"]], dtype=object)
    canary.keep({"t": texts, "n": np.arange(6, dtype=">i2").reshape(2, 3)}, [b"x\xff", b"y"], [0, 1])
    canary.keep({"t": texts[:1, :1], "n": np.zeros((1, 3), np.int16)}, [b"z"], [0])
    Canary(Ledger(tmp_path / "l.sqlite"), "two", 3).keep({"n": np.zeros((1, 1))}, [b"other"], [0])
    read = Canary(Ledger(tmp_path / "l.sqlite"), "one", 9).rows()
    assert [row.answer for row in read] == [b"x\xff", b"y", b"z"]
    assert read[0].inputs["t"].tolist() == ["ä".encode(), b"\xff\x00"]
    (first, answers), (second, _) = stacked(read, 64)
    assert answers == [b"x\xff", b"y"] and first["t"].shape == (2, 2) and second["t"].shape == (1, 1)
    assert first["n"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_an_answer_of_another_shape_is_refused_before_it_is_stored(tmp_path: Path) -> None:
    with serving() as server:
        asked = teacher(server.url, tmp_path)
        asked.ask(rows(4), OUTPUT)
        stored = Ledger(tmp_path / "l.sqlite").count()
        cases = [(asked, [-1, -1], "earlier ones"), (asked, [-1], "earlier ones")]
        for who, sizes, match in [*cases, (teacher(server.url, tmp_path), [-1, 3], "metadata says")]:
            who._metadata["outputs"][0]["shape"] = sizes
            server.faults = ["narrow"]
            with pytest.raises(QueryFailed, match=f"asked once: .*{match}"):
                who.ask(rows(4, start=4), OUTPUT)
            assert Ledger(tmp_path / "l.sqlite").count() == stored
        torch.testing.assert_close(asked.ask(rows(8), OUTPUT).output, tensor_model()(rows(8).inputs))


def test_answers_of_two_shapes_in_one_ledger_are_told_by_our_error(tmp_path: Path) -> None:
    with serving() as server:
        asked = teacher(server.url, tmp_path)
        asked.ask(rows(8), OUTPUT)
        with Ledger(tmp_path / "l.sqlite")._open() as connection:
            narrow = written(np.zeros(2, np.float32))
            key = asked._question(asked._arrays(rows(8)), 5).key
            connection.execute("UPDATE answers SET answer = ? WHERE question = ?", (narrow, key))
            connection.execute("DELETE FROM digests")  # as in a ledger of a version that looked at no shapes
        with pytest.raises(ModelError, match=r"shape \[3\] and .*shape \[2\][\s\S]*begin a new ledger"):
            asked.ask(rows(8), OUTPUT)


def test_a_model_that_changes_during_a_run_is_noticed_at_its_end(tmp_path: Path) -> None:
    with serving() as server:
        asked = teacher(server.url, tmp_path, canary=2)
        asked.ask(rows(8), OUTPUT)
        digest = asked.fingerprint()
        requests = len(server.seen)
        assert asked.fingerprint() == digest and len(server.seen) == requests  # nothing was asked in between
        asked.ask(rows(4, start=8), OUTPUT)
        server.model = tensor_model(seed=1)
        with pytest.raises(TeacherChanged):
            asked.fingerprint()


def test_a_cap_that_is_just_used_up_does_not_stop_a_run_that_has_all_its_answers(tmp_path: Path) -> None:
    with serving() as server:
        asked = teacher(server.url, tmp_path, canary=2, caps=Caps(calls=3))
        asked.ask(rows(8), OUTPUT)
        assert len(asked.fingerprint()) == 64 and Ledger(tmp_path / "l.sqlite").spent()[0] == 3


def test_a_server_that_is_not_there_and_an_unknown_model_are_the_users_to_mend(tmp_path: Path) -> None:
    with serving() as server:
        missing = OpenInference(server.url, "smal", ledger=str(tmp_path / "a.sqlite"), output="logits", asking=QUICK)
        with pytest.raises(ModelError, match=r"HTTP 404[\s\S]*`url`, `model`"):
            missing.load(CPU)
        url = server.url
    with pytest.raises(ModelError, match="can't be reached"):
        OpenInference(url, "small", ledger=str(tmp_path / "b.sqlite"), asking=QUICK).load(CPU)


def test_the_key_is_sent_and_stands_in_no_file_and_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-very-secret-0123456789")
    with serving(faults=[401]) as server:
        asked = teacher(server.url, tmp_path, key_variable="A_KEY")
        with pytest.raises(QueryFailed, match=r"HTTP 401.*\[key\]") as refused:
            asked.ask(rows(2), OUTPUT)  # the server repeats what it was sent
        asked.ask(rows(2), OUTPUT)
        assert all(headers["Authorization"] == "Bearer sk-very-secret-0123456789" for _, _, headers, _ in server.seen)
    assert "secret" not in str(refused.value)
    for path in tmp_path.rglob("*"):
        assert b"secret" not in path.read_bytes(), path
    monkeypatch.delenv("A_KEY")
    with pytest.raises(RecipeError, match="A_KEY, which is not set"):
        teacher(server.url, tmp_path, key_variable="A_KEY")
    with pytest.raises(RecipeError, match="without user, password"):
        OpenInference("http://me:sk-secret@host", "m", ledger=str(tmp_path / "x.sqlite")).load(CPU)


class Grpc:
    """The same model behind gRPC, by the service that tritonclient's own stubs define."""

    def __init__(self, local: LocalServer) -> None:
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
            def ModelMetadata(self, request, context):  # noqa: N802
                about = local.metadata()
                local.seen.append(("GET", "metadata", dict(context.invocation_metadata()), b""))
                if request.name != about["name"]:
                    context.abort(grpc.StatusCode.NOT_FOUND, "unknown model")
                kind = service_pb2.ModelMetadataResponse.TensorMetadata
                tensors = {n: [kind(**each) for each in about[n]] for n in ("inputs", "outputs")}
                return service_pb2.ModelMetadataResponse(name=about["name"], versions=["1"], **tensors)

            def ModelInfer(self, request, context):  # noqa: N802
                fault = local.faults.pop(0) if local.faults else None
                if fault == "hang":
                    time.sleep(3.0)
                elif fault is not None:
                    context.abort(getattr(grpc.StatusCode, fault), "injected")
                shape = list(request.inputs[0].shape)
                data = np.frombuffer(request.raw_input_contents[0], np.float32).tolist()
                body: dict[str, Any] = {"inputs": [{"shape": shape, "data": data}]}
                local.seen.append(("POST", "/infer", {}, json.dumps(body).encode()))
                body["outputs"] = [{"name": each.name} for each in request.outputs]
                (made,) = local.infer(body)["outputs"]
                reply = service_pb2.ModelInferResponse(model_name="small")
                reply.outputs.add(name=made["name"], datatype=made["datatype"], shape=made["shape"])
                reply.raw_output_contents.append(np.array(made["data"], np.float32).tobytes())
                return reply

        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), self.server)
        self.url = f"grpc://127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Grpc:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(0)


def test_over_grpc_the_answers_are_the_same_and_so_is_what_becomes_of_faults(tmp_path: Path) -> None:
    local = LocalServer(faults=["UNAVAILABLE", "hang", "RESOURCE_EXHAUSTED"])
    with Grpc(local) as server:
        asked = teacher(server.url, tmp_path, asking=Asking(concurrent=2, first_wait=0.01, timeout=1.0))
        said = asked.ask(rows(20), OUTPUT)
        torch.testing.assert_close(said.output, tensor_model()(rows(20).inputs))
        assert 20 <= local.rows() <= 24  # the call that hung may have been worked on
        with pytest.raises(ModelError, match="NOT_FOUND"):
            OpenInference(server.url, "smal", ledger=str(tmp_path / "a.sqlite"), asking=QUICK).load(CPU)
        local.faults = ["INVALID_ARGUMENT"]
        with pytest.raises(QueryFailed, match="asked once: gRPC INVALID_ARGUMENT"):
            asked.ask(rows(2, start=50), OUTPUT)
