from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attention_case import log_probabilities, sample_scores, seen_by
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of

from tutelage.errors import SignalError
from tutelage.losses.attention_layers import scores
from tutelage.losses.attention_relation import AttentionRelation, ValueRelation, log_relation, relation_kl

PAIRS = {"a": "b"}


def golden(n: Numbers, *, heads: int = 2, causal: bool = False) -> Array:
    """The relation of the first projection with the last: with itself where there is one."""
    s_layers, t_layers = list(n.student.values()), list(n.teacher.values())
    B, L = s_layers[0].shape[:2]
    values = np.zeros((B, L))
    for i in range(B):
        mask = None if n.mask is None else n.mask[i]
        s, t = (sample_scores(layers[0][i], layers[-1][i], heads) for layers in (s_layers, t_layers))
        for token in range(L):
            seen = seen_by(token, L, mask, causal=causal)
            for a in range(heads):
                q, p = (log_probabilities(relation[a][token], seen) for relation in (s, t))
                values[i, token] += (np.exp(p) * (p - q)).sum() / heads
    return values


def signals(width: int, path: str, *names: str, tokens: int = 3) -> dict[str, tuple[int, ...]]:
    return {f"{path}.{name}": (tokens, width) for name in names}


def case(make, student: int, teacher: int, names: tuple[str, ...], formula=golden, **arguments) -> Case:
    return Case(make, signals(student, "a", *names), signals(teacher, "b", *names), formula, **arguments)


QK = ("query", "key")
CASES = {
    "attention": case(lambda: AttentionRelation(PAIRS, 2), 4, 4, QK, tokens=3, floor=0.0),
    "attention, other width": case(lambda: AttentionRelation(PAIRS, 2), 2, 6, QK, tokens=3),
    "attention, no mask": case(lambda: AttentionRelation(PAIRS, 2), 2, 4, QK, lambda n: golden(n).mean(1)),
    "attention, causal": case(
        lambda: AttentionRelation(PAIRS, 2, causal=True), 2, 4, QK, lambda n: golden(n, causal=True), tokens=3
    ),
    "attention, other names": Case(
        lambda: AttentionRelation(PAIRS, 2, query="q", key="k", teacher_query="q_lin", teacher_key="k_lin"),
        signals(4, "a", "q", "k"),
        signals(4, "b", "q_lin", "k_lin"),
        golden,
        tokens=3,
        floor=0.0,
    ),
    "value": case(lambda: ValueRelation(PAIRS, 2), 4, 4, ("value",), tokens=3, floor=0.0),
    "value, other width": case(lambda: ValueRelation(PAIRS, 2), 2, 6, ("value",), tokens=3),
    "value, no mask": case(lambda: ValueRelation(PAIRS, 2), 2, 4, ("value",), lambda n: golden(n).mean(1)),
    "value, causal": case(
        lambda: ValueRelation(PAIRS, 2, causal=True), 2, 4, ("value",), lambda n: golden(n, causal=True), tokens=3
    ),
    "queries": case(lambda: ValueRelation(PAIRS, 2, layer="query"), 4, 4, ("query",), tokens=3, floor=0.0),
    "keys": Case(
        lambda: ValueRelation(PAIRS, 2, layer="key", teacher_layer="k_lin"),
        signals(4, "a", "key"),
        signals(4, "b", "k_lin"),
        golden,
        tokens=3,
        floor=0.0,
    ),
    "two pairs": Case(
        lambda: ValueRelation({"a": "b", "c": "d"}, 2),
        signals(4, "a", "value") | signals(2, "c", "value"),
        signals(4, "b", "value") | signals(2, "d", "value"),
        lambda n: (golden(one(n, "a", "b")) + golden(one(n, "c", "d"))) / 2,
        tokens=3,
        floor=0.0,
    ),
}


def one(n: Numbers, student: str, teacher: str) -> Numbers:
    s, t = f"{student}.value", f"{teacher}.value"
    return Numbers({s: n.student[s]}, {t: n.teacher[t]}, n.weights, n.mask)


