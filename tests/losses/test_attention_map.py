from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from attention_case import log_probabilities, sample_scores, seen_by
from loss_case import Array, Case, Numbers, Plain, batch_of, prepared, signals_of
from torch import nn

from tutelage.errors import SignalError
from tutelage.losses.attention_map import AttentionMap
from tutelage.signals import Batch, Signals
from tutelage.taps import Taps

PAIRS = {"a": "b"}


def golden(n: Numbers, *, heads: int = 2, probabilities: bool = False, causal: bool = False) -> Array:
    (q_s, k_s), (q_t, k_t) = n.student.values(), n.teacher.values()
    B, L = q_s.shape[:2]
    values = np.zeros((B, L))
    for i in range(B):
        mask = None if n.mask is None else n.mask[i]
        both = list(zip(sample_scores(q_s[i], k_s[i], heads), sample_scores(q_t[i], k_t[i], heads), strict=True))
        for token in range(L):
            seen = seen_by(token, L, mask, causal=causal)
            for s, t in both:
                if probabilities:
                    s_row, t_row = (np.exp(log_probabilities(x[token], seen)) for x in (s, t))
                else:
                    s_row, t_row = s[token, seen], t[token, seen]
                values[i, token] += ((s_row - t_row) ** 2).mean() / heads
    return values


def attention_map(heads: int = 2, **arguments) -> AttentionMap:
    return AttentionMap(PAIRS, student_heads=heads, teacher_heads=heads, **arguments)


def signals(width: int, tokens: int = 3, path: str = "a", names: tuple[str, str] = ("query", "key")):
    return {f"{path}.{name}": (tokens, width) for name in names}


CASES = {
    "same width": Case(attention_map, signals(4), signals(4, path="b"), golden, tokens=3, floor=0.0),
    "narrow heads": Case(attention_map, signals(2), signals(6, path="b"), golden, tokens=3),
    "no mask": Case(attention_map, signals(2), signals(4, path="b"), lambda n: golden(n).mean(1)),
    "causal": Case(
        lambda: attention_map(causal=True),
        signals(4),
        signals(4, path="b"),
        lambda n: golden(n, causal=True),
        tokens=3,
        floor=0.0,
    ),
    "causal, no mask": Case(
        lambda: attention_map(causal=True), signals(4), signals(4, path="b"), lambda n: golden(n, causal=True).mean(1)
    ),
    "probabilities": Case(
        lambda: attention_map(compare_as="probabilities"),
        signals(4),
        signals(4, path="b"),
        lambda n: golden(n, probabilities=True),
        tokens=3,
        floor=0.0,
    ),
    "other names": Case(
        lambda: attention_map(query="q", key="k", teacher_query="q_lin", teacher_key="k_lin"),
        signals(4, names=("q", "k")),
        signals(4, path="b", names=("q_lin", "k_lin")),
        golden,
        tokens=3,
        floor=0.0,
    ),
}


