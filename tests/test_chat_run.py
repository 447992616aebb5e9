"""A student of texts that learns from a chat model alone, from the first call to the bundle."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parent / "ledger"))

from local_server import LETTERS, LocalServer, serving

import tutelage as tt
from tutelage.answers import answers as answers_of
from tutelage.answers import teacher_answers
from tutelage.ledger import Asking
from tutelage.rounds import _agreement
from tutelage.signals import Batch, Request, Signals
from tutelage.stages import _evaluator
from tutelage.teachers import OpenAICompatible, Teacher
from tutelage.teachers.black_box import top_of_answers
from tutelage.transfer import Rows, Source

CLASSES = ("animals", "weather", "money")
WORDS = {
    "animals": ["cat", "dog", "otter", "heron", "newt"],
    "weather": ["rain", "hail", "storm", "frost", "cloud"],
    "money": ["coin", "bank", "price", "debt", "rent"],
}
EVERY = [word for words in WORDS.values() for word in words]


def rule(text: str) -> np.ndarray:
    """The teacher: the more words of a class, the likelier it is."""
    scores = np.array([2.0 * sum(word in text.split() for word in WORDS[name]) for name in CLASSES])
    return np.exp(scores) / np.exp(scores).sum()


class Headlines(Source):
    """Texts without labels, five words each."""

    def load(self) -> Rows:
        random = np.random.default_rng(4)
        texts: dict[str, None] = {}
        while len(texts) < 240:
            own = random.choice(WORDS[CLASSES[len(texts) % 3]], 3, replace=False)
            texts.setdefault(" ".join([*own, *random.choice(EVERY, 2)]))
        return Rows(columns={"headline": list(texts)}, classes=CLASSES)


class BagOfWords(nn.Module):
    """The mean of the words' embeddings, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(len(EVERY) + 2, 12), nn.Linear(12, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        counts = attention_mask[..., None].float()
        return self.head((self.words(input_ids) * counts).sum(1) / counts.sum(1))


def answers(*, letters: bool, refuses: str = "nothing"):
    """The server's answers by the rule: log-probabilities of letters, or labels by the schema and no more."""

    def complete(body: dict[str, Any], _: int) -> tuple[int, dict[str, Any]]:
        if refuses in body["messages"][-1]["content"].split():
            return 400, {"error": {"message": "the content filter", "code": "content_filter"}}
        if body.get("logprobs") and not letters:
            return 400, {"error": {"message": "logprobs is not supported"}}
        p = rule(body["messages"][-1]["content"].removeprefix("Headline: "))
        chosen = int(p.argmax())
        text = LETTERS[chosen] if letters else json.dumps({"label": CLASSES[chosen]})
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        if body.get("logprobs"):
            top = [{"token": token, "logprob": float(np.log(q))} for token, q in zip(LETTERS, p, strict=True)]
            choice["logprobs"] = {"content": [{"token": text, "logprob": top[chosen]["logprob"], "top_logprobs": top}]}
        usage = {"prompt_tokens": 30, "completion_tokens": 1}
        return 200, {"model": "tiny", "choices": [choice], "usage": usage}

    return complete


def tokenizer(folder: Path) -> str:
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *EVERY])}
    made = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    saved = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")
    saved.model_input_names = ["input_ids", "attention_mask"]
    saved.save_pretrained(folder)
    return str(folder)


def recipe(server: LocalServer, folder: Path, loss: tt.losses.Loss, **settings: Any) -> tt.Recipe:
    settings = {"asking": Asking(concurrent=8, first_wait=0.01, attempts=2)} | settings
    ledger = str(folder / "l.sqlite")
    return tt.Recipe(
        name="chat-run",
        task="classification",
        data=tt.Data(
            source=Headlines(),
            splits=tt.Splits(development=0.15, test=0.3),
            text=tt.Text(tokenizer=tokenizer(folder / "tokenizer")),
        ),
        teacher=OpenAICompatible(f"{server.url}/v1", "tiny", "Headline: {headline}", ledger=ledger, **settings),
        licences={"teacher": tt.Licence(use="allowed", basis="a server of this test", date="2026-01-31")},
        student=tt.ModuleStudent(BagOfWords),
        losses=[loss],
        training=tt.Training(steps=80, batch_size=32, learning_rate=3e-2),
        export=tt.Export(onnx=False),
        measure=tt.Measure(seconds=0.3, rounds=2, batch_sizes=[1]),
        policy=[tt.Gate("agreement", at_least=0.6)],
    )


