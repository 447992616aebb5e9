"""Rows that a training would come to late are tried in the plan: the longest text, the extreme numbers, padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from text_folders import bert, gpt2, plan_of, texts
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import tutelage as tt
from tutelage.errors import SignalError
from tutelage.students import HuggingFaceStudent

LATE = {30: 40}
"""One long text, of a training row that is not among the first: 42 tokens with the special ones."""


def test_a_text_that_is_too_long_for_the_teacher_is_refused_with_the_length_that_it_takes(tmp_path: Path) -> None:
    teacher = tt.HuggingFaceTeacher(bert(tmp_path, 16))
    with pytest.raises(
        SignalError, match=r"data\.text\.max_length\n[^\0]*teacher takes: up to 16 [^\0]*42 tokens in row 30"
    ):
        plan_of(teacher, tt.CutStudent([0]), texts(LATE), max_length=64)
    assert plan_of(teacher, tt.CutStudent([0]), texts(LATE), max_length=16).steps == 2


def test_a_text_that_is_too_long_for_the_student_alone_is_refused_too(tmp_path: Path) -> None:
    teacher, student = bert(tmp_path / "teacher", 64), bert(tmp_path / "student", 20)
    with pytest.raises(SignalError, match="student takes: up to 20 tokens"):
        plan_of(tt.HuggingFaceTeacher(teacher), HuggingFaceStudent(student), texts(LATE))


def test_texts_are_cut_to_the_models_positions_where_the_recipe_says_nothing(tmp_path: Path) -> None:
    plan = plan_of(tt.HuggingFaceTeacher(bert(tmp_path, 16)), tt.CutStudent([0]), texts(LATE))
    assert plan.data.lengths(np.array([30])) == [16]
    assert any("cut to 16 tokens, the most" in note for note in plan.notes)
    assert any("1 of 60 texts were cut to 16 tokens" in note for note in plan.notes)


def test_a_token_that_the_model_has_no_embedding_for_is_found_wherever_it_is(tmp_path: Path) -> None:
    rows = [text.replace("w39", "w1") for text in texts({})]
    teacher = tt.HuggingFaceTeacher(bert(tmp_path, 16, vocabulary=43))  # the last word of the tokenizer has none
    assert plan_of(teacher, tt.CutStudent([0]), rows).steps == 2
    rows[55] += " w39"
    with pytest.raises(
        SignalError, match=r"teacher: row 55 of the data, the largest token id: 43[^\0]*entries 0 to 42"
    ):
        plan_of(teacher, tt.CutStudent([0]), rows)


class Coded(nn.Module):
    """Codes of categories, each column with an embedding of its own, and one number that is exponentiated."""

    def __init__(self) -> None:
        super().__init__()
        self.of = nn.ModuleList([nn.Embedding(9, 4), nn.Embedding(5, 4)])
        self.head = nn.Linear(4, 3)

    def forward(self, codes: Tensor, size: Tensor) -> Tensor:
        embedded = torch.stack([embedding(codes[:, i]) for i, embedding in enumerate(self.of)]).sum(0)
        return self.head(embedded) + torch.exp(size[:, None])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("codes", [8, 5], r"row 57 of the data, the largest of `codes`: 5[^\0]*`of\.1` has entries 0 to 4 .* for 5"),
        ("codes", [-2, 0], r"row 57 of the data, the smallest of `codes`: -2[^\0]*`of\.0` has entries .* for -2"),
        ("size", 200.0, r"row 57 of the data, the largest of `size`: 200[^\0]*NaN or infinity"),
    ],
)
def test_a_number_that_breaks_a_model_is_named_with_its_row(column: str, value: object, message: str) -> None:
    generator = np.random.default_rng(0)
    columns = {
        "codes": np.stack([generator.integers(0, 9, 60), generator.integers(0, 5, 60)], axis=1),
        "size": generator.normal(size=60).astype(np.float32),
    }
    split = ["train"] * 40 + ["development"] * 10 + ["test"] * 10

    def plan() -> tt.plan.Plan:
        return tt.make_plan(
            tt.Recipe(
                name="codes",
                task="classification",
                data=tt.Data(source=tt.Arrays(columns, split=split)),
                teacher=tt.ModuleTeacher(Coded()),
                student=tt.ModuleStudent(Coded),
                losses=[tt.losses.KLDivergence()],
                training=tt.Training(steps=2, batch_size=8),
            )
        )

    assert plan().steps == 2
    columns[column][57] = value
    with pytest.raises(SignalError, match="teacher: " + message):
        plan()


def test_a_decoder_without_a_padding_token_answers_in_a_batch_as_it_does_alone(tmp_path: Path) -> None:
    """Alone it needs no padding token: transformers itself then reads a text's last token."""
    rows, path = texts({}), gpt2(tmp_path)
    plan = plan_of(tt.HuggingFaceTeacher(path), tt.CutStudent([0, 2]), rows)
    batch = plan.data.batch(np.arange(8))
    assert batch.mask is not None and not batch.mask.all()
    plain, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(path).eval(),
        AutoTokenizer.from_pretrained(path),
    )
    assert plain.config.pad_token_id is None
    with torch.no_grad():
        alone = [plain(**tokenizer(text, return_tensors="pt")).logits[0] for text in rows[:8]]
    ours = plan.recipe.teacher.ask(batch, tt.signals.Request(output=True)).dense()
    torch.testing.assert_close(ours, torch.stack(alone), atol=1e-5, rtol=0)


def test_a_classifier_that_takes_another_token_for_padding_is_refused(tmp_path: Path) -> None:
    """It would answer for the padding: for each row according to the others in its batch."""
    path = gpt2(tmp_path, pad=1)  # the tokenizer fills up with 0
    with pytest.raises(SignalError, match=r"teacher: pad_token_id\n  expected: 0, [^\0]*found:    1 in its config"):
        plan_of(tt.HuggingFaceTeacher(path), tt.CutStudent([0, 2]), texts({}))


class MeanOfAll(nn.Module):
    """The mean over all tokens, the padding too, or over those that count."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.embedding, self.head = nn.Embedding(44, 8), nn.Linear(8, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Tensor) -> Tensor:
        counted = attention_mask[..., None].float() if self.masked else torch.ones(*input_ids.shape, 1)
        return self.head((self.embedding(input_ids) * counted).sum(1) / counted.sum(1))


@pytest.mark.parametrize("masked", [False, True])
def test_a_student_whose_answers_depend_on_the_padding_is_noted(masked: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plan = plan_of(tt.HuggingFaceTeacher(bert(tmp_path, 64)), MeanOfAll(masked), texts({}))
    assert any("student's output for a text changes" in note for note in plan.notes) != masked