def plain_scores(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    B, L, D = query.shape
    q, k = (x.view(B, L, 12, D // 12).transpose(1, 2) for x in (query, key))
    return (q @ k.transpose(-1, -2) / (D // 12) ** 0.5).masked_fill(~mask[:, None, None, :], 0)


def plain(s: dict[str, torch.Tensor], t: dict[str, torch.Tensor]) -> torch.Tensor:
    mask = torch.ones(16, 128, dtype=torch.bool)
    return F.mse_loss(plain_scores(s["a.query"], s["a.key"], mask), plain_scores(t["b.query"], t["b.key"], mask))


PLAIN = {
    "tokens": Plain(
        lambda: attention_map(12),
        signals(384, 128),
        signals(768, 128, path="b"),
        lambda s, t, labels, loss: plain(s, t),
        tokens=128,
        samples=16,
    )
}


def test_probabilities_are_those_of_torchs_attention() -> None:
    """The wrong scale, or heads cut along tokens instead of channels, would be another attention."""
    torch.manual_seed(0)
    widths = {"a": 8, "b": 8}
    x = torch.randn(2, 5, 8)
    maps = {}
    features: dict[str, dict[str, torch.Tensor]] = {}
    for path, width in widths.items():
        module = nn.MultiheadAttention(width, 2, batch_first=True)
        nn.init.normal_(module.in_proj_bias)
        q, k, _ = F.linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, -1)
        features[path] = {f"{path}.query": q, f"{path}.key": k}
        maps[path] = module(x, x, x, average_attn_weights=False)[1]
    numbers = Numbers(
        *({name: tensor.detach().double().numpy() for name, tensor in features[path].items()} for path in widths),
        weights=np.ones(2),
    )
    loss = attention_map(compare_as="probabilities")
    found = loss(
        signals_of(numbers.student, torch.float32), signals_of(numbers.teacher, torch.float32), batch_of(numbers)
    )
    expected = (maps["a"] - maps["b"]).square().mean((1, 2, 3)).detach()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_padded_berts_are_compared_by_the_attention_that_they_give_out_themselves() -> None:
    """At the paths that a recipe names; keys that BERT masks are no part of the probabilities."""
    torch.manual_seed(0)
    inputs = {"input_ids": torch.randint(0, 9, (2, 5)), "attention_mask": torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])}
    mask = inputs["attention_mask"].bool()
    paths = {"encoder.layer.1.attention.self": "encoder.layer.0.attention.self"}
    loss = AttentionMap(paths, student_heads=2, teacher_heads=2, compare_as="probabilities")
    said, given = [], []
    for width, layer, request in ((8, 1, loss.needs.student), (12, 0, loss.needs.teacher)):
        config = transformers.BertConfig(
            vocab_size=9,
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=width,
            initializer_range=1.0,
            attn_implementation="eager",
        )
        model = transformers.BertModel(config, add_pooling_layer=False).eval()
        with Taps(model, request.features) as taps, torch.no_grad():
            given.append(model(**inputs, output_attentions=True).attentions[layer])
            said.append(Signals(features=taps.take()))
    rows = torch.arange(2)
    batch = Batch(inputs=inputs, rows=rows, views=torch.zeros_like(rows), mask=mask)
    squares = (given[0] - given[1]).square().sum(-1).mean(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(loss(*said, batch)[mask], squares[mask], rtol=1e-4, atol=1e-7)


def test_padding_is_left_out_and_not_averaged_in() -> None:
    """As zeros in the mean, padded keys would make the loss of short texts small."""
    short = CASES["same width"].draw()
    loss = prepared(CASES["same width"], short)
    assert short.mask is not None
    row = int(short.mask.sum(1).argmin())
    length = int(short.mask[row].sum())
    assert length < 3

    def run(tokens: int, mask: bool):
        def cut(arrays):
            return {name: x[row : row + 1, :tokens] for name, x in arrays.items()}

        m = short.mask[row : row + 1, :tokens] if mask else None
        n = Numbers(cut(short.student), cut(short.teacher), np.ones(1), m)
        return loss(signals_of(n.student, torch.float64), signals_of(n.teacher, torch.float64), batch_of(n))

    torch.testing.assert_close(run(3, True)[0, :length].mean(), run(length, False)[0])


def test_another_number_of_heads_is_refused_with_the_loss_that_takes_it() -> None:
    case = Case(lambda: AttentionMap(PAIRS, student_heads=2, teacher_heads=4), signals(4), signals(8, path="b"), golden)
    with pytest.raises(SignalError, match="use AttentionRelation"):
        prepared(case, case.draw())


@pytest.mark.parametrize(
    ("student", "teacher", "tokens", "message"),
    [
        (signals(3), signals(4, path="b"), None, r"`a\.query` and `a\.key`[\s\S]*student of one width"),
        (signals(4), signals(5, path="b"), None, "teacher of one width"),
        ({"a.query": (3, 4), "a.key": (3, 2)}, signals(4, path="b"), None, r"widths \[4, 2\]"),
        (signals(4), signals(4, 5, path="b"), None, "same tokens"),
        ({"a.query": (4,), "a.key": (4,)}, signals(4, path="b"), None, r"\[B, L, D\]"),
        (signals(4), signals(4, path="b"), 5, "token mask"),
    ],
)
def test_projections_that_do_not_fit_are_refused_by_name(student, teacher, tokens, message: str) -> None:
    case = Case(attention_map, student, teacher, golden, tokens=tokens)
    with pytest.raises(SignalError, match=message):
        prepared(case, case.draw())


@pytest.mark.parametrize("arguments", [{"heads": 0}, {"compare_as": "logits"}])
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be"):
        attention_map(**arguments)


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="found none"):
        AttentionMap({}, student_heads=2, teacher_heads=2)