def plain_relation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    B, L, D = first.shape
    mask = torch.ones(B, L, dtype=torch.bool)
    q, k = (x.view(B, L, 12, D // 12).transpose(1, 2) for x in (first, second))
    relation = q @ k.transpose(-1, -2) / (D // 12) ** 0.5
    return relation.masked_fill(~mask[:, None, None, :], torch.finfo(relation.dtype).min).log_softmax(-1)


def plain(s: tuple[torch.Tensor, torch.Tensor], t: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    divergence = F.kl_div(plain_relation(*s), plain_relation(*t), reduction="sum", log_target=True)
    return divergence / (len(s[0]) * 12 * s[0].shape[1])


PLAIN = {
    "attention": Plain(
        lambda: AttentionRelation(PAIRS),
        signals(384, "a", *QK, tokens=128),
        signals(768, "b", *QK, tokens=128),
        lambda s, t, labels, loss: plain((s["a.query"], s["a.key"]), (t["b.query"], t["b.key"])),
        tokens=128,
        samples=16,
    ),
    "value": Plain(
        lambda: ValueRelation(PAIRS),
        signals(384, "a", "value", tokens=128),
        signals(768, "b", "value", tokens=128),
        lambda s, t, labels, loss: plain((s["a.value"], s["a.value"]), (t["b.value"], t["b.value"])),
        tokens=128,
        samples=16,
    ),
}


def divergence(s: torch.Tensor, t: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
    return relation_kl(log_relation(s, seen), log_relation(t, seen))


def test_the_teacher_is_the_first_argument_of_the_divergence() -> None:
    s, t = torch.randn(1, 1, 3, 3, dtype=torch.float64), torch.randn(1, 1, 3, 3, dtype=torch.float64)
    p, q = t.softmax(-1), s.softmax(-1)
    torch.testing.assert_close(divergence(s, t, None), (p * (p / q).log()).sum(-1)[:, 0])


def test_padding_gets_no_share_of_the_distribution() -> None:
    """As zeros before the softmax, padded keys would take a share that grows with the padding."""
    seen = torch.tensor([True, True, False])[None, None, None]
    s, t = torch.randn(1, 2, 3, 3, dtype=torch.float64), torch.randn(1, 2, 3, 3, dtype=torch.float64)
    expected = divergence(s[..., :2, :2], t[..., :2, :2], None)
    torch.testing.assert_close(divergence(s, t, seen)[:, :2], expected)


def test_a_row_that_is_all_padding_gives_no_nan() -> None:
    seen = torch.zeros(1, 1, 1, 3, dtype=torch.bool)
    s = torch.randn(1, 2, 3, 3, requires_grad=True)
    values = divergence(s, torch.randn(1, 2, 3, 3), seen)
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert (s.grad == 0).all()


def test_the_scale_is_that_of_a_relation_head_not_of_the_whole_width() -> None:
    ones = torch.ones(1, 3, 8)
    torch.testing.assert_close(scores(ones, ones, 4), torch.full((1, 4, 3, 3), 2 / 2**0.5))


def test_each_model_has_the_scale_of_its_own_width() -> None:
    """Two models of which one has its width doubled by zeros in each head differ by the scale alone."""
    t = torch.randn(1, 3, 4, dtype=torch.float64)
    s = torch.zeros(1, 3, 8, dtype=torch.float64)
    s[..., :2], s[..., 4:6] = t[..., :2] * 2**0.25, t[..., 2:] * 2**0.25
    numbers = Numbers({"a.value": s.numpy()}, {"b.value": t.numpy()}, np.ones(1))
    loss = ValueRelation(PAIRS, 2)
    value = loss(
        signals_of(numbers.student, torch.float64), signals_of(numbers.teacher, torch.float64), batch_of(numbers)
    )
    assert value.abs().max() < 1e-12


def test_values_of_other_layers_are_not_read() -> None:
    needs = ValueRelation(PAIRS, 2, layer="key", teacher_layer="k_lin").needs
    assert needs.student.features == {"a.key"}
    assert needs.teacher.features == {"b.k_lin"}


@pytest.mark.parametrize("make", [lambda: AttentionRelation(PAIRS, 3), lambda: ValueRelation(PAIRS, 3)])
def test_relation_heads_that_do_not_divide_a_width_are_refused_by_name(make) -> None:
    names = QK if isinstance(make(), AttentionRelation) else ("value",)
    refused = case(make, 6, 4, names)
    with pytest.raises(SignalError, match=rf"`a\.{names[0]}`[\s\S]*multiple of its 3 heads"):
        prepared(refused, refused.draw())


def test_fewer_key_heads_than_query_heads_are_refused_with_what_takes_them() -> None:
    refused = Case(
        lambda: AttentionRelation(PAIRS, 2), {"a.query": (3, 4), "a.key": (3, 2)}, signals(4, "b", *QK), golden
    )
    with pytest.raises(SignalError, match="grouped-query"):
        prepared(refused, refused.draw())


def test_sequences_of_different_length_are_refused() -> None:
    refused = Case(
        lambda: ValueRelation(PAIRS, 2), signals(4, "a", "value"), signals(4, "b", "value", tokens=5), golden
    )
    with pytest.raises(SignalError, match="same tokens"):
        prepared(refused, refused.draw())


@pytest.mark.parametrize("kind", [AttentionRelation, ValueRelation])
def test_no_heads_and_no_pairs_are_refused(kind) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        kind(PAIRS, 0)
    with pytest.raises(ValueError, match="found none"):
        kind({}, 2)
