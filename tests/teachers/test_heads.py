"""A folder whose model answers something else is refused by name, and an encoder is made of no head silently."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"

import transformers as hf
from safetensors.torch import load_file, save_file
from torch import nn

import tutelage as tt
from tutelage.errors import ModelError, SignalError
from tutelage.plan import make_plan
from tutelage.students import HuggingFaceStudent
from tutelage.teachers import HuggingFaceTeacher, SentenceEncoder

BERT = {
    "vocab_size": 30, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
    "max_position_embeddings": 16, "num_labels": 3,
}  # fmt: skip
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "Bert": ("BertConfig", BERT),
    "DistilBert": ("DistilBertConfig", {"vocab_size": 30, "dim": 8, "hidden_dim": 8, "n_heads": 2, "n_layers": 1}),
    "GPT2": ("GPT2Config", {"vocab_size": 30, "n_embd": 8, "n_layer": 1, "n_head": 2, "pad_token_id": 0}),
    "XLNet": ("XLNetConfig", {"vocab_size": 30, "d_model": 8, "n_layer": 1, "n_head": 2, "d_inner": 8}),
    "T5": (
        "T5Config",
        {"vocab_size": 30, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "pad_token_id": 0},
    ),
    "Whisper": (
        "WhisperConfig",
        {
            "vocab_size": 30, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "num_mel_bins": 4,
            "max_source_positions": 8, "max_target_positions": 8, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": 2, "decoder_start_token_id": 1,
        },
    ),
    "ViT": (
        "ViTConfig",
        {
            "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
            "image_size": 8, "patch_size": 4,
        },
    ),
}  # fmt: skip


def folder_of(tmp_path: Path, name: str) -> Path:
    """A folder with a small random model of that class of transformers."""
    family = next(each for each in SMALL if name.startswith(each))
    config, sizes = SMALL[family]
    torch.manual_seed(0)
    path = tmp_path / name
    getattr(hf, name)(getattr(hf, config)(**sizes)).save_pretrained(path)
    return path


def load(path: Path, head: Any = "auto", **settings: Any) -> HuggingFaceTeacher:
    teacher = HuggingFaceTeacher(str(path), head, **settings)
    teacher.load(torch.device("cpu"))
    return teacher


OTHERS = {
    "BertForTokenClassification": "a class for each token",
    "DistilBertForTokenClassification": "a class for each token",
    "BertForQuestionAnswering": "begins and ends",
    "BertForMultipleChoice": "which of several texts",
    "BertForNextSentencePrediction": "follows another",
    "BertLMHeadModel": "the next token",
    "GPT2LMHeadModel": "the next token",
    "GPT2DoubleHeadsModel": "the next token",
    "GPT2ForTokenClassification": "a class for each token",
    "XLNetLMHeadModel": "the next token",
    "T5ForConditionalGeneration": "a text that it writes",
    "WhisperForConditionalGeneration": "a text that it writes",
    "ViTForImageClassification": "the class of an image",
}


@pytest.mark.parametrize("head", ["auto", "classification"])
@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_answers_something_else_is_not_taken_for_an_encoder_or_a_classifier(
    tmp_path: Path, name: str, head: str
) -> None:
    path = folder_of(tmp_path, name)
    advice = "save its encoder alone" if "ConditionalGeneration" in name else "head: embedding"
    with pytest.raises(ModelError, match=rf"(?s){name}, which answers .*{OTHERS[name]}.*{advice}"):
        load(path, head)
    student = HuggingFaceStudent(str(path), head)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=rf"(?s)student\.path.*{name}, which answers"):
        student.build(tt.ModuleTeacher(nn.Linear(1, 1)))


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BertForPreTraining", "DistilBertForMaskedLM", "BertModel"])
def test_a_model_without_a_head_or_with_that_of_its_pretraining_is_an_encoder_and_says_so(
    tmp_path: Path, name: str
) -> None:
    teacher = load(folder_of(tmp_path, name))
    assert isinstance(teacher.module, SentenceEncoder)
    said = " ".join(teacher.notes)
    assert (f"holds a {name}; its encoder is used and its head left out" in said) == (name != "BertModel")


def test_the_encoder_of_any_model_is_taken_when_it_is_asked_for(tmp_path: Path) -> None:
    teacher = load(folder_of(tmp_path, "BertForTokenClassification"), "embedding")
    assert isinstance(teacher.module, SentenceEncoder)
    assert "BertForTokenClassification" in teacher.notes[0]


@pytest.mark.parametrize("name", ["T5ForConditionalGeneration", "T5Model", "WhisperForConditionalGeneration"])
def test_the_states_of_a_decoder_are_not_taken_for_an_embedding_of_the_text(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"(?s)an encoder and a decoder.*save its encoder alone"):
        load(folder_of(tmp_path, name), "embedding")


def test_the_encoder_of_t5_alone_gives_its_own_states(tmp_path: Path) -> None:
    path = folder_of(tmp_path, "T5EncoderModel")
    ids = torch.tensor([[3, 4, 5, 1]])
    module = load(path, normalize=False).module
    assert module is not None
    with torch.no_grad():
        expected = hf.T5EncoderModel.from_pretrained(path).eval()(input_ids=ids).last_hidden_state.mean(1)
        torch.testing.assert_close(module(input_ids=ids), expected)


def test_an_encoder_of_images_is_not_called_with_tokens(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ViTModel, which reads pixel_values"):
        load(folder_of(tmp_path, "ViTModel"))


@pytest.mark.parametrize("architectures", [None, []])
def test_a_model_that_does_not_say_what_it_answers_is_not_guessed_at(tmp_path: Path, architectures: Any) -> None:
    path = folder_of(tmp_path, "BertModel")
    config = json.loads((path / "config.json").read_text()) | {"architectures": architectures}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"(?s)`architectures`.*state `head: classification` or `head: embedding`"):
        load(path)
    assert isinstance(load(path, "embedding").module, SentenceEncoder)


def test_a_head_in_the_file_that_the_config_does_not_name_is_not_dropped(tmp_path: Path) -> None:
    path = folder_of(tmp_path, "BertForTokenClassification")
    config = json.loads((path / "config.json").read_text()) | {"architectures": ["BertModel"]}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"left over: classifier\.bias, classifier\.weight"):
        load(path)


def test_layers_of_the_encoder_itself_are_never_left_over(tmp_path: Path) -> None:
    path = folder_of(tmp_path, "BertForMaskedLM")
    weights = load_file(path / "model.safetensors")
    extra = {key.replace("layer.0", "layer.1"): value.clone() for key, value in weights.items() if "layer.0" in key}
    save_file(weights | extra, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"left over: bert\.encoder\.layer\.1"):
        load(path)


# A task refuses an output that is not its own.


def recipe(teacher: tt.Teacher, task: Any, student: tt.Student | None = None) -> tt.Recipe:
    ids = torch.randint(3, 30, (40, 6), generator=torch.Generator().manual_seed(0)).numpy()
    return tt.Recipe(
        name="t",
        task=task,
        data=tt.Data(source=tt.Arrays({"input_ids": ids})),
        teacher=teacher,
        student=student or tt.CutStudent(layers=[0]),
        losses=[tt.losses.LogitMSE() if task != "classification" else tt.losses.KLDivergence()],
        training=tt.Training(steps=1, batch_size=4),
        licences={"teacher": tt.Licence(use="allowed", basis="own", date="2026-01-01")},
    )


def hugging_face(tmp_path: Path, name: str, **settings: Any) -> HuggingFaceTeacher:
    return HuggingFaceTeacher(str(folder_of(tmp_path, name)), **settings)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_embedding_is_not_taken_for_logits_or_values(tmp_path: Path, task: str, wrapped: bool) -> None:
    teacher: tt.Teacher = hugging_face(tmp_path, "BertModel")
    if wrapped:
        teacher = tt.Cached(teacher, str(tmp_path / "cache"))
    with pytest.raises(SignalError, match=r"(?s)teacher: output.*a head for task.*embedding of a sentence encoder"):
        make_plan(recipe(teacher, task))


def test_a_student_without_a_head_is_not_taken_for_a_classifier(tmp_path: Path) -> None:
    teacher = hugging_face(tmp_path, "BertForSequenceClassification")
    student = HuggingFaceStudent(str(folder_of(tmp_path, "BertModel")))
    with pytest.raises(SignalError, match=r"(?s)student: output.*embedding of a sentence encoder"):
        make_plan(recipe(teacher, "classification", student))


def test_logits_of_a_classifier_are_not_distilled_as_an_embedding(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match=r"(?s)BertForSequenceClassification, which gives logits.*head: embedding"):
        make_plan(recipe(hugging_face(tmp_path, "BertForSequenceClassification"), "embedding"))
    make_plan(recipe(hugging_face(tmp_path, "BertForSequenceClassification", head="embedding"), "embedding"))


class PerToken(nn.Module):
    """`[B, L]` token ids -> `[B, L, 4]`."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 4)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.table(input_ids)
        return result


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression", "embedding"])
def test_answers_to_tokens_are_not_taken_for_answers_to_rows(task: str) -> None:
    asked = recipe(tt.ModuleTeacher(PerToken), task, tt.ModuleStudent(PerToken))
    with pytest.raises(SignalError, match=r"(?s)teacher: output.*\(2, 6, 4\)"):
        make_plan(asked)


@pytest.mark.parametrize("name", ["BertForTokenClassification", "GPT2LMHeadModel"])
def test_a_module_of_transformers_that_answers_each_token_is_refused_too(tmp_path: Path, name: str) -> None:
    path = folder_of(tmp_path, name)
    module = getattr(hf, name).from_pretrained(path)
    with pytest.raises(SignalError, match=r"(?s)teacher: output.*one answer a row"):
        make_plan(recipe(tt.ModuleTeacher(module), "classification"))
