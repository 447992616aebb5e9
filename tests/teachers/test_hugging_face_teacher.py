from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"

from teacher_case import MINILM, SENTENCES, batch_of
from torch import nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
)

from tutelage.errors import ModelError
from tutelage.paths import resolve_path
from tutelage.signals import Request
from tutelage.teachers import HuggingFaceTeacher, SentenceEncoder

CPU = torch.device("cpu")
FOLDER = resolve_path(MINILM, key="test")
IDS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
TOKENS = {"input_ids": IDS, "attention_mask": (IDS != 0).long()}


def config(**changes: Any) -> BertConfig:
    size = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 16}
    return BertConfig(**{**size, "num_attention_heads": 2, "num_hidden_layers": 2, **changes})


def folder_of(tmp_path: Path, model: PreTrainedModel) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def load(path: Path | str, head: Any = "auto", **settings: Any) -> HuggingFaceTeacher:
    teacher = HuggingFaceTeacher(str(path), head, **settings)
    teacher.load(CPU)
    return teacher


def test_embeddings_are_those_of_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    sentences = [*SENTENCES, "Naïve café owners paid £3.50 -- twice!", "a", "word " * 300]
    reference = SentenceTransformer(str(FOLDER), device="cpu")
    expected = torch.as_tensor(reference.encode(sentences, convert_to_numpy=True))
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    inputs = dict(tokenizer(sentences, padding=True, truncation=True, max_length=256, return_tensors="pt"))
    found = load(MINILM).ask(batch_of(inputs), Request(output=True)).output
    assert found is not None
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_importing_the_teachers_does_not_import_transformers() -> None:
    code = "import sys, tutelage.teachers, tutelage.students; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_head_is_read_from_the_config_and_described(tmp_path: Path) -> None:
    classifier = load(folder_of(tmp_path, BertForSequenceClassification(config(num_labels=3))))
    output = classifier.ask(batch_of(TOKENS), Request(output=True)).output
    assert output is not None and output.shape == (2, 3)
    assert classifier.describe() == "BertForSequenceClassification (classification)"
    encoder = load(MINILM)
    assert encoder.describe() == "BertModel (embedding, mean pooling, unit length)"
    stated = load(tmp_path / "model", "embedding", pooling="cls", normalize=False)
    assert stated.describe() == "BertModel (embedding, cls pooling)"


def test_a_classifier_whose_head_is_not_in_the_file_is_refused_rather_than_random(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"classifier\.bias, classifier\.weight"):
        load(folder_of(tmp_path, BertModel(config())), "classification")


def test_a_layer_that_is_not_in_the_file_is_refused_rather_than_random(tmp_path: Path) -> None:
    path = folder_of(tmp_path, BertModel(config()))
    deeper = json.loads((path / "config.json").read_text()) | {"num_hidden_layers": 3}
    (path / "config.json").write_text(json.dumps(deeper))
    with pytest.raises(ModelError, match=r"encoder\.layer\.2\.attention"):
        load(path)


def test_weights_of_a_classifier_that_would_be_left_over_are_refused(tmp_path: Path) -> None:
    path = folder_of(tmp_path, BertForSequenceClassification(config()))
    fewer = json.loads((path / "config.json").read_text()) | {"num_hidden_layers": 1}
    (path / "config.json").write_text(json.dumps(fewer))
    with pytest.raises(ModelError, match=r"left over: bert\.encoder\.layer\.1"):
        load(path)


