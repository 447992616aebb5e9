"""Models, labels and task that do not fit each other are refused in the plan, not after the training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tutelage as tt
from tutelage.errors import MissingExtra, ModelError, UserError
from tutelage.teachers.vocabulary import require_same_ids, vocabulary
from tutelage.transfer import SimilarityPairs

ROWS = 60


def data(labels: Any = None, **changes: Any) -> tt.Data:
    inputs = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
    return tt.Data(source=tt.Arrays(inputs, labels), **changes)


def recipe(task: str, labels: Any = None, *, teacher: Any = 3, student: Any = 3, **changes: Any) -> tt.Recipe:
    """A recipe of linear models; a number says how many outputs one has."""

    def linear(outputs: Any) -> Any:
        return nn.Linear(4, outputs) if isinstance(outputs, int) else outputs

    teacher = linear(teacher)
    loss = tt.losses.LogitMSE() if task == "regression" else tt.losses.KLDivergence()
    return tt.Recipe(
        **{
            "name": "small",
            "task": task,
            "data": data(labels),
            "teacher": tt.ModuleTeacher(teacher) if isinstance(teacher, nn.Module) else teacher,
            "student": tt.ModuleStudent(linear(student)),
            "losses": [loss],
            "training": tt.Training(steps=2, batch_size=8),
            **changes,
        }
    )


def sigmoid() -> list[Any]:
    return [tt.losses.KLDivergence(outputs="sigmoid")]


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ROWS, *shape)).astype(np.float32)


def refused(made: tt.Recipe, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tt.make_plan(made)


class Dense(nn.Module):
    """Logits for each of seven positions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 21)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).view(len(x), 3, 7)


def test_values_of_another_width_than_the_labels() -> None:
    refused(recipe("regression", numbers(), teacher=2, student=2), r"labels[^\0]*teacher \(9, 2\)|labels[^\0]*\(8, 2\)")
    assert tt.make_plan(recipe("regression", numbers(2), teacher=2, student=2)).select == "rmse"
    assert tt.make_plan(recipe("regression", numbers(), teacher=1, student=1)).select == "rmse"


def test_students_of_another_width_without_labels() -> None:
    losses = [tt.losses.PairwiseSimilarity()]
    refused(recipe("classification", teacher=3, student=5, losses=losses), r"task classification: outputs of student")


def test_labels_of_another_width_than_the_logits() -> None:
    labels = (numbers(4) > 0).astype(np.float32)
    refused(recipe("multilabel", labels, losses=sigmoid()), r"teacher: output\n.*\n.*\(2, 3\)")
    assert tt.make_plan(recipe("multilabel", labels[:, :3], losses=sigmoid())).select == "micro_f1"


def test_multilabel_labels_that_are_neither_on_nor_off() -> None:
    labels = (numbers(3) > 0).astype(np.float32)
    labels[41, 2] = 0.5
    refused(recipe("multilabel", labels, losses=sigmoid()), r"labels\n.*0 or 1.*\n.*0\.5 in row 41")


def test_a_class_beyond_the_outputs_is_found_wherever_it_is() -> None:
    labels = np.arange(ROWS) % 3
    labels[57] = 3
    refused(recipe("classification", labels), r"teacher: output\n.*4 classes")
    hidden = recipe("classification", teacher_training=tt.Training(steps=2), data=data(labels, labelled=4))
    refused(hidden, r"teacher: output\n.*4 classes")  # the teacher is trained on labels that the student does not see


def test_values_are_no_classes() -> None:
    refused(recipe("classification", numbers()), r"labels, row 0\n.*one class a row")


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_dense_outputs(task: str) -> None:
    losses = sigmoid() if task == "multilabel" else [tt.losses.KLDivergence(axis=1)]
    refused(recipe(task, teacher=Dense(), student=Dense(), losses=losses), r"teacher: output\n.*one answer a row")


