from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import ENCODERS, MODELS, TOKENS, inner, model, output, teacher_of
from torch import nn

from tutelage.errors import ModelError
from tutelage.students import CutStudent

ATTENTION = {"bert": "attention.self.", "distilbert": "attention."}
PARTS = {
    "bert": ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
    "distilbert": ("q_lin", "k_lin", "v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"),
}


def projections(layer: nn.Module, name: str) -> list[nn.Linear]:
    """query, key, value, output projection, first and second feed-forward matrix of a layer."""
    family = "distilbert" if "distil" in name else "bert"
    paths = [ATTENTION[family] + part if i < 3 else part for i, part in enumerate(PARTS[family])]
    return [layer.get_submodule(path) for path in paths]  # type: ignore[misc]


def layers_of(whole: Any) -> list[nn.Module]:
    depth = whole.config.num_hidden_layers
    return next(list(m) for m in whole.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)


def norms_of(whole: nn.Module) -> list[nn.LayerNorm]:
    return [m for m in whole.modules() if isinstance(m, nn.LayerNorm)]


def strongest_channels(whole: nn.Module, count: int) -> list[int]:
    """By the sum over LayerNorms of each gain's share in their squares, in float64."""
    gains = [norm.weight.detach().double().numpy() ** 2 for norm in norms_of(whole)]
    score = sum(gain / gain.sum() for gain in gains)
    return sorted(sorted(range(len(score)), key=lambda c: -score[c])[:count])


def silence(whole: Any, name: str, channels: list[int], heads: list[int], units: list[int]) -> None:
    """Makes these channels, heads and units say nothing, and each LayerNorm see a mean of 0 over the others.

    Then leaving them out changes nothing but the divisor of the LayerNorms: sqrt(kept / all) of what it was.
    """
    hidden, head = whole.config.hidden_size, whole.config.hidden_size // whole.config.num_attention_heads
    live = [c for c in range(hidden) if c not in channels]
    dead_rows = [h * head + i for h in heads for i in range(head)]

    def write(weight: torch.Tensor) -> None:  # the first axis runs over channels
        weight[channels] = 0
        weight[live] -= weight[live].mean(0)

    with torch.no_grad():
        for norm in norms_of(whole):
            norm.weight.fill_(1.3)
            norm.weight[channels] = 0
            write(norm.bias)
            norm.eps = 0.0
        for table in (m for m in whole.modules() if isinstance(m, nn.Embedding)):
            write(table.weight.t())
        for layer in layers_of(whole):
            query, key, value, mix, up, down = projections(layer, name)
            for linear in (query, key, value, up):
                linear.weight[:, channels] = 0
            for linear in (query, key, value):
                linear.weight[dead_rows] = 0
                linear.bias[dead_rows] = 0
            mix.weight[:, dead_rows] = 0
            up.weight[units] = 0
            up.bias[units] = 0
            down.weight[:, units] = 0
            for linear in (mix, down):
                write(linear.weight)
                write(linear.bias)