@pytest.mark.parametrize(
    ("letters", "loss"),
    [(True, tt.losses.KLDivergence(1.0)), (False, tt.losses.SoftCrossEntropy(1.0))],
    ids=["letters", "labels"],
)
def test_a_student_learns_what_a_chat_model_says_and_another_run_asks_it_nothing(
    tmp_path: Path, letters: bool, loss: tt.losses.Loss
) -> None:
    torch.set_num_threads(1)
    with serving() as server:
        server.complete = answers(letters=letters)  # type: ignore[method-assign]
        done = tt.distill(recipe(server, tmp_path, loss), tmp_path / "run", progress=False)
        calls = len(server.posts())
        assert calls <= 240 + 3  # each text once, and the probes
        again = tt.distill(recipe(server, tmp_path, loss), tmp_path / "again", progress=False)
        assert len(server.posts()) == calls
    table = pq.read_table(done.bundle / "evidence.parquet")
    texts = list(Headlines().load().columns["headline"])
    says = {name: np.array(table[name].to_pylist()).argmax(1) for name in ("teacher", "student", "untrained")}
    truth = np.array([rule(texts[row]).argmax() for row in table["row"].to_pylist()])
    assert len(truth) > 50 and (says["teacher"] == truth).all()
    assert (says["student"] == truth).mean() > 0.85
    assert (says["untrained"] == truth).mean() < 0.6
    if letters:
        told = np.exp(np.array(table["teacher"].to_pylist()))
        np.testing.assert_allclose(told, [rule(texts[row]) for row in table["row"].to_pylist()], atol=1e-5)
    assert done.verdict.verdict == "PASS" and tt.evaluate(done.bundle)[1] == []
    assert pq.read_table(again.bundle / "evidence.parquet").equals(table)


def test_texts_without_an_answer_teach_nothing_and_are_no_agreement_and_no_disagreement(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    texts = list(Headlines().load().columns["headline"])
    refused = {row for row, text in enumerate(texts) if "newt" in text.split()}
    assert 20 < len(refused) < 72
    with serving() as server:
        server.complete = answers(letters=False, refuses="newt")  # type: ignore[method-assign]
        made = recipe(server, tmp_path, tt.losses.SoftCrossEntropy(1.0), unanswered=0.3)
        done = tt.distill(made, tmp_path / "run", progress=False)
        calls = len(server.posts())
        tt.distill(
            recipe(server, tmp_path, tt.losses.SoftCrossEntropy(1.0), unanswered=0.3), tmp_path / "b", progress=False
        )
        assert len(server.posts()) == calls
    table = pq.read_table(done.bundle / "evidence.parquet")
    data = made.data.load(str(tmp_path / "tokenizer"))
    test = set(data.rows("test").tolist())
    assert test & refused and set(table["row"].to_pylist()) == test - refused
    says = {name: np.array(table[name].to_pylist()).argmax(1) for name in ("teacher", "student")}
    assert says["teacher"].tolist() == [rule(texts[row]).argmax() for row in table["row"].to_pylist()]
    assert (says["student"] == says["teacher"]).mean() > 0.85
    metrics = json.loads((done.bundle / "metrics.json").read_text())
    agreement = next(metric for metric in metrics["metrics"] if metric["name"] == "agreement")
    assert agreement["models"]["student"]["value"] == pytest.approx((says["teacher"] == says["student"]).mean())
    left_out = f"test rows without an answer of the teacher: {len(test & refused)}; they are left out"
    assert any(left_out in note for note in metrics["notes"])
    records = [json.loads(line) for line in (done.bundle / "history.jsonl").read_text().splitlines()]
    lost, rows = (sum(record.get(key, 0) for record in records) for key in ("unanswered", "rows"))
    drawn = [row for step in range(80) for row in data.order(32, seed=0).batch(step)[0].tolist()]
    assert (lost, rows) == (sum(row in refused for row in drawn), len(drawn))
    taught_nothing = f"student: {lost:,} of the {rows:,} rows in its batches"
    assert any(note.startswith(taught_nothing) for note in metrics["notes"])
    assert tt.evaluate(done.bundle)[1] == []


class HalfSilent(Teacher):
    """Says class 1 of rows of even numbers, and nothing of the others."""

    def load(self, device: torch.device) -> None:
        del device

    def check(self, request: Request) -> None:
        del request

    def ask(self, batch: Batch, request: Request) -> Signals:
        del request
        return Signals(top=top_of_answers([[1] if row % 2 == 0 else [] for row in batch.rows.tolist()], 3))

    def fingerprint(self) -> str:
        return "0" * 64


def test_while_training_and_in_rounds_silent_rows_are_no_agreement_and_no_disagreement_either(tmp_path: Path) -> None:
    folder = tokenizer(tmp_path / "tokenizer")
    data = tt.Data(source=Headlines(), text=tt.Text(tokenizer=folder)).load(folder)
    torch.manual_seed(3)
    rows, cpu, student = data.rows("development"), torch.device("cpu"), BagOfWords()
    said = teacher_answers(HalfSilent(), data, rows, cpu)
    assert said.heard.tolist() == (rows % 2 == 0).tolist() and 4 < said.heard.sum() < len(rows) - 4
    with torch.no_grad():
        student.head.bias += torch.tensor([0.0, 0.1, 0.1])  # in some rows it says class 1, in others 2
    chosen = answers_of(student, data, rows, cpu).argmax(1)
    expected = (chosen[said.heard] == 1).mean()
    assert 0 < expected < 1
    assert expected != (chosen == 1).mean()
    measured = _evaluator("classification", data, said, cpu, None)(student)
    assert measured["agreement"] == pytest.approx(expected)
    plan: Any = SimpleNamespace(recipe=SimpleNamespace(teacher=HalfSilent()), data=data, device=cpu, chunk=128)
    assert _agreement(plan, student, rows) == pytest.approx(expected)