def test_a_teacher_is_not_trained_without_labels_to_choose_its_best_weights_by() -> None:
    splits = np.array(["train"] * 40 + ["development"] * 10 + ["test"] * 10)
    labels = np.where(splits == "train", np.arange(ROWS) % 3, -1)
    inputs = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
    rows = tt.Data(source=tt.Arrays(inputs, labels, split=splits))
    made = recipe("classification", data=rows, teacher_training=tt.Training(steps=2))
    refused(made, r"teacher_training\n.*labels on development rows")


def test_a_teacher_of_embeddings_is_not_trained() -> None:
    losses = [tt.losses.EmbeddingCosine()]
    refused(
        recipe("embedding", teacher_training=tt.Training(steps=2), losses=losses), "teacher_training\n.*a task with"
    )


def test_a_similarity_set_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(pairs: SimilarityPairs) -> None:
        raise MissingExtra("gensim", "samples", f"similarity pairs `{pairs.name}`")

    monkeypatch.setattr(SimilarityPairs, "load", missing)
    losses = [tt.losses.EmbeddingCosine()]
    refused(recipe("embedding", similarity_sets=[SimilarityPairs("lee")], losses=losses), "similarity pairs `lee`")


def test_a_baseline_that_could_not_be_trained_is_found_now() -> None:
    class Picky(tt.losses.CrossEntropy):
        def prepare(self, *signals: Any) -> None:
            raise ModelError("picky", expected="anything else")

    losses = [tt.losses.KLDivergence(), Picky()]
    refused(recipe("classification", np.arange(ROWS) % 3, losses=losses), "baseline: picky")


def ensemble(**settings: Any) -> tt.Ensemble:
    return tt.Ensemble([tt.ModuleTeacher(nn.Linear(4, 3)) for _ in range(2)], **settings)


@pytest.mark.parametrize("task", ["embedding", "regression"])
def test_the_mean_of_probabilities_where_there_are_none(task: str) -> None:
    losses = [tt.losses.LogitMSE()]
    refused(recipe(task, teacher=ensemble(), losses=losses), r"teacher\.mean_of\n.*logits[^\0]*mean_of: logits")
    nested = tt.Ensemble([ensemble()], mean_of="logits")
    refused(recipe(task, teacher=nested, losses=losses), r"teacher\.members\[0\]\.mean_of\n")
    assert tt.make_plan(recipe(task, teacher=ensemble(mean_of="logits"), losses=losses)).steps == 2


def test_a_softmax_of_labels_that_do_not_exclude_each_other() -> None:
    refused(recipe("multilabel", teacher=ensemble(), losses=sigmoid()), r"teacher\.outputs\n.*sigmoid")
    refused(recipe("multilabel"), r"losses\[0\]\.outputs\n.*sigmoid\D*multilabel\n.*softmax")
    assert tt.make_plan(recipe("multilabel", teacher=ensemble(outputs="sigmoid"), losses=sigmoid())).steps == 2


def test_a_sigmoid_of_classes_that_exclude_each_other() -> None:
    refused(recipe("classification", teacher=ensemble(outputs="sigmoid")), r"teacher\.outputs\n.*softmax")


class Named(tt.ModuleTeacher):
    """A teacher with names for its classes and a tokenizer."""

    names: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.names

    @property
    def tokenizer_folder(self) -> Path | None:
        return self.folder


def named(*names: str, folder: Path | None = None) -> Named:
    teacher = Named(nn.Linear(4, 3))
    teacher.names, teacher.folder = names, folder
    return teacher


def test_members_with_their_classes_in_other_orders() -> None:
    with pytest.raises(ModelError, match=r"members\[0\]: a, b, c; members\[1\]: b, a, c"):
        tt.Ensemble([named("a", "b", "c"), named("b", "a", "c")]).load(torch.device("cpu"))
    together = tt.Ensemble([named(), named("a", "b", "c"), named("a", "b", "c")])
    together.load(torch.device("cpu"))
    assert together.classes == ("a", "b", "c")


