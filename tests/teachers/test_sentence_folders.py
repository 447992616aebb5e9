"""Folders of sentence-transformers: embeddings are those of its own `encode`, before and after they are stored."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"

import transformers as hf
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import tutelage as tt
from tutelage.errors import ModelError
from tutelage.export import load_student, save_student
from tutelage.plan import make_plan
from tutelage.signals import Request
from tutelage.teachers import HuggingFaceTeacher
from tutelage.teachers.vocabulary import require_same_form
from tutelage.transfer import TransferSet

TEXTS = ["w1 w2", "W3", "w4 w5 w6 w7 w8 w9 w1 w2 w3 w4 w5 w6", "w2 w2 w9"]
WIDTH = 8


@pytest.fixture(scope="module")
def token_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with a tokenizer that tells upper from lower case."""
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(10)), "ask:", "find:", "W3"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokens = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    hf.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=32, **tokens).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    model = hf.BertModel(hf.BertConfig(vocab_size=len(words), max_position_embeddings=16, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    return folder


@dataclasses.dataclass
class Kind:
    """A folder: its pooling, further modules, and how it prepares texts."""

    pooling: Any = "mean"
    more: tuple[Any, ...] = ()
    transformer: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    left: bool = False
    config: dict[str, Any] = dataclasses.field(default_factory=dict)


def dense(width: int, activation: Any) -> Dense:
    torch.manual_seed(1)
    return Dense(width, 5, activation_function=activation)


PROMPTS = {"prompts": {"query": "ask: ", "document": "find: "}, "default_prompt_name": "query"}
KINDS = {
    **{mode: Kind(mode) for mode in Pooling.POOLING_MODES},
    **{f"{mode}, left": Kind(mode, left=True) for mode in Pooling.POOLING_MODES},
    "two": Kind(("mean", "max")),
    "three in another order": Kind(("weightedmean", "cls", "lasttoken"), more=(Normalize(),)),
    "dense": Kind("cls", more=(dense(WIDTH, torch.nn.Tanh()), Normalize())),
    "dense of two": Kind(("cls", "mean"), more=(dense(2 * WIDTH, torch.nn.Identity()),)),
    "prompt": Kind(more=(Normalize(),), settings=PROMPTS),
    "prompts without a default": Kind(settings={"prompts": PROMPTS["prompts"]}),
    "short": Kind(transformer={"max_seq_length": 6}),
    "short, as before version 6": Kind(config={"max_seq_length": 5}),
    "short, with a prompt": Kind("lasttoken", transformer={"max_seq_length": 6}, settings=PROMPTS),
    "lower case": Kind(config={"do_lower_case": True}),
    "lower case, also in the tokenizer": Kind(transformer={"do_lower_case": True}, config={"do_lower_case": True}),
}


def folder_of(token_model: Path, kind: Kind, path: Path) -> Path:
    """What sentence-transformers itself saves."""
    transformer = Transformer(str(token_model), **kind.transformer)
    if kind.left:
        transformer.tokenizer.padding_side = "left"
    made = SentenceTransformer(
        modules=[transformer, Pooling(WIDTH, kind.pooling), *kind.more], device="cpu", **kind.settings
    )
    made.save(str(path))
    if kind.config:
        file = path / "sentence_bert_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | kind.config))
    return path


def encoded(folder: Path) -> np.ndarray[Any, Any]:
    return np.asarray(SentenceTransformer(str(folder), device="cpu").encode(TEXTS))


def rows_of(folder: Path, **text: Any) -> TransferSet:
    split = ["train", "development", "test", "test"]
    source = tt.Arrays({"text": np.array(TEXTS, dtype=object)}, split=np.array(split))
    return tt.Data(source=source, text=tt.Text(**text)).load(folder)


@pytest.mark.parametrize("name", KINDS)
def test_embeddings_are_those_of_encode_and_stay_so_in_the_bundle(name: str, token_model: Path, tmp_path: Path) -> None:
    """Catches a prompt, a length, a mode, its order, a layer or lower case that is left out, here or in the bundle."""
    folder = folder_of(token_model, KINDS[name], tmp_path / "folder")
    expected = encoded(folder)
    teacher = HuggingFaceTeacher(str(folder))
    teacher.load(torch.device("cpu"))
    assert teacher.tokenizer_folder is not None and teacher.module is not None
    data = rows_of(teacher.tokenizer_folder)
    batch = data.batch(np.arange(len(TEXTS)))
    said = teacher.ask(batch, Request(output=True)).output
    np.testing.assert_allclose(said, expected, atol=1e-5)
    assert data.tokenizer_folder is not None
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    about = save_student(
        teacher.module, bundle, tokenizer=data.tokenizer_folder, form=data.text_form, example=batch.inputs
    )
    assert about["loads"] is True
    np.testing.assert_allclose(encoded(bundle), expected, atol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(load_student(bundle)(**batch.inputs), expected, atol=1e-5)


def recipe(folder: Path, student: tt.CutStudent, **text: Any) -> tt.Recipe:
    texts = [f"w{i} w{j} w{k}" for i in range(4) for j in range(4) for k in range(3)]
    return tt.Recipe(
        name="t",
        task="embedding",
        data=tt.Data(source=tt.Arrays({"text": np.array(texts, dtype=object)}), text=tt.Text(**text)),
        teacher=HuggingFaceTeacher(str(folder)),
        student=student,
        losses=[tt.losses.EmbeddingCosine()],
        training=tt.Training(steps=1, batch_size=4),
        licences={"teacher": tt.Licence(use="allowed", basis="own", date="2026-01-01")},
    )


def test_a_run_delivers_a_student_that_encode_prepares_texts_for_as_they_were_in_training(
    token_model: Path, tmp_path: Path
) -> None:
    """All layers are kept and nothing is learnt, so the student in the bundle is the teacher, whoever loads it."""
    kind = Kind("lasttoken", (dense(WIDTH, torch.nn.Tanh()), Normalize()), {"max_seq_length": 6}, PROMPTS)
    folder = folder_of(token_model, kind, tmp_path / "folder")
    asked = recipe(folder, tt.CutStudent(layers=[0, 1]), prompt="find: ", max_length=5)
    asked.training = tt.Training(steps=1, batch_size=4, learning_rate=1e-12)
    asked.export, asked.measure = tt.Export(onnx=False), tt.Measure(rounds=2, seconds=0.1, batch_sizes=[1])
    notes = make_plan(asked).notes
    assert any("begins with the prompt 'find: '" in note for note in notes)
    assert any("cut to 5 tokens (data.text.max_length)" in note for note in notes)
    tt.distill(asked, tmp_path / "run")
    whole = SentenceTransformer(str(folder), device="cpu")
    whole.max_seq_length = 5
    expected = whole.encode(TEXTS, prompt="find: ")
    np.testing.assert_allclose(encoded(tmp_path / "run" / "bundle"), expected, atol=1e-5)


def test_a_stated_prompt_and_length_win_and_the_plan_says_what_the_library_does(
    token_model: Path, tmp_path: Path
) -> None:
    folder = folder_of(token_model, KINDS["short, with a prompt"], tmp_path / "folder")
    plain = SentenceTransformer(str(folder), device="cpu")
    plain.max_seq_length = 9
    data = rows_of(folder, prompt="find: ", max_length=9)
    teacher = HuggingFaceTeacher(str(folder))
    teacher.load(torch.device("cpu"))
    said = teacher.ask(data.batch(np.arange(len(TEXTS))), Request(output=True)).output
    np.testing.assert_allclose(said, plain.encode(TEXTS, prompt="find: "), atol=1e-5)
    assert any("cut to 9 tokens (data.text.max_length), where sentence-transformers" in note for note in data.notes)
    further = rows_of(folder_of(token_model, KINDS["prompts without a default"], tmp_path / "further"))
    assert any("has the prompts document, query besides" in note for note in further.notes)


def test_prompts_of_teacher_and_texts_that_differ_are_refused_by_name(token_model: Path, tmp_path: Path) -> None:
    folder = folder_of(token_model, KINDS["prompt"], tmp_path / "folder")
    with pytest.raises(ModelError, match=r"teacher[\s\S]*begin with 'ask: '[\s\S]*state data\.text\.prompt"):
        make_plan(recipe(folder, tt.CutStudent(layers=[0]), tokenizer=str(token_model)))
    make_plan(recipe(folder, tt.CutStudent(layers=[0]), tokenizer=str(token_model), prompt=""))
    lower = folder_of(token_model, KINDS["lower case"], tmp_path / "lower")
    with pytest.raises(ModelError, match=r"in lower case[\s\S]*the opposite"):
        make_plan(recipe(lower, tt.CutStudent(layers=[0]), tokenizer=str(token_model)))


def changed(folder: Path, file: str, **changes: Any) -> Path:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_what_an_encoder_does_not_have_is_refused_by_name(token_model: Path, tmp_path: Path) -> None:
    def load(folder: Path) -> None:
        HuggingFaceTeacher(str(folder)).load(torch.device("cpu"))

    with pytest.raises(ModelError, match="LayerNorm in the folder's files"):
        load(folder_of(token_model, Kind(more=(LayerNorm(WIDTH),)), tmp_path / "layer norm"))
    with pytest.raises(ModelError, match="the order Transformer > Pooling > Normalize > Dense"):
        load(folder_of(token_model, Kind(more=(Normalize(), dense(WIDTH, torch.nn.Tanh()))), tmp_path / "order"))
    for at, (changes, said) in enumerate(
        (
            ({"activation_function": "mine.Swish"}, r"activation_function: mine\.Swish"),
            ({"activation_function": "torch.nn.modules.activation.MultiheadAttention"}, "MultiheadAttention"),
            ({"use_residual": True}, "use_residual: True"),
            ({"module_input_name": "token_embeddings"}, "module_input_name: token_embeddings"),
        )
    ):
        folder = folder_of(token_model, KINDS["dense"], tmp_path / f"dense {at}")
        with pytest.raises(ModelError, match=rf"2_Dense[\s\S]*{said}"):
            load(changed(folder, "2_Dense/config.json", **changes))
    other = folder_of(token_model, Kind(), tmp_path / "task")
    with pytest.raises(ModelError, match="a transformer for fill-mask"):
        load(changed(other, "sentence_bert_config.json", transformer_task="fill-mask"))
    modules = json.loads((other / "modules.json").read_text())
    modules[1]["type"] = "custom_st.Pooling"
    (other / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"custom_st\.Pooling"):
        HuggingFaceTeacher(str(other), "embedding").load(torch.device("cpu"))


def test_a_prompt_that_does_not_count_in_the_pooling_is_refused(token_model: Path, tmp_path: Path) -> None:
    folder = changed(
        folder_of(token_model, KINDS["prompt"], tmp_path / "folder"), "1_Pooling/config.json", include_prompt=False
    )
    data = rows_of(folder)
    assert data.text_form is not None
    with pytest.raises(ModelError, match=r"include_prompt: false[\s\S]*'ask: '"):
        require_same_form(("teacher", folder), data.text_form, False)


def test_a_default_prompt_that_is_not_there_is_told_by_our_error(token_model: Path, tmp_path: Path) -> None:
    folder = folder_of(token_model, KINDS["prompt"], tmp_path / "folder")
    changed(folder, "config_sentence_transformers.json", default_prompt_name="passage")
    with pytest.raises(ModelError, match=r"default_prompt_name among[\s\S]*'passage'"):
        HuggingFaceTeacher(str(folder)).load(torch.device("cpu"))


def test_a_width_is_not_cut_under_a_layer_that_was_made_for_it(token_model: Path, tmp_path: Path) -> None:
    folder = folder_of(token_model, KINDS["dense"], tmp_path / "folder")
    with pytest.raises(ModelError, match=r"student\.hidden_size[\s\S]*1 Dense layer"):
        make_plan(recipe(folder, tt.CutStudent(hidden_size=4)))