def test_an_untrained_pooler_is_left_out_so_that_two_loads_are_one_model(tmp_path: Path) -> None:
    path = folder_of(tmp_path, BertForMaskedLM(config()))
    one, two = load(path), load(path)
    assert isinstance(one.module, SentenceEncoder) and one.module.model.pooler is None
    assert one.fingerprint() == two.fingerprint()
    assert load(MINILM).module.model.pooler is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_folder_with_a_pickle_only_is_refused_with_the_conversion(tmp_path: Path, name: str) -> None:
    path = folder_of(tmp_path, BertModel(config()))
    (path / "model.safetensors").unlink()
    (path / name).write_bytes(b"never opened")
    with pytest.raises(ModelError, match=r"(?s)unpickling.*torch\.load\(.*model\.safetensors"):
        load(path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_without_config_or_weights_says_what_is_there(tmp_path: Path, name: str) -> None:
    path = folder_of(tmp_path, BertModel(config()))
    (path / name).unlink()
    with pytest.raises(ModelError, match=r"with (config\.json|model\.safetensors)"):
        load(path)


def test_a_missing_folder_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    folder_of(tmp_path, BertModel(config()))
    with pytest.raises(ModelError, match="did you mean `model`"):
        load(tmp_path / "modle")
    with pytest.raises(ModelError, match="which does not"):
        load("bert-base-uncased")


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    path = folder_of(tmp_path, BertModel(config()))
    (path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="merge"):
        load(path)


def test_code_in_the_folder_is_not_run(tmp_path: Path) -> None:
    path = folder_of(tmp_path, BertModel(config()))
    raw = json.loads((path / "config.json").read_text())
    raw |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (path / "config.json").write_text(json.dumps(raw))
    (path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError, match="bring their own code"):
        load(path)
    assert not (tmp_path / "ran").exists()


def layout(tmp_path: Path, pooling: dict[str, Any] | None, *more: str, normalize: bool = False) -> Path:
    """A sentence-transformers folder whose token model lies in a folder of its own."""
    BertModel(config()).save_pretrained(tmp_path / "0_Transformer")
    names = ["Transformer", *(["Pooling"] if pooling else []), *more, *(["Normalize"] if normalize else [])]
    modules = [{"path": f"{i}_{name}", "type": f"sentence_transformers.models.{name}"} for i, name in enumerate(names)]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    if pooling:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return tmp_path


@pytest.mark.parametrize(
    "pooling", [{"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode": "cls"}]
)
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_and_length_follow_the_folder_unless_stated(
    tmp_path: Path, pooling: dict[str, Any], normalize: bool
) -> None:
    path = layout(tmp_path, pooling, normalize=normalize)
    module = load(path).module
    assert isinstance(module, SentenceEncoder)
    assert (module.pooling, module.normalize) == ("cls", normalize)
    stated = load(path, pooling="mean", normalize=not normalize)
    assert isinstance(stated.module, SentenceEncoder)
    assert (stated.module.pooling, stated.module.normalize) == ("mean", not normalize)
    assert stated.fingerprint() != load(path).fingerprint()
    assert stated.tokenizer_folder == tmp_path / "0_Transformer"


def test_without_the_layout_the_mean_and_unit_length_are_taken(tmp_path: Path) -> None:
    path = folder_of(tmp_path, BertModel(config()))
    module = load(path).module
    assert isinstance(module, SentenceEncoder) and (module.pooling, module.normalize) == ("mean", True)
    assert HuggingFaceTeacher(str(path)).tokenizer_folder == path


def test_a_folder_that_asks_for_more_than_pooling_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ModelError, match="median"):
        load(layout(tmp_path / "a", {"pooling_mode": "median"}))
    (tmp_path / "b").mkdir()
    with pytest.raises(ModelError, match="LSTM"):
        load(layout(tmp_path / "b", {"pooling_mode": "mean"}, "LSTM"))


def test_a_broken_json_file_gives_a_model_error(tmp_path: Path) -> None:
    path = folder_of(tmp_path, BertModel(config()))
    (path / "modules.json").write_text("[{")
    with pytest.raises(ModelError, match=r"modules\.json"):
        load(path)


def test_dtype_and_attention_reach_the_model(tmp_path: Path) -> None:
    path = folder_of(tmp_path, BertModel(config()))
    teacher = load(path, dtype="bfloat16", attention="eager")
    assert isinstance(teacher.module, nn.Module)
    assert {parameter.dtype for parameter in teacher.module.parameters()} == {torch.bfloat16}
    assert teacher.module.model.config._attn_implementation == "eager"  # type: ignore[union-attr]
    exact = load(path).ask(batch_of(TOKENS), Request(output=True)).output
    found = teacher.ask(batch_of(TOKENS), Request(output=True)).output
    assert found is not None and exact is not None and found.dtype == torch.float32
    torch.testing.assert_close(found, exact, atol=2e-2, rtol=0)


def test_loading_says_nothing_and_leaves_the_settings_of_transformers_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    path = folder_of(tmp_path, BertForMaskedLM(config()))
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    capfd.readouterr()
    load(path)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_sharded_model_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BertModel(config())
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="4KB")
    assert not (tmp_path / "shards" / "model.safetensors").exists()
    assert load(tmp_path / "shards").fingerprint() == load(tmp_path / "whole").fingerprint()