def tokenizer(folder: Path, words: list[str]) -> Path:
    folder.mkdir()
    content = {"model": {"type": "WordLevel", "vocab": {word: index for index, word in enumerate(words)}}}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_an_ensemble_has_the_tokenizer_of_its_members(tmp_path: Path) -> None:
    one, same = tokenizer(tmp_path / "one", ["a", "b"]), tokenizer(tmp_path / "same", ["a", "b"])
    other = tokenizer(tmp_path / "other", ["b", "a"])
    assert tt.Ensemble([named(folder=one), named(), named(folder=same)]).tokenizer_folder == one
    assert tt.Ensemble([named(), named()]).tokenizer_folder is None
    with pytest.raises(ModelError, match=r"teacher\.members\[1\]\n[^\0]*reads other token ids: 2 of 2"):
        _ = tt.Ensemble([named(folder=one), named(folder=other)]).tokenizer_folder


def test_the_vocabularies_of_all_kinds_of_tokenizers(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    assert vocabulary(tmp_path) == {"a": 0, "b": 1}
    content = {"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | {"added_tokens": [{"id": 9, "content": "[X]"}]}))
    assert vocabulary(tmp_path) == {"a": 0, "b": 1, "[X]": 9}


def test_a_model_may_know_more_tokens_than_the_texts_are_made_of(tmp_path: Path) -> None:
    few, many = tokenizer(tmp_path / "few", ["a", "b"]), tokenizer(tmp_path / "many", ["a", "b", "c"])
    require_same_ids("student", reader=many, encoder=few)
    with pytest.raises(ModelError, match="1 of 3"):
        require_same_ids("student", reader=few, encoder=many)


def bert(folder: Path, words: list[str]) -> str:
    """A tiny Hugging Face model in a folder with its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["[PAD]", "[UNK]", *words])}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=9, max_position_embeddings=16, **size)).save_pretrained(folder)
    return str(folder)


def test_a_student_that_reads_other_token_ids(tmp_path: Path) -> None:
    words = ["one", "two", "three"]
    teacher = bert(tmp_path / "teacher", words)

    def made(student: str) -> tt.Recipe:
        texts = [f"{words[i % 3]} {words[i % 2]} {i}" for i in range(ROWS)]
        return tt.Recipe(
            name="texts",
            task="embedding",
            data=tt.Data(source=tt.Arrays({"text": texts}), text=tt.Text(max_length=8)),
            teacher=tt.HuggingFaceTeacher(teacher),
            licences={"teacher": tt.Licence(use="allowed", basis="made by this test", date="2026-01-31")},
            student=tt.students.HuggingFaceStudent(student),
            losses=[tt.losses.EmbeddingCosine()],
            training=tt.Training(steps=2, batch_size=8),
        )

    refused(made(bert(tmp_path / "other", words[::-1])), r"student\.path\n.*\n.*reads other token ids")
    assert tt.make_plan(made(bert(tmp_path / "same", words))).steps == 2


def test_batch_norm_in_pieces_is_noted() -> None:
    student = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))

    def notes(pieces: int) -> str:
        training = tt.Training(steps=2, batch_size=8, micro_batches=pieces)
        return "\n".join(tt.make_plan(recipe("classification", student=student, training=training)).notes)

    assert "each piece by its own statistics" in notes(2)
    assert "statistics" not in notes(1)


class Late(nn.Module):
    """Makes a layer when it is first called, as the number of inputs is known then."""

    def __init__(self) -> None:
        super().__init__()
        self.first: nn.Module | None = None
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.first is None:
            self.first = nn.Linear(x.shape[1], 8)
        return self.last(self.first(x).relu())


def test_a_student_whose_weights_are_made_by_its_forward_pass() -> None:
    """Catches layers that no optimiser trains, and the traceback of their export."""
    for student in (tt.ModuleStudent(Late()), tt.ModuleStudent(Late)):
        made = recipe("classification")
        made.student = student
        refused(made, r"student\.module\n.*before it is first called\n.*`first.bias`, `first.weight`")
