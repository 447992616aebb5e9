from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tutelage.errors import DataError, MissingExtra, ModelError, RecipeError
from tutelage.transfer import Arrays, Data, Splits, Text, TransferSet, evaluation_batches, in_original_order

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]


def save_tokenizer(folder: Path, *, special: bool = True, **options: Any) -> str:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", **options}
    PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def load(texts: Any, folder: str | None, *, tokenizer: str | None = None, max_length: int = 8) -> TransferSet:
    text = Text(tokenizer=tokenizer, max_length=max_length)
    return Data(source=Arrays(texts), text=text, splits=Splits(development=0, test=0)).load(folder)


TEXTS = ["a b c", "d", "a b c d e f g h i j", "q r s t u", "z y"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from("abcz?"), min_size=1, max_size=12).map(" ".join), min_size=1, max_size=12))
def test_batches_are_what_the_tokenizer_itself_pads(folder: str, texts: list[str]) -> None:
    data = load(texts, folder)
    rows = np.random.default_rng(0).permutation(len(texts))
    batch = data.batch(rows)
    expected = AutoTokenizer.from_pretrained(folder)(
        [texts[row] for row in rows], padding=True, truncation=True, max_length=8, return_tensors="pt"
    )
    assert isinstance(batch.inputs, dict)
    assert set(batch.inputs) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(batch.inputs[name], tensor, rtol=0, atol=0)
    assert batch.mask is not None
    assert batch.mask.dtype == torch.bool
    assert torch.equal(batch.mask, expected["attention_mask"].bool())
    np.testing.assert_array_equal(data.lengths(rows), expected["attention_mask"].sum(1).numpy())


def test_padding_is_on_the_side_of_the_tokenizer(tmp_path: Path) -> None:
    left = save_tokenizer(tmp_path, padding_side="left")
    batch = load(TEXTS, left).batch(np.array([1, 3]))
    assert isinstance(batch.inputs, dict)
    assert batch.inputs["input_ids"].tolist() == [[0, 0, 0, 0, 2, 7, 3], [2, 20, 21, 22, 23, 24, 3]]
    assert batch.inputs["attention_mask"].tolist() == [[0, 0, 0, 0, 1, 1, 1], [1] * 7]


def test_pairs_of_texts_are_encoded_as_the_tokenizer_encodes_pairs(folder: str) -> None:
    others = list(reversed(TEXTS))
    data = load({"first": TEXTS, "second": others}, folder, max_length=40)
    expected = AutoTokenizer.from_pretrained(folder)(TEXTS, others, padding=True, return_tensors="pt")
    inputs = data.batch(np.arange(5)).inputs
    assert isinstance(inputs, dict)
    for name, tensor in expected.items():
        torch.testing.assert_close(inputs[name], tensor, rtol=0, atol=0)
    with pytest.raises(DataError, match="two for pairs"):
        load({"a": TEXTS, "b": TEXTS, "c": TEXTS}, folder)


def test_cut_texts_are_counted_in_a_note(folder: str) -> None:
    assert load(TEXTS, folder, max_length=7).notes == ["1 of 5 texts were cut to 7 tokens"]
    assert load(TEXTS, folder, max_length=12).notes == []


def test_texts_and_arrays_are_named_together(folder: str) -> None:
    inputs = load({"text": TEXTS, "age": np.arange(5.0)}, folder).batch(np.array([4, 0])).inputs
    assert isinstance(inputs, dict)
    assert inputs["age"].tolist() == [4.0, 0.0]
    assert {"input_ids", "attention_mask"} < set(inputs)


def test_the_recipes_tokenizer_comes_before_the_teachers(folder: str, tmp_path: Path) -> None:
    plain = save_tokenizer(tmp_path, special=False)
    assert load(TEXTS, folder, tokenizer=plain).lengths(np.arange(2)).tolist() == [3, 1]  # type: ignore[union-attr]
    assert load(TEXTS, folder).lengths(np.arange(2)).tolist() == [5, 3]  # type: ignore[union-attr]


def test_further_texts_are_encoded_in_the_same_way_and_come_back_in_order(folder: str) -> None:
    data = load(TEXTS, folder)
    lone = [data.batch(np.array([row])).inputs["input_ids"][0].tolist() for row in range(5)]  # type: ignore[index,call-overload]
    seen = dict.fromkeys(range(5), None)
    widths = []
    for positions, batch in data.encode_texts(TEXTS, 2):
        widths.append(batch.inputs["input_ids"].shape[1])  # type: ignore[index,call-overload]
        for i, position in enumerate(positions.tolist()):
            ids = batch.inputs["input_ids"][i][batch.mask[i]]  # type: ignore[index,call-overload]
            seen[position] = ids.tolist()
    assert [seen[i] for i in range(5)] == lone
    assert widths == sorted(widths, reverse=True)
    parts = ((at, b.mask.sum(1)) for at, b in evaluation_batches(data, np.arange(5), 2))  # type: ignore[union-attr]
    np.testing.assert_array_equal(in_original_order(parts).numpy(), data.lengths(np.arange(5)))
    with pytest.raises(DataError, match="one without texts"):
        next(Data(source=Arrays(np.arange(50.0))).load().encode_texts(["a"], 1))


def test_displayed_text_is_the_text_and_the_fingerprint_follows_the_tokens(folder: str) -> None:
    data = load(TEXTS, folder)
    assert data.display(1) == {"kind": "text", "input": "d", "label": None}
    shorter, other = load(TEXTS, folder, max_length=5), load([*TEXTS[:4], "z Y"], folder)
    assert data.inputs_fingerprint != shorter.inputs_fingerprint
    assert data.fingerprint == shorter.fingerprint
    assert len({data.fingerprint, other.fingerprint}) == len({data.inputs_fingerprint, other.inputs_fingerprint}) == 2


def test_wrong_texts_and_tokenizers_are_refused(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"text\.tokenizer"):
        load(TEXTS, None)
    with pytest.raises(ModelError, match="a folder with a tokenizer"):
        load(TEXTS, str(tmp_path))
    with pytest.raises(ModelError, match="which does not"):
        load(TEXTS, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"row 1(.|\n)*nothing"):
        load(["a", None], folder)
    with pytest.raises(DataError, match=r"row 0(.|\n)*nothing"):
        load([None, None], folder)
    plain = save_tokenizer(tmp_path, special=False)
    with pytest.raises(DataError, match=r"row 2(.|\n)*a text without any"):
        load(["a", "b", " "], plain)
    with pytest.raises(RecipeError, match="max_length"):
        Text(max_length=0)
    with pytest.raises(RecipeError, match=r"data\.text"):
        Data(source=Arrays(np.arange(50.0)), text=Text()).load(folder)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"tutelage\[hf\]"):
        load(TEXTS, folder)


def test_rows_of_evaluation_texts_are_no_rows_of_the_set(folder: str) -> None:
    """A teacher that remembers by row number would answer with what it said of another text."""
    data, asked = load(["one two", "three", "four five"] * 5, folder), ["five", "two one", "three"]
    for positions, batch in data.encode_texts(asked, 2):
        assert bool((batch.rows < 0).all())
        assert batch.raw is not None
        assert list(next(iter(batch.raw().values()))) == [asked[at] for at in positions]