@pytest.mark.parametrize("name", ENCODERS)
def test_leaving_out_what_says_nothing_changes_no_answer(name: str) -> None:
    """A slice that is inconsistent anywhere between the embeddings and the last layer would show here."""
    whole = model(name)
    channels, heads, units = [0, 5, 7, 8, 13, 14, 20, 23], [1, 4], list(range(3, 23))
    silence(whole, name, channels, heads, units)
    student = CutStudent(hidden_size=16, intermediate_size=20).build(teacher_of(whole))
    cut = inner(student)
    for norm in norms_of(cut):
        norm.eps = 0.0
        norm.weight.data *= (24 / 16) ** 0.5
    kept = [c for c in range(24) if c not in channels]
    base, cut_base = whole.base_model, cut.base_model
    with torch.no_grad():
        expected = base.double()(**TOKENS).last_hidden_state[..., kept]
        found = cut_base.double().eval()(**TOKENS).last_hidden_state
    real = TOKENS["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], atol=2e-6, rtol=0)  # the weights are float32


@pytest.mark.parametrize("name", ENCODERS)
def test_the_head_of_a_classifier_is_cut_to_the_same_channels(name: str) -> None:
    whole = model(name)
    student = inner(CutStudent(hidden_size=12).build(teacher_of(whole)))
    kept = strongest_channels(whole, 12)
    heads = {key: value for key, value in whole.state_dict().items() if ".layer." not in key}
    for key, value in heads.items():
        expected = value.numpy()
        for axis, size in enumerate(value.shape):
            if size == 24:
                expected = np.take(expected, kept, axis)
        np.testing.assert_array_equal(student.state_dict()[key].numpy(), expected, err_msg=key)


@pytest.mark.parametrize("name", ENCODERS)
def test_heads_and_units_are_kept_by_their_share_of_the_squared_weights(name: str) -> None:
    whole = model(name)
    student = inner(CutStudent(hidden_size=12, intermediate_size=15).build(teacher_of(whole)))
    channels = strongest_channels(whole, 12)
    for old, new in zip(layers_of(whole), layers_of(student), strict=True):
        source = projections(old, name)
        query, key, value, mix, up, down = (linear.weight.detach().double().numpy() for linear in source)
        squares = [w.reshape(6, 4, 24) ** 2 for w in (query, key, value, mix.T)]
        score = sum(square.sum((1, 2)) / square.sum() for square in squares)
        heads = sorted(sorted(range(6), key=lambda h: -score[h])[:3])
        rows = [h * 4 + i for h in heads for i in range(4)]
        score = (up**2).sum(1) / (up**2).sum() + (down**2).sum(0) / (down**2).sum()
        units = sorted(sorted(range(40), key=lambda u: -score[u])[:15])
        kept = [(rows, channels)] * 3 + [(channels, rows), (units, channels), (channels, units)]
        for ours, theirs, (outputs, inputs) in zip(projections(new, name), source, kept, strict=True):
            assert torch.equal(ours.weight, theirs.weight[outputs][:, inputs])
            assert torch.equal(ours.bias, theirs.bias[outputs])


@pytest.mark.parametrize("name", ENCODERS)
def test_the_same_widths_are_the_same_model(name: str) -> None:
    whole = model(name)
    teacher = teacher_of(whole)
    assert teacher.module is not None
    student = CutStudent(hidden_size=24, heads=6, intermediate_size=40).build(teacher)
    assert torch.equal(output(student), output(teacher.module))


@pytest.mark.parametrize("asked", [{"hidden_size": 12}, {"heads": 3}, {"hidden_size": 12, "heads": 3}])
def test_hidden_size_and_heads_give_one_another(asked: dict[str, int]) -> None:
    config = inner(CutStudent(**asked).build(teacher_of(model("bert")))).config
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (12, 3, 40)


def test_units_alone_leave_the_hidden_states_as_wide_as_the_teachers() -> None:
    config = inner(CutStudent(intermediate_size=10).build(teacher_of(model("distilbert")))).config
    assert (config.dim, config.n_heads, config.hidden_dim) == (24, 6, 10)


@pytest.mark.parametrize("name", ENCODERS)
def test_depth_and_width_together_are_saved_and_loaded_again(name: str, tmp_path: Path) -> None:
    student = CutStudent([1, 2], hidden_size=8, intermediate_size=10, dropout=0.0).build(teacher_of(model(name)))
    cut = inner(student).eval()
    cut.save_pretrained(tmp_path)
    again = type(cut).from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**TOKENS)[0], cut(**TOKENS)[0])
    assert cut.config.num_hidden_layers == 2
    output(student).sum()


def test_a_pooler_that_was_left_out_stays_out() -> None:
    whole = model("bert")
    whole.pooler = None
    assert inner(CutStudent(hidden_size=12).build(teacher_of(whole))).pooler is None


def test_the_teacher_is_left_as_it_was() -> None:
    teacher = teacher_of(model("bert"))
    digest = teacher.fingerprint()
    CutStudent([0], hidden_size=12, intermediate_size=10, dropout=0.0).build(teacher)
    assert teacher.fingerprint() == digest


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"hidden_size": 14}, "heads x 4"),
        ({"hidden_size": 12, "heads": 2}, "hidden_size 12 has 3 heads"),
        ({"hidden_size": 28}, "at most the teacher's 24"),
        ({"intermediate_size": 41}, "at most the teacher's 40"),
    ],
)
def test_widths_that_do_not_fit_are_refused(asked: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        CutStudent(**asked).build(teacher_of(model("bert")))


def test_a_decoder_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from tutelage.students import cut

    monkeypatch.setattr(cut, "copy_layers", lambda *_: pytest.fail("it was copied"))
    with pytest.raises(ModelError, match="BERT's or DistilBERT's blocks"):
        CutStudent(intermediate_size=10).build(teacher_of(model("llama-classifier")))


def test_a_weight_of_another_width_is_refused_by_name() -> None:
    """ELECTRA has BERT's blocks, and embeddings with a width of their own."""
    from transformers import ElectraConfig, ElectraModel

    sizes: dict[str, Any] = dict(MODELS["bert"][2])
    whole = ElectraModel(ElectraConfig(vocab_size=13, embedding_size=24, **sizes))
    with pytest.raises(ModelError, match="embeddings_project"):
        CutStudent(hidden_size=12).build(teacher_of(whole))
